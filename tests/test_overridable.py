"""Weights that are graph inputs too: constants of old files, or defaults that callers override."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from command_line import run

from onnxpress import model_file
from onnxpress.conversion import settle_weights
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session

RNG = np.random.default_rng(0)
GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,4,6,6] x) => (float[2,144] y)
{
    c = Conv <pads = [1,1,1,1]> (x, conv_weight, conv_bias)
    n = BatchNormalization (c, scale, offset, mean, variance)
    r = Relu (n)
    f = Reshape (r, shape)
    z = Gemm (f, weight, bias)
    p = Mul (z, ones)
    y = Add (p, zeros)
}"""
WEIGHTS: dict[str, npt.NDArray[Any]] = {
    "conv_weight": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32),
    "conv_bias": np.zeros(4, np.float32),
    "scale": np.ones(4, np.float32),
    "offset": np.zeros(4, np.float32),
    "mean": np.zeros(4, np.float32),
    "variance": np.ones(4, np.float32),
    "shape": np.array([2, -1], np.int64),
    "weight": RNG.standard_normal((144, 144)).astype(np.float32) / 12,
    "bias": np.zeros(144, np.float32),
    "ones": np.ones(144, np.float32),
    "zeros": np.zeros(144, np.float32),
}


def made(path: Path, listed: set[str], ir_version: int = 8) -> Path:
    """The graph with some of its weights as inputs too."""
    model = onnx.parser.parse_model(GRAPH)
    for name, array in WEIGHTS.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if name in listed:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(name, kind, list(array.shape))
            )
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


def inputs(path: Path) -> set[str]:
    return {value.name for value in onnx.load(path).graph.input}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_default_that_is_overridden_still_counts_after_simplify(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "in.onnx", {name})
    model = model_file.load(path)
    simplify(model)
    model_file.save(model, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert inputs(tmp_path / "out.onnx") == {"x", name}
    feed = {"x": RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)}
    other = np.array([2, 144], np.int64) if name == "shape" else WEIGHTS[name] + np.float32(0.5)
    answers: list[npt.NDArray[Any]] = []
    for given in (feed, {**feed, name: other}):
        wanted, found = (
            np.asarray(Session(file).run(given)["y"], np.float32)
            for file in (path, tmp_path / "out.onnx")
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        answers.append(found)
    assert name == "shape" or np.abs(answers[0] - answers[1]).max() > 0.01


@pytest.mark.parametrize("name", ["conv_weight", "conv_bias", "scale", "weight", "bias"])
@pytest.mark.parametrize("command", ["quantize", "prune", "factorize"])
def test_lossy_passes_leave_what_callers_override(tmp_path: Path, name: str, command: str) -> None:
    path = made(tmp_path / "in.onnx", {name})
    output = tmp_path / "out.onnx"
    result = run(command, path, "-o", output, "--goal", "size", "--json", tmp_path / "r.json")
    assert result.exit_code in (0, 1), result.output
    assert inputs(output) == {"x", name}
    (default,) = (
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(output).graph.initializer
        if tensor.name == name
    )
    np.testing.assert_array_equal(default, WEIGHTS[name])
    said = " ".join(json.loads((tmp_path / "r.json").read_text())["validation"]["warnings"])
    assert "1 weight is an input too: callers may override them" in said
    assert "--no-overridable makes them constants" in said


def test_old_file_has_constants_and_is_raised(tmp_path: Path) -> None:
    path, output = made(tmp_path / "in.onnx", set(WEIGHTS), ir_version=3), tmp_path / "out.onnx"
    result = run("simplify", path, "-o", output)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "11 weights are inputs too, as IR version 3 demanded: they become constants" in said
    onnx.checker.check_model(output, full_check=True)
    assert inputs(output) == {"x"}
    assert onnx.load(output).ir_version >= 4
    operators = [node.op_type for node in onnx.load(output).graph.node]
    assert "BatchNormalization" not in operators
    assert "Mul" not in operators


def test_old_file_keeps_its_inputs_where_asked(tmp_path: Path) -> None:
    path, output = made(tmp_path / "in.onnx", set(WEIGHTS), ir_version=3), tmp_path / "out.onnx"
    assert run("simplify", path, "-o", output, "--overridable").exit_code == 0
    assert inputs(output) == {"x", *WEIGHTS}
    assert onnx.load(output).ir_version >= 4
    onnx.checker.check_model(output, full_check=True)


def test_new_file_has_constants_where_asked_and_its_recipe_says_so(tmp_path: Path) -> None:
    path, output = made(tmp_path / "in.onnx", set(WEIGHTS)), tmp_path / "out.onnx"
    assert run("simplify", path, "-o", output, "--no-overridable").exit_code == 0
    assert inputs(output) == {"x"}
    recipe = tmp_path / "out.recipe.toml"
    assert "overridable = false" in recipe.read_text()
    again = tmp_path / "again.onnx"
    assert run("optimize", path, "-o", again, "--recipe", recipe).exit_code == 0
    assert again.read_bytes() == output.read_bytes()


def test_given_model_is_not_changed(tmp_path: Path) -> None:
    model = model_file.load(made(tmp_path / "in.onnx", {"bias"}, ir_version=3))
    before = model_file.to_bytes(model)
    settled, note = settle_weights(model, None)
    assert note
    assert settled is not model
    assert model_file.to_bytes(model) == before


def test_inspect_says_what_the_weights_are(tmp_path: Path) -> None:
    path = made(tmp_path / "in.onnx", set(WEIGHTS), ir_version=3)
    assert "2 layers with a constant weight" in run("inspect", path).output
    assert "0 layers" in run("inspect", path, "--overridable").output
