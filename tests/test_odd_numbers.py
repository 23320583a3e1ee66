"""NaN, infinities and denormal numbers in weights are told, kept to the bit, and left alone."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from command_line import message, run

from onnxpress.testing import SAMPLE_MODELS
from onnxpress.untreated import odd_numbers

WIDTH = 64
# A NaN of its own: which one it is, is a part of the weight.
ODD = {
    "nan": np.array([0x7FC01234], np.uint32).view(np.float32)[0],
    "infinite": np.float32(-np.inf),
    "denormal": np.float32(1e-41),
}
TOLD = {"nan": "w1 (1 NaN)", "infinite": "w1 (1 infinite)", "denormal": "w1 (1 denormal)"}


def weights(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8 for _ in range(4)]
    # One output of the second layer is odd.
    found[1][3, 5] = ODD[kind]
    return found


def model_file_of(kind: str, folder: Path) -> Path:
    """Four layers in a row, beside a branch whose weight is ordinary."""
    body, last = "", "x"
    for number in range(4):
        body += f"m{number} = MatMul({last}, w{number}) r{number} = Relu(m{number}) "
        last = f"r{number}"
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, {WIDTH}] x) => (float[n, {WIDTH}] y) {{ {body} y = Add({last}, r0) }}"""
    )
    for number, array in enumerate(weights(kind)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, f"w{number}"))
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx"


def bits(path: Path, kind: str) -> bool:
    """Whether the odd weight is there as it was."""
    wanted = weights(kind)[1].tobytes()
    return any(t.raw_data == wanted for t in onnx.load(path).graph.initializer)


@pytest.mark.parametrize("kind", ODD)
def test_inspect_tells_where_and_how_many(tmp_path: Path, kind: str) -> None:
    result = run("inspect", model_file_of(kind, tmp_path), "--json", "-")
    assert any(TOLD[kind] in problem for problem in json.loads(result.output)["problems"])


@pytest.mark.parametrize("kind", ODD)
def test_simplify_keeps_the_weight_to_the_bit_and_tells_of_it(tmp_path: Path, kind: str) -> None:
    path = model_file_of(kind, tmp_path)
    result = run("simplify", path, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert TOLD[kind] in " ".join(message(result).split())
    assert bits(tmp_path / "out.onnx", kind)


@pytest.mark.parametrize("kind", ["nan", "infinite"])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("quantize", ()),
        ("prune", ("--ratio", "0.3", "--importance", "magnitude")),
        ("sparsify", ("--sparsity", "0.5")),
        ("factorize", ("--rank", "8")),
        ("optimize", ()),
    ],
)
def test_a_layer_that_holds_what_is_no_number_is_left_alone_with_the_reason(
    tmp_path: Path, kind: str, command: str, options: tuple[str, ...]
) -> None:
    path = model_file_of(kind, tmp_path)
    data = {"x": np.random.default_rng(1).standard_normal((24, WIDTH)).astype(np.float32)}
    np.savez(tmp_path / "data.npz", **data)  # type: ignore[arg-type]
    arguments = ("--calibration", tmp_path / "data.npz", "-o", tmp_path / "out.onnx", *options)
    found = run(command, path, *arguments, "--json", tmp_path / "out.json")
    assert found.exit_code in {0, 1}
    assert bits(tmp_path / "out.onnx", kind)
    ort.InferenceSession(tmp_path / "out.onnx")
    document = json.loads((tmp_path / "out.json").read_text())
    reasons = [left["reason"] for stage in document["stages"] for left in stage["left"]]
    assert any("holds NaN or infinity" in reason for reason in reasons)


def test_a_mask_is_nothing_odd() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 2] x) => (float[2, 2] y) { y = Add(x, mask) }""")
    )
    mask = np.array([[0, -np.inf], [0, 0]], np.float32)
    value = ir.Value(name="mask", const_value=ir.Tensor(mask, name="mask"))
    value.dtype = ir.DataType.FLOAT
    model.graph.register_initializer(value)
    assert odd_numbers(model) == ""


@pytest.mark.parametrize("name", SAMPLE_MODELS)
def test_ordinary_weights_are_not_told(name: str) -> None:
    assert odd_numbers(SAMPLE_MODELS[name]()) == ""
