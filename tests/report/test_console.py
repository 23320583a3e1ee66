"""Console output fits 80 columns, and no name can act on the terminal or the page."""

import io
from pathlib import Path

import pytest
from made_results import make_result, page, printed, printed_validation
from rich.cells import cell_len

from onnxpress.report.console import print_doctor, print_result
from onnxpress.report.document import document
from onnxpress.report.printing import console_for, print_table

ACTING = "a\x1b[31mb\x07c\rd[/x]e[red]f\x9bg\u202eh\udcffi:smile:<b>&$x$"
NAMES = [
    "logits",
    "encoder/layer." * 30,
    "many short words " * 30,
    "層" * 90,
    "",
    " indented",
    "x" * 81,
    ACTING,
]


def assert_narrow(text: str) -> None:
    too_long = [line for line in text.splitlines() if cell_len(line) > 80]
    assert not too_long


@pytest.mark.parametrize("name", NAMES)
def test_result_fits_80_columns(name: str) -> None:
    assert_narrow(printed(make_result(name=name)))


@pytest.mark.parametrize("name", NAMES)
def test_validation_fits_80_columns(name: str) -> None:
    assert_narrow(printed_validation(make_result(name=name, outputs=[name, "second"])))


@pytest.mark.parametrize("name", NAMES)
def test_doctor_and_plain_tables_fit_80_columns(name: str) -> None:
    stream = io.StringIO()
    entry = {"provider": name, "state": name, "detail": name}
    found = {
        "python": name,
        "machine": name,
        "versions": {name: name, "onnx": name},
        "processor": {name: True},
        "html_report": name,
        "readers": {name: name},
        "providers": [entry, entry],
        "verdicts": [],
        "problems": [name],
    }
    print_doctor(found, console_for(stream))
    print_table("largest layers", ("layer", name), [(name, "1"), (name, name)], console_for(stream))
    assert_narrow(stream.getvalue())


def test_many_passes_and_wide_numbers_fit_80_columns() -> None:
    many = make_result().stages * 30
    assert_narrow(printed(make_result(stages=many, speedup=123456.789, ratio=1e12)))
    assert_narrow(printed(make_result(stages=many, speedup=1e-9, ratio=1e-4)))


def test_wide_terminal_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert_narrow(printed(make_result(name="a sentence of many words " * 20)))


def test_control_characters_and_markup_in_names_are_escaped() -> None:
    found = make_result(name=ACTING)
    for text in (printed(found), printed_validation(found)):
        assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e", "\udcff"} & set(text)
        joined = "".join(text.split())
        assert r"a\x1b[31mb\x07c\rd[/x]e[red]f\x9bg\u202eh\udcffi:smile:<b>&$x$" in joined


def test_names_are_escaped_in_html(tmp_path: Path) -> None:
    text = page(make_result(name=ACTING), tmp_path)
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(text)
    assert "<b>&$" not in text
    assert r"a\x1b[31mb\x07c\rd[/x]e" in text


def test_what_costs_most_is_told_with_the_option_that_takes_it_back(tmp_path: Path) -> None:
    found = make_result(name="/head/my conv")
    line = "/head/my conv (/head/my conv): 2.1 dB; keep it with --keep '/head/my conv'"
    assert line in " ".join(printed(found).split())
    assert line in page(found, tmp_path).replace("&#39;", "'")


def test_path_of_a_written_file_stays_on_one_line() -> None:
    stream = io.StringIO()
    path = "/models/" + "long name/" * 20 + "model.onnx"
    print_result(document(make_result()), written=[path], console=console_for(stream))
    *lines, last = stream.getvalue().splitlines()
    assert last == f"wrote {path}"
    assert_narrow("\n".join(lines))
