"""The page is whole without a script, asks for nothing, and lets no name act."""

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_reports import HOSTILE, large_page, rich_page, rich_result
from made_results import make_result, page

from onnxpress.output_file import FileSet
from onnxpress.report.document import document
from onnxpress.report.headline import verdict
from onnxpress.report.html import write_html


class Parts(HTMLParser):
    """Which elements a page has, with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found |= {(tag, ""), *((tag, name) for name, _ in attrs)}


def parts_of(text: str) -> set[tuple[str, str]]:
    parts = Parts()
    parts.feed(text)
    return parts.found


def body_of(text: str) -> str:
    """The page without its own style and script."""
    return re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)


def test_page_of_a_stored_document_is_the_same(tmp_path: Path) -> None:
    found = rich_result()
    stored = json.loads(json.dumps(document(found)))
    with FileSet() as files:
        write_html(stored, tmp_path / "again.html", files)
    assert (tmp_path / "again.html").read_text("utf-8") == page(found, tmp_path)


def test_verdict_comes_first() -> None:
    tone, sentence = verdict(document(make_result()))
    assert tone == "good"
    assert sentence == (
        "Within the budget: 3.00x smaller and 1.31x faster; accuracy down 0.85 points "
        "(at most 1.27 lost with 95% confidence)."
    )


def test_first_paragraph_is_the_verdict(tmp_path: Path) -> None:
    text = rich_page(tmp_path).read_text("utf-8")
    first = re.search(r"<p [^>]*>(.*?)</p>", text)
    assert first is not None
    assert html.unescape(first[1]) == verdict(document(rich_result()))[1]


def test_every_row_is_there_without_a_script(tmp_path: Path) -> None:
    text = rich_page(tmp_path).read_text("utf-8")
    for name in ("first", "second", "third"):
        assert f"<bdi>{name}</bdi>" in text
    assert 'class="filter" hidden' in text


def test_policy_allows_this_script_alone(tmp_path: Path) -> None:
    text = rich_page(tmp_path).read_text("utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_page_names_no_address(tmp_path: Path) -> None:
    text = rich_page(tmp_path).read_text("utf-8")
    assert not re.findall(r"https?://|@import|url\(", text)
    assert set(re.findall(r'(?:src|href)="([^"]{0,15})', text)) <= {
        "data:image/png;",
        "data:audio/wav;",
        *("#figures", "#graph", "#tried", "#differing", "#layers", "#passes", "#repeat"),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_text_wherever_it_stands(tmp_path: Path, name: str) -> None:
    plain = rich_page(tmp_path, ("first", "second", "third")).read_text("utf-8")
    found = rich_result((f"1{name}", f"2{name}", f"3{name}"), name=name)
    text = page(found, tmp_path)

    assert parts_of(text) <= parts_of(plain)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", text)


@pytest.mark.slow
def test_tables_of_large_models_are_cut_and_say_so(tmp_path: Path) -> None:
    text = large_page(tmp_path).read_text("utf-8")
    assert "These are the 1,000 largest of 10,000 layers" in text
    assert "9,699 more rows are in the JSON document" in text
    assert len(text) < 4_000_000
    opened = re.findall(r"<([a-z0-9]+)[ >]", body_of(text))
    assert len(opened) < 40_000


def test_page_of_nothing_measured_says_so(tmp_path: Path) -> None:
    from dataclasses import replace  # noqa: PLC0415

    found = replace(make_result(stages=()), validation=None, problems=())
    assert "Nothing was measured; by its files the model is 3.00x smaller." in page(found, tmp_path)
