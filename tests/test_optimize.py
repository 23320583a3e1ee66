"""The main job on the committed models, with the figures it has to reach."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from clocks import BY_WORK, by_work
from command_line import run
from fashion import fashion_data

import onnxpress
import onnxpress.errors
from onnxpress import model_file
from onnxpress.validation import validate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "passes", "smaller"), [("cnn", ["quantize"], 3.5), ("mlp", None, 6.0)]
)
def test_fashion_network_is_pressed_within_the_budget(
    tmp_path: Path, models: Path, name: str, passes: list[str] | None, smaller: float
) -> None:
    original = models / f"fashion_{name}.onnx"
    before = original.read_bytes()
    result = onnxpress.optimize(
        original, passes=passes, max_drop=1.0, clock=BY_WORK, **fashion_data()
    )
    output = tmp_path / "out.onnx"
    result.save(output)
    assert result.within_budget
    assert result.validation is not None
    assert result.validation.measurement.drop <= 1.0
    assert original.stat().st_size / output.stat().st_size >= smaller
    assert sum(result.validation.integer_kernels.values()) >= 3
    assert original.read_bytes() == before


def test_accuracy_is_what_numpy_counts(models: Path) -> None:
    given = fashion_data()
    model = models / "fashion_mlp.onnx"
    found = validate(model, model, evaluation=given["evaluation"])
    evaluator = onnx.reference.ReferenceEvaluator(str(model))
    scores = evaluator.run(None, {"image": given["evaluation"]["image"]})
    right = np.asarray(next(iter(scores))).argmax(axis=1) == given["evaluation"]["__labels__"]
    # One image in 2,000 may lie between two classes.
    figure = found.measurement.worst_metric
    assert figure is not None
    assert figure.reference == pytest.approx(100 * right.mean(), abs=0.05)


@pytest.mark.parametrize(
    ("integers", "goal", "forms", "note"),
    [
        (3.0, "balanced", "dynamic", ""),
        (0.5, "balanced", "weight_only", "only forms that keep the kernels were taken: .*0.5"),
        (0.5, "latency", "weight_only", "only forms that keep the kernels were taken: .*0.5"),
        (0.5, "size", "static weight_only_4_bit", ""),
    ],
)
def test_integer_kernels_are_taken_where_the_clock_finds_them_faster_or_speed_counts_for_nothing(
    models: Path, integers: float, goal: Any, forms: str, note: str
) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=["quantize"],
        goal=goal,
        clock=by_work(integers=integers),
        **fashion_data(calibration=48, evaluation=200),
    )
    assert result.within_budget
    (stage,) = [stage for stage in result.stages if stage.pass_.name == "quantize"]
    families = {d.candidate.family for d in stage.decisions if not d.candidate.carried}
    assert families == set(forms.split())
    assert re.fullmatch(f"{note}.*" if note else "", stage.note), stage.note


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("mobile", marks=pytest.mark.long), "mlp"])
def test_recipe_gives_the_same_bytes(tmp_path: Path, models: Path, name: str) -> None:
    original = models / f"fashion_{name}.onnx"
    given = {**fashion_data(calibration=48, evaluation=200), "clock": BY_WORK}
    first = onnxpress.optimize(original, max_drop=2.0, **given)
    first.save(tmp_path / "first.onnx")
    recipe = tmp_path / "first.recipe.toml"
    assert recipe.read_text().count("[[pass.decision]]") > 3
    again = onnxpress.optimize(original, recipe=recipe, **given)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert (tmp_path / "again.recipe.toml").read_text() == recipe.read_text()


def test_recipe_of_another_model_is_refused(
    tmp_path: Path, models: Path, linear_model: Path
) -> None:
    result = onnxpress.optimize(linear_model, clock=BY_WORK)
    result.save(tmp_path / "out.onnx")
    with pytest.raises(onnxpress.errors.RecipeError, match="another model"):
        onnxpress.optimize(models / "fashion_mlp.onnx", recipe=tmp_path / "out.recipe.toml")


def test_recipe_with_other_calibration_data_is_refused(models: Path) -> None:
    model = models / "fashion_mlp.onnx"
    given = fashion_data(calibration=48, evaluation=200)
    result = onnxpress.optimize(model, passes=["quantize"], clock=BY_WORK, **given)
    other = {"image": given["evaluation"]["image"]}
    with pytest.raises(onnxpress.errors.RecipeError, match="other calibration data"):
        onnxpress.optimize(model, recipe=result.recipe, calibration=other)


def test_without_data_activations_are_left_alone(tmp_path: Path, models: Path) -> None:
    result = onnxpress.optimize(models / "fashion_cnn.onnx", clock=BY_WORK)
    result.save(tmp_path / "out.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "QuantizeLinear" not in operators
    assert (tmp_path / "out.onnx").stat().st_size * 3.5 < result.original_bytes
    reasons = {skip.reason for stage in result.stages for skip in stage.left}
    assert any("without calibration data" in reason for reason in reasons)


def test_held_out_samples_are_not_calibrated_on(models: Path) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=str(models / "fashion_calibration.npz"),
        passes=["quantize"],
        clock=BY_WORK,
    )
    assert result.validation is not None
    assert result.validation.measurement.samples == 64
    assert "held out" in result.validation.measurement.source
    assert result.validation.measurement.metric == "top-1 agreement"


def test_model_in_memory_is_not_changed(models: Path) -> None:
    model = model_file.load(models / "fashion_mlp.onnx")
    before = model_file.to_bytes(model)
    result = onnxpress.optimize(model, clock=BY_WORK)
    assert model_file.to_bytes(model) == before
    assert model_file.to_bytes(result.model) != before
    assert result.model.metadata_props["onnxpress.version"] == onnxpress.__version__


def test_json_on_standard_output_is_only_json(tmp_path: Path, linear_model: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "onnxpress", "optimize", str(linear_model)),
            *("-o", str(tmp_path / "out.onnx"), "--json", "-"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["within_budget"] is True


def test_html_report_needs_nothing_else(tmp_path: Path, linear_model: Path) -> None:
    page = tmp_path / "report.html"
    result = run("optimize", linear_model, "-o", tmp_path / "o.onnx", "--report", page)
    assert result.exit_code == 0, result.output
    # The name of a file stays whole, so that it can be copied.
    lines = [line for line in result.output.splitlines() if not line.startswith("wrote ")]
    assert max(map(len, lines)) <= 80
    text = page.read_text()
    assert "<svg" in text
    for outside in ('src="http', 'href="http', "@import"):
        assert outside not in text
