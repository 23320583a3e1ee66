"""A stream that is projected in place answers as one that has been sliced, to the last digits.

`benchmarks/slice_stream.py` measures the first and speaks of the second; here the second is built:
LayerNorm's mean folded into what writes, its scale and offset into what reads, RMSNorm in its
place, all in k coordinates (SliceGPT, arXiv 2401.15024, section 3).
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

WIDTH, HIDDEN, HEADS, EPSILON = 12, 20, 3, 1e-3
Array = npt.NDArray[np.float64]


def _benchmark() -> ModuleType:
    name = "slice_stream"
    if name not in sys.modules:
        place = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def drawn() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    shapes = dict.fromkeys(("q", "k", "v", "o", "head"), (WIDTH, WIDTH))
    shapes |= {"up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
    weights = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    for name, size in (("ob", WIDTH), ("upb", HIDDEN), ("downb", WIDTH)):
        weights[name] = rng.standard_normal(size)
    for at in range(3):
        weights |= {f"g{at}": rng.uniform(0.5, 2, WIDTH), f"b{at}": rng.standard_normal(WIDTH)}
    return weights


def network(weights: dict[str, Array], *, sliced: int = 0) -> onnx.ModelProto:
    """One block with pre-norm and a head; `sliced` coordinates of the stream, 0 for all."""
    nodes = []

    def add(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))  # type: ignore[arg-type]
        return output

    def norm(x: str, at: int) -> str:
        if not sliced:
            given = [x, f"g{at}", f"b{at}"]
            return add("LayerNormalization", given, f"n{at}", epsilon=EPSILON)
        # The mean is over k squares in place of all: ε grows and the result shrinks with it.
        epsilon = EPSILON * WIDTH / sliced
        return add("RMSNormalization", [x, "one"], f"n{at}", epsilon=epsilon)

    def reads(y: str, name: str) -> str:
        made = add("MatMul", [y, name], f"{name}_made")
        bias = f"{name}b"
        return add("Add", [made, bias], f"{name}_out") if bias in weights else made

    x = add("MatMul", ["x", "into"], "x0") if sliced else "x"
    y = norm(x, 0)
    parts = [add("Reshape", [reads(y, name), "apart"], f"{name}r") for name in "qkv"]
    q, v = (add("Transpose", [parts[at]], f"t{at}", perm=[0, 2, 1, 3]) for at in (0, 2))
    k = add("Transpose", [parts[1]], "t1", perm=[0, 2, 3, 1])
    odds = add("Softmax", [add("MatMul", [q, k], "scores")], "odds", axis=-1)
    back = add("Transpose", [add("MatMul", [odds, v], "answers")], "back", perm=[0, 2, 1, 3])
    x = add("Add", [x, reads(add("Reshape", [back, "whole"], "joined"), "o")], "x1")
    inner = add("Relu", [reads(norm(x, 1), "up")], "inner")
    x = add("Add", [x, reads(inner, "down")], "x2")
    result = reads(norm(x, 2), "head")
    constants = {name: array.astype(np.float64) for name, array in weights.items()}
    constants |= {"apart": np.asarray([0, 0, HEADS, -1]), "whole": np.asarray([0, 0, WIDTH])}
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    value = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", "length", WIDTH])
    output = helper.make_tensor_value_info(result, TensorProto.DOUBLE, None)
    graph = helper.make_graph(nodes, "block", [value], [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])


def folded(weights: dict[str, Array], q: Array) -> dict[str, Array]:
    """The weights of the sliced network for a basis `q` [width, k]."""
    kept = q.shape[1]
    centre = np.eye(WIDTH) - 1 / WIDTH
    grows = np.sqrt(WIDTH / kept)
    made = {"into": centre @ q, "one": np.ones(kept)}
    for name, at in (("q", 0), ("k", 0), ("v", 0), ("up", 1), ("head", 2)):
        scale, offset = weights[f"g{at}"], weights[f"b{at}"]
        made[name] = grows * q.T @ (scale[:, None] * weights[name])
        made[f"{name}b"] = offset @ weights[name] + weights.get(f"{name}b", 0)
    for name in ("o", "down"):
        made[name] = weights[name] @ centre @ q
        made[f"{name}b"] = weights[f"{name}b"] @ centre @ q
    return made


def answers(model: onnx.ModelProto, x: Array) -> Array:
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    return np.asarray(found)


@pytest.mark.parametrize("kept", [WIDTH - 1, 9, 4])
def test_projecting_before_norms_is_slicing(kept: int) -> None:
    weights = drawn()
    plain = network(weights)
    x = np.random.default_rng(0).standard_normal((2, 5, WIDTH)) + 0.5
    rows = np.random.default_rng(1).standard_normal((200, WIDTH)) * np.linspace(0.2, 3, WIDTH)
    rows -= rows.mean(1, keepdims=True)
    q = np.linalg.eigh(rows.T @ rows)[1][:, -kept:]
    sliced = _benchmark().Sliced(plain, ["x", "x1", "x2"], [q @ q.T] * 3)
    for one in sliced.proto.graph.initializer:
        if one.name.endswith("::projector"):
            # The benchmark runs in single precision; the claim is one of arithmetic.
            one.CopyFrom(onnx.numpy_helper.from_array(q @ q.T, one.name))
    expected = answers(sliced.proto, x)
    narrow = network(folded(weights, q), sliced=kept)
    found = answers(narrow, x)
    # The epsilon of a node is single precision, whatever its tensors are.
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
    original = answers(plain, x)
    # All but the mean's direction loses nothing; fewer lose something.
    assert np.allclose(found, original, rtol=1e-7, atol=1e-7) == (kept == WIDTH - 1)
