"""The main job on the committed models, with the figures it has to reach."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

import onnxpress
import onnxpress.errors
from onnxpress import model_file
from onnxpress.adapter import PressPass
from onnxpress.passes.sparsify import Sparsify


def data(models: Path) -> dict[str, Any]:
    return {
        "calibration": str(models / "fashion_calibration.npz"),
        "evaluation": str(models / "fashion_evaluation.npz"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "smaller"), [("cnn", 3.5), ("mlp", 6.0)])
def test_fashion_network_is_pressed_within_the_budget(
    tmp_path: Path, models: Path, name: str, smaller: float, capsys: pytest.CaptureFixture[str]
) -> None:
    original = models / f"fashion_{name}.onnx"
    before = original.read_bytes()
    result = onnxpress.optimize(original, max_drop=1.0, **data(models))
    output = tmp_path / "out.onnx"
    result.save(output)
    assert result.validation is not None
    ratio = original.stat().st_size / output.stat().st_size
    latency, measured = result.validation.latency, result.validation.measurement
    with capsys.disabled():
        print(
            f"\nfashion_{name}: {ratio:.2f}x smaller, {latency.speedup:.2f}x faster "
            f"({latency.low:.2f} to {latency.high:.2f}), accuracy {measured.reference:.2f}% "
            f"to {measured.value:.2f}%, SQNR {measured.worst_sqnr_db:.1f} dB"
        )
    assert result.within_budget
    assert measured.drop <= 1.0
    assert ratio >= smaller
    assert latency.high >= 1.0
    assert original.read_bytes() == before


def test_accuracy_is_what_numpy_counts(models: Path) -> None:
    result = onnxpress.optimize(models / "fashion_mlp.onnx", passes=["simplify"], **data(models))
    with np.load(models / "fashion_evaluation.npz") as archive:
        images, labels = archive["image"], archive["__labels__"]
    evaluator = onnx.reference.ReferenceEvaluator(str(models / "fashion_mlp.onnx"))
    scores = np.asarray(next(iter(evaluator.run(None, {"image": images}))))
    assert result.validation is not None
    accuracy = 100 * (scores.argmax(axis=1) == labels).mean()
    # One image in 2,000 may lie between two classes.
    assert result.validation.measurement.reference == pytest.approx(accuracy, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_recipe_gives_the_same_bytes(
    tmp_path: Path, models: Path, small_data: tuple[Path, Path], name: str
) -> None:
    original = models / f"fashion_{name}.onnx"
    given: dict[str, Any] = {"calibration": str(small_data[0]), "evaluation": str(small_data[1])}
    first = onnxpress.optimize(original, max_drop=2.0, **given)
    first.save(tmp_path / "first.onnx")
    recipe = tmp_path / "first.recipe.toml"
    again = onnxpress.optimize(original, recipe=recipe, **given)
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert (tmp_path / "again.recipe.toml").read_text() == recipe.read_text()


def test_recipe_of_another_model_is_refused(
    tmp_path: Path, models: Path, linear_model: Path
) -> None:
    result = onnxpress.optimize(linear_model)
    result.save(tmp_path / "out.onnx")
    with pytest.raises(onnxpress.errors.RecipeError, match="another model"):
        onnxpress.optimize(models / "fashion_mlp.onnx", recipe=tmp_path / "out.recipe.toml")


def test_recipe_with_other_calibration_data_is_refused(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    given: dict[str, Any] = {"calibration": str(small_data[0]), "evaluation": str(small_data[1])}
    result = onnxpress.optimize(models / "fashion_mlp.onnx", max_drop=5.0, **given)
    with pytest.raises(onnxpress.errors.RecipeError, match="other calibration data"):
        onnxpress.optimize(
            models / "fashion_mlp.onnx", recipe=result.recipe, calibration=str(small_data[1])
        )


def test_without_data_activations_are_left_alone(tmp_path: Path, models: Path) -> None:
    result = onnxpress.optimize(models / "fashion_cnn.onnx")
    result.save(tmp_path / "out.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "QuantizeLinear" not in operators
    assert (tmp_path / "out.onnx").stat().st_size * 3.5 < result.original_bytes
    reasons = {skip.reason for stage in result.stages for skip in stage.left}
    assert any("without calibration data" in reason for reason in reasons)


def test_held_out_samples_are_not_calibrated_on(models: Path) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx", calibration=str(models / "fashion_calibration.npz")
    )
    assert result.validation is not None
    assert result.validation.measurement.samples == 85
    assert "held out" in result.validation.measurement.source
    assert result.validation.measurement.metric == "top-1 agreement"


def test_model_in_memory_is_not_changed(models: Path) -> None:
    model = model_file.load(models / "fashion_mlp.onnx")
    before = model_file.to_bytes(model)
    result = onnxpress.optimize(model)
    assert model_file.to_bytes(model) == before
    assert model_file.to_bytes(result.model) != before
    assert result.model.metadata_props["onnxpress.version"] == onnxpress.__version__


def test_pass_runs_inside_sequential(models: Path) -> None:
    model = model_file.load(models / "fashion_mlp.onnx")
    calibration = {"image": np.load(models / "fashion_calibration.npz")["image"][:32]}
    ir.passes.Sequential(
        PressPass(Sparsify(sparsity=0.5), calibration=calibration), common.CheckerPass()
    )(model)
    weights = [
        value.const_value.numpy()
        for value in model.graph.initializers.values()
        if value.const_value is not None and len(value.const_value.shape) == 2
    ]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    # Shared out in steps of 1% of a layer; the largest holds half of the weights.
    assert 0.5 <= zeros / sum(weight.size for weight in weights) <= 0.506


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
    from click.testing import CliRunner  # noqa: PLC0415

    from onnxpress.cli import cli  # noqa: PLC0415

    page = tmp_path / "report.html"
    arguments = ["optimize", str(linear_model), "-o", str(tmp_path / "o.onnx")]
    result = CliRunner().invoke(cli, [*arguments, "--report", str(page)])
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.output.splitlines()) <= 200
    text = page.read_text()
    assert "<svg" in text
    for outside in ('src="http', 'href="http', "@import"):
        assert outside not in text
