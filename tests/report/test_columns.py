"""A column or row that is added to its list is in every form of the report."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_results import make_result, page, printed, printed_validation

from onnxpress.providers import ProviderVerdict
from onnxpress.report import columns, rows
from onnxpress.report.columns import Column, Document
from onnxpress.report.document import document
from onnxpress.report.markdown import markdown_heading, markdown_row
from onnxpress.report.rows import Line, Row
from onnxpress.validation import Validation


def test_added_provider_column_is_in_every_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    added: Column[ProviderVerdict] = Column(
        "took", "took", lambda v: v.seconds, lambda row: f"{row['took']:.1f} s"
    )
    monkeypatch.setattr(columns, "PROVIDER_COLUMNS", (*columns.PROVIDER_COLUMNS, added))
    found = make_result()
    row = document(found)["validation"]["providers"][0]
    assert row["took"] == 123.25
    assert markdown_heading(columns.PROVIDER_COLUMNS)[0].endswith("| took |")
    assert markdown_row(columns.PROVIDER_COLUMNS, row).endswith("| 123.2 s |")
    assert "123.2 s" in printed(found)
    assert re.search(r'<th [^>]*class="number">took</th>', page(found, tmp_path))
    assert re.search(r'<td [^>]*class="number" [^>]*>123.2 s</td>', page(found, tmp_path))


def test_added_row_is_in_every_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def lines(validation: Document) -> Iterator[Line]:
        yield Line("memory", "9 MB", f"{validation['memory']} MB", "peak, 1 sample")

    added: Row[Validation] = Row("memory", "memory", lambda _: 7, lines)
    monkeypatch.setattr(rows, "VALIDATION_ROWS", (*rows.VALIDATION_ROWS, added))
    found = make_result()
    assert document(found)["validation"]["memory"] == 7
    assert re.search(r"memory +9 MB +7 MB +peak, 1 sample", printed(found))
    assert re.search(r'<td [^>]*class="number" [^>]*>7 MB</td>', page(found, tmp_path))


@pytest.mark.parametrize("name", ["OUTPUT_COLUMNS", "DECISION_COLUMNS", "SKIP_COLUMNS"])
def test_added_column_is_in_json_and_html(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    added: Column[object] = Column("added", "a new heading", lambda _: "a new figure")
    monkeypatch.setattr(columns, name, (*getattr(columns, name), added))
    found = make_result()
    assert "'added': 'a new figure'" in str(document(found))
    assert "a new heading" in page(found, tmp_path)
    assert "a new figure" in page(found, tmp_path)


def test_added_output_column_is_on_the_console(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: Column[object] = Column("added", "added", lambda _: "figure")
    monkeypatch.setattr(columns, "OUTPUT_COLUMNS", (*columns.OUTPUT_COLUMNS, added))
    found = make_result(outputs=["logits", "boxes"])
    assert re.search(r"boxes .* figure", printed_validation(found))


def test_template_names_no_column_or_row() -> None:
    template = Path(columns.__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    listed: tuple[Column[Any], ...] = (
        *columns.PROVIDER_COLUMNS,
        *columns.OUTPUT_COLUMNS,
        *columns.DECISION_COLUMNS,
    )
    every_row: tuple[Row[Any], ...] = (*rows.RESULT_ROWS, *rows.VALIDATION_ROWS)
    keys = {column.key for column in listed if column.heading} | {row.key for row in every_row}
    named = {key for key in keys if re.search(rf"\.{key}\b|\[.{key}.\]", template)}
    assert not named


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    text = page(make_result(), tmp_path)
    assert "bytes saved" in text
    assert "weights zeroed" not in text


def test_markdown_cell_stays_one_cell() -> None:
    assert markdown_row([Column("a", "a", None)], {"a": "x|y\nz\x1b"}) == r"| x\|y z\x1b |"
