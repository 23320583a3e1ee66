"""Lines of entries in a TOML text."""

from pathlib import Path

import pytest

from onnxpress.toml_places import home_expanded, places_of

TEXT = """# a comment
version = 2

[calibration]
source = "a = b"
[layers."/head.x/*"]
keep = true
[[pass]]
name = 'one'
[[pass]]
"name" = 'two'
[[pass.decision]]
site = 'a'
[pass.decision.parameters]
rank = 3
[[ pass . decision ]] # the second
  site = 'b'
"""


def test_every_entry_has_the_line_where_it_stands() -> None:
    assert places_of(TEXT) == {
        (): 1,
        ("version",): 2,
        ("calibration",): 4,
        ("calibration", "source"): 5,
        ("layers", "/head.x/*"): 6,
        ("layers", "/head.x/*", "keep"): 7,
        ("pass", 0): 8,
        ("pass", 0, "name"): 9,
        ("pass", 1): 10,
        ("pass", 1, "name"): 11,
        ("pass", 1, "decision", 0): 12,
        ("pass", 1, "decision", 0, "site"): 13,
        ("pass", 1, "decision", 0, "parameters"): 14,
        ("pass", 1, "decision", 0, "parameters", "rank"): 15,
        ("pass", 1, "decision", 1): 16,
        ("pass", 1, "decision", 1, "site"): 17,
    }


def test_rows_of_numbers_are_no_headers() -> None:
    assert places_of("a = [\n  [1, 2],\n]\nb = 1")[("b",)] == 4


def test_home_is_expanded_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anyone")
    assert home_expanded("~/x") == Path("/home/anyone/x")
    assert home_expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert home_expanded(Path("plain/x")) == Path("plain/x")
