"""In a notebook a result shows what matters first, and names cannot act there."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from clocks import BY_WORK
from made_results import make_result

import onnxpress
from onnxpress import model_file

HOSTILE = "<script>alert(1)</script>|`*x*`[a](b)"


class Tags(HTMLParser):
    """Which elements a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Of `HTMLParser`."""
        self.found.add(tag)


def test_verdict_size_speed_and_metrics_are_rows() -> None:
    text = replace(make_result(), problems=())._repr_markdown_()
    assert text.startswith("**Within the budget: ")
    assert "| size |" in text
    assert "| latency |" in text
    assert "times as fast" in text
    assert "| SQNR |" in text


def test_confidence_is_not_rounded_up() -> None:
    found = make_result()
    assert found.validation is not None
    measured = found.validation.measurement
    figures = tuple(replace(figure, confidence=0.975) for figure in measured.metrics)
    assert figures
    measured = replace(measured, metrics=figures)
    found = replace(found, validation=replace(found.validation, measurement=measured))
    assert "with 97.5%" in found._repr_markdown_()


def test_what_is_not_met_is_the_verdict_and_said() -> None:
    found = replace(make_result(), problems=("accuracy drops by 3.00 points",))
    text = found._repr_markdown_()
    assert text.startswith("**Not met**")
    assert "- accuracy drops by 3.00 points" in text


def test_what_was_not_run_claims_nothing() -> None:
    text = replace(make_result(), validation=None, problems=())._repr_html_()
    assert "Nothing was measured" in text
    assert "latency" not in text


@pytest.mark.parametrize("problems", [(), (HOSTILE,)])
def test_names_cannot_act(problems: tuple[str, ...]) -> None:
    found = replace(make_result(name=HOSTILE), problems=problems, warnings=(HOSTILE,))
    allowed = {"p", "strong", "table", "tr", "th", "td", "ul", "li"}
    assert Tags(found._repr_html_()).found <= allowed
    markdown = found._repr_markdown_()
    assert "<script>" not in markdown.replace("\\<", "")
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_layers_are_plain_rows_of_what_was_done_and_left(models: Path) -> None:
    result = onnxpress.optimize(models / "fashion_cnn.onnx", goal="size", min_sqnr=15.0)
    rows = result.layers
    assert {tuple(row) for row in rows} == {
        ("layer", "pass", "form", "saved_bytes", "predicted_error", "reason", "code")
    }
    done = [row for row in rows if row["pass"] == "quantize" and row["form"]]
    left = [row for row in rows if row["pass"] == "prune"]
    assert sum(row["saved_bytes"] for row in done) > 1_500_000
    assert left
    assert all(row["form"] is None and row["code"] for row in left)


def test_the_frontier_is_plain_rows_of_all_tried_models_and_the_result(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
    )
    rows = result.frontier
    assert len({tuple(sorted(row)) for row in rows}) == 1, "all rows have the same columns"
    assert len(rows) == len(result.tried) + 1 > 3
    *tried, last = rows
    assert {row["model"] for row in tried} == {"tried"}
    assert last["model"] == "result"
    assert last["size_ratio"] > 2
    assert last["weight_bytes"] == model_file.weight_bytes(result.model)
    assert result.validation is not None
    assert last["samples"] == result.validation.measurement.samples
    best = [row for row in tried if row["best"]]
    held = [row for row in tried if row["holds"]]
    assert best
    for row in held:
        dominated = any(
            other["weight_bytes"] <= row["weight_bytes"]
            and other["spent"] <= row["spent"]
            and (other["weight_bytes"], other["spent"]) != (row["weight_bytes"], row["spent"])
            for other in held
        )
        assert row["best"] is not dominated
    json.dumps(rows)


def test_the_frontier_of_what_was_not_searched_is_the_result(models: Path) -> None:
    result = onnxpress.optimize(models / "fashion_mlp.onnx", passes=["simplify"])
    assert [row["model"] for row in result.frontier] == ["result"]
