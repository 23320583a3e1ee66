"""The page of a distillation: its chart against the checks, and in headless Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, chromium, opened
from made_reports import HOSTILE
from made_results import make_result

from onnxpress.output_file import FileSet
from onnxpress.report.distillation_page import write_distillation
from onnxpress.report.document import validation_document
from onnxpress.report.loss_chart import loss_charts

BROWSER = chromium()
FAULTS = Path(__file__).with_name("accessibility.js")
CHECKS: list[dict[str, Any]] = [
    {"step": 0, "training": None, "chosen": 1.0},
    {"step": 50, "training": 0.5, "chosen": 0.01},
    {"step": 100, "training": 0.2, "chosen": 0.1},
]


def made(name: str, *, better: bool = True) -> dict[str, Any]:
    """A document in which everything that has a name is called so."""
    validation = make_result(name=name).validation
    assert validation is not None
    metric = {"name": name, "outputs": [name], "value": 57.6, "teacher": 93.1}
    return {
        "onnxpress": "0",
        "command": f"onnxpress distill {name}",
        "teacher": name,
        "student": name,
        "better": better,
        "why_not": "" if better else f"{name} fell",
        "seconds": 12.3,
        "before": {"worst_sqnr_db": 3.0, "metrics": [metric]},
        "after": {"worst_sqnr_db": None, "metrics": [{**metric, "value": 92.7}]},
        "training": {
            "targets": [name],
            "samples": {"training": 200, "choosing": 50, "judging": 80},
            "mixtures": 600,
            "batch": 32,
            "steps": 100,
            "ended": name,
            "rate_halved": 0,
            "loss_before": 1.0,
            "loss_best": 0.01,
            "checks": CHECKS,
        },
        "trained": [name, "bias"],
        "left": {f"{name}{place}": f"{name} is why" for place in range(5)},
        "missing": {},
        "gradients": [],
        "warnings": [name],
        "validation": validation_document(validation),
    }


def write(found: dict[str, Any], folder: Path) -> Path:
    place = folder / "page.html"
    with FileSet() as files:
        write_distillation(found, place, files)
    return place


def test_best_state_is_where_the_loss_is_least() -> None:
    for chart in loss_charts(CHECKS):
        left, right, top, bottom = chart.edges
        assert chart.best is not None
        assert chart.best[0] == pytest.approx((left + right) / 2, abs=0.1)
        lines = dict(chart.lines)
        places = [tuple(map(float, p.split())) for p in re.split("[ML]", lines["chosen"]) if p]
        assert [x for x, _ in places] == pytest.approx([left, (left + right) / 2, right], abs=0.1)
        # A tenth of the loss is as far below as from a tenth to a hundredth.
        (_, first), (_, second), (_, third) = places
        assert second - third == pytest.approx(third - first, abs=0.2)
        assert top < first < second < bottom
        assert [label for _, label in chart.y.ticks] == ["0.01", "0.1", "1"]


def test_one_loss_is_no_chart() -> None:
    assert loss_charts(CHECKS[:1]) == []
    assert loss_charts([{"step": 0, "training": None, "chosen": None}] * 2) == []


def test_verdict_says_what_changed_or_why_nothing_did(tmp_path: Path) -> None:
    text = write(made("logits"), tmp_path).read_text(encoding="utf-8")
    assert "Better: logits 57.60 to 92.70% (teacher 93.10)." in text
    text = write(made("logits", better=False), tmp_path).read_text(encoding="utf-8")
    assert "Not better: logits fell. The student is written as it was." in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with opened(BROWSER) as page:
        yield page


@pytest.mark.parametrize("name", ["logits", *HOSTILE])
def test_page_acts_on_nobody_and_keeps_nobody_out(browser: Page, tmp_path: Path, name: str) -> None:
    place = write(made(name), tmp_path)
    for width, dark in ((1440, False), (390, True)):
        browser.size(width, dark=dark)
        browser.said.clear()
        browser.open(place)
        browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert browser.said == []
        assert browser.run("document.querySelectorAll('script').length") == 1
        assert browser.run(FAULTS.read_text(encoding="utf-8")) == []
