"""Several models of one search: none beaten by another, each judged on samples that chose none."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK
from command_line import message, run
from fashion import fashion_data
from made_results import make_result, measurement

from onnxpress import model_file
from onnxpress.frontier import Frontier, explore, undominated
from onnxpress.request import Request
from onnxpress.result import Result
from onnxpress.runtime import Latency


def made(
    nbytes: int,
    spent: float,
    low: float,
    high: float,
    monkeypatch: Any,
    *,
    decibels: float | None = None,
    drop: float = 0.85,
) -> Result:
    """A result of so many bytes, that spends so much, with these quartiles of its speedup.

    Its output is as near as it spends little, unless `decibels` says otherwise.
    """
    result = make_result()
    assert result.validation is not None
    latency = Latency(1.0, (low + high) / 2, (low + high) / 2, low, high)
    found = measurement("logits", drop=drop)
    output = replace(found.outputs["logits"], sqnr_db=decibels or 50 - 40 * spent)
    found = replace(found, outputs={"logits": output})
    validation = replace(result.validation, latency=latency, measurement=found)
    result = replace(result, spent=spent, validation=validation)
    sizes[id(result)] = nbytes
    monkeypatch.setattr("onnxpress.frontier._bytes", lambda one: sizes[id(one)])
    return result


sizes: dict[int, int] = {}


@pytest.mark.parametrize(
    ("figures", "timed", "kept"),
    [
        ([(10, 0.9, 1, 2), (20, 0.1, 1, 2)], True, [0, 1]),
        ([(10, 0.1, 1, 2), (20, 0.9, 1, 2)], True, [0]),
        ([(10, 0.1, 1, 2), (20, 0.9, 3, 4)], True, [0, 1]),
        ([(10, 0.1, 1, 2), (20, 0.9, 3, 4)], False, [0]),
        ([(10, 0.1, 1, 2), (20, 0.9, 1.9, 4)], True, [0]),
        ([(10, 0.1, 1, 2), (10, 0.1, 1, 2)], True, [0]),
        ([(10, 0.1, 1, 2), (10, 0.1, 3, 4)], True, [1]),
        ([(30, 0.0, 1, 2), (10, 0.5, 1, 2), (20, 0.1, 1, 2)], True, [1, 2, 0]),
    ],
)
def test_what_another_beats_is_left_out(
    figures: list[tuple[int, float, float, float]],
    timed: bool,  # noqa: FBT001
    kept: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = [made(*one, monkeypatch) for one in figures]
    found = undominated(results, timed=timed)
    assert [results.index(one) for one in found] == kept


@pytest.mark.parametrize(
    ("drop", "kept"),
    [(0.9, [0]), (9.0, [0, 1])],
    ids=["the bounds overlap", "the drops are told apart"],
)
def test_a_few_answers_do_not_keep_what_is_further_from_the_original(
    drop: float, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second is larger by a byte and has 8 dB less.
    first = made(10, 0.11, 1, 2, monkeypatch, decibels=38.6, drop=drop)
    second = made(11, 0.03, 1, 2, monkeypatch, decibels=30.5, drop=0.4)
    found = undominated([first, second], timed=True)
    assert [[first, second].index(one) for one in found] == kept


def explored(model: Path, **more: Any) -> Frontier:
    given = fashion_data(calibration=48, evaluation=200)
    return explore(Request(model, **given, clock=BY_WORK, **more))


@pytest.mark.long
def test_frontier_of_a_network_is_monotone_and_within_the_budget(models: Path) -> None:
    found = explored(models / "fashion_mlp.onnx", goal="size")
    assert 3 <= len(found.models) <= 8
    bytes_of = [model_file.whole_size(result.model) for result in found.models]
    spent = [result.spent or 0.0 for result in found.models]
    assert bytes_of == sorted(bytes_of)
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == 0, "the last one loses nothing"
    for result in found.models:
        assert result.within_budget
        stamped = result.model.metadata_props["onnxpress.recipe_sha256"]
        assert stamped == result.recipe.digest, "no other share's"
        assert not result.operators, "nobody is told"
        assert not result.disagreements, "nobody is told"
        assert result.validation is not None
        assert "untouched" in result.validation.measurement.source
        (metric,) = result.validation.measurement.metrics
        # All eight bounds hold together with 95%.
        assert metric.confidence == pytest.approx(1 - 0.05 / 8)


@pytest.mark.slow
def test_depthwise_network_has_a_frontier_by_one_pass(models: Path) -> None:
    found = explored(models / "fashion_mobile.onnx", passes=["quantize"])
    assert len(found.models) >= 2
    assert all(result.within_budget for result in found.models)


def test_an_end_that_is_asked_for_keeps_what_is_there(models: Path) -> None:
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return True

    found = explored(models / "fashion_mlp.onnx", stop=stop)
    assert len(found.models) == 1
    assert any("[L010]" in note for note in found.notes)


@pytest.fixture
def folder(linear_model: Path, tmp_path: Path) -> Path:
    """Of a frontier that was written."""
    place = tmp_path / "out"
    done = run("optimize", linear_model, "--goal", "size", "--frontier", place)
    assert done.exit_code == 0, done.output
    return place


def test_models_recipes_table_plot_and_document_are_written(folder: Path) -> None:
    found = json.loads((folder / "frontier.json").read_text())
    assert found["models"]
    for row in found["models"]:
        assert (folder / row["file"]).stat().st_size == row["bytes"]
        assert (folder / row["recipe"]).is_file()
        assert row["validation"]["judgement"]["verdict"] != "broken"
        assert row["file"] in (folder / "frontier.md").read_text()
    plot = ET.fromstring((folder / "frontier.svg").read_text())  # noqa: S314 - our own
    circles = plot.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(found["models"])


def test_an_earlier_frontier_is_replaced_and_none_of_it_is_left(
    folder: Path, linear_model: Path
) -> None:
    stale = folder / "linear.7.onnx"
    stale.write_bytes((folder / "linear.1.onnx").read_bytes())
    stale.with_suffix(".recipe.toml").write_text((folder / "linear.1.recipe.toml").read_text())
    done = run("optimize", linear_model, "--goal", "size", "--frontier", folder)
    assert done.exit_code == 0, done.output
    assert not stale.exists()
    assert not stale.with_suffix(".recipe.toml").exists()


@pytest.mark.parametrize("name", ["linear.2.onnx", "frontier.md", "frontier.svg", "frontier.json"])
def test_what_is_not_ours_is_replaced_by_force_alone(
    linear_model: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    command = ("optimize", linear_model, "--goal", "size", "--frontier", folder)
    done = run(*command)
    assert done.exit_code == 2
    assert "[O004]" in message(done) or "error[O004]" in message(done)
    assert (folder / name).read_text() == "mine"
    assert run(*command, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "o.onnx"], "leave --out out"),
        (["--report", "o.html"], "leave --report out"),
        (["--dry-run"], "leave --dry-run out"),
        (["--per-target"], "leave --per-target out"),
        (["--max-size", "4MB"], "leave max size"),
    ],
)
def test_what_belongs_to_one_model_is_refused(
    linear_model: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    done = run("optimize", linear_model, "--frontier", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert says in message(done)
    assert not (tmp_path / "out").exists()


def test_a_document_does_not_replace_a_model(linear_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("linear.1.onnx", "linear.1.recipe.toml", "frontier.md"):
        done = run("optimize", linear_model, "--frontier", out, "--json", out / name)
        assert done.exit_code == 2
        assert "another output" in message(done)


def test_a_file_is_no_folder(linear_model: Path, tmp_path: Path) -> None:
    done = run("optimize", linear_model, "--frontier", linear_model)
    assert done.exit_code == 2
    assert "needs a folder" in message(done)
