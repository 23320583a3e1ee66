"""What `diff` pairs, blames and leaves alone, on graphs of a few nodes."""

from pathlib import Path

import bodies
import numpy as np
import onnx_ir as ir
import pytest
from bodies import built
from planted import plant, renamed

from onnxpress import model_file
from onnxpress.difference import Difference, compare_models
from onnxpress.difference.explaining import constants_changed
from onnxpress.difference.weights import constant_array
from onnxpress.errors import UsageError
from onnxpress.runtime import Array

HEAD = '<ir_version: 10, opset_import: ["" : {opset}]> g '
TWO = (
    HEAD
    + """(float[1, 64] x, float[64, 64] a, float[64, 64] b) => (float[1, 64] y) {
    p = MatMul (x, a)  q = Relu (p)  y = MatMul (q, b) }"""
)


def two() -> ir.Model:
    return built(TWO, a=(64, 64), b=(64, 64))


def initializer(model: ir.Model, name: str) -> ir.Value:
    return model.graph.initializers[name]


def array_of(model: ir.Model, name: str) -> Array:
    tensor = initializer(model, name).const_value
    assert tensor is not None
    return np.asarray(tensor.numpy())


def put(model: ir.Model, name: str, array: Array) -> None:
    initializer(model, name).const_value = ir.tensor(array, name=name)


def compared(
    folder: Path, a: ir.Model, b: ir.Model, data: dict[str, Array] | None = None, samples: int = 4
) -> Difference:
    paths = folder / "a.onnx", folder / "b.onnx"
    for model, path in zip((a, b), paths, strict=True):
        model_file.save(model, path)
    return compare_models(*paths, data=data, samples=samples)


def pairs(found: Difference) -> dict[str, str]:
    return {error.tensor.name: error.counterpart.name for error in found.errors}


def worst(found: Difference) -> str:
    return found.worst[0].error.tensor.name


def test_model_is_the_same_as_itself(tmp_path: Path) -> None:
    found = compared(tmp_path, two(), two())
    assert found.same
    assert found.first is None
    assert not found.unmatched
    assert all(error.adds == error.has == 0 for error in found.errors)


def test_error_that_is_carried_on_is_not_added_again(tmp_path: Path) -> None:
    model = two()
    found = compared(tmp_path, model, plant(model, "weight noisy", "p").model)
    errors = {error.tensor.name: error for error in found.errors}
    assert errors["p"].adds == errors["p"].has > 1e-3
    assert errors["y"].has > 1e-3
    assert errors["y"].adds < 1e-12
    assert errors["y"].before == errors["q"].has


def test_every_tensor_of_a_renamed_model_is_paired(tmp_path: Path) -> None:
    model = two()
    found = compared(tmp_path, model, renamed(model))
    assert found.same
    assert not found.unmatched
    assert set(pairs(found)) == {"p", "q", "y"}
    assert found.weights.renamed


def test_error_in_a_renamed_model_is_blamed_on_the_tensor_s_own_name(tmp_path: Path) -> None:
    model = two()
    found = compared(tmp_path, model, renamed(plant(model, "channels permuted", "p").model))
    assert worst(found) == "p"
    assert found.parted == 1


def test_fused_gelu_is_paired_at_its_end(tmp_path: Path) -> None:
    apart = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a) => (float[1, 64] y) {
        p = MatMul (x, a)  r = Constant <value = float {1.4142135}> ()
        one = Constant <value = float {1.0}> ()  half = Constant <value = float {0.5}> ()
        d = Div (p, r)  e = Erf (d)  s = Add (e, one)  m = Mul (p, s)  g = Mul (m, half)
        y = Neg (g) }"""
    )
    fused = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a) => (float[1, 64] y) {
        v = MatMul (x, a)  w = Gelu (v)  y = Neg (w) }"""
    )
    a, b = built(apart, 20, a=(64, 64)), built(fused, 20, a=(64, 64))
    found = compared(tmp_path, a, b)
    assert found.same
    assert pairs(found) == {"p": "v", "g": "w", "y": "y"}


def test_two_factors_for_one_weight_are_paired_at_their_end(tmp_path: Path) -> None:
    factors = (
        TWO.replace("float[64, 64] a", "float[64, 60] u, float[60, 64] v")
        .replace("p = MatMul (x, a)", "h = MatMul (x, u)  k = MatMul (h, v)")
        .replace("Relu (p)", "Relu (k)")
    )
    a, b = two(), built(factors, u=(64, 60), v=(60, 64), b=(64, 64))
    u, s, vt = np.linalg.svd(array_of(a, "a").astype(np.float64))
    put(b, "u", (u[:, :60] * s[:60]).astype(np.float32))
    put(b, "v", vt[:60].astype(np.float32))
    put(b, "b", array_of(a, "b"))
    found = compared(tmp_path, a, b)
    assert pairs(found)["p"] == "k"
    assert worst(found) == "p"
    assert found.worst[0].because == ("MatMul became MatMul, MatMul",)


def test_bias_folded_under_the_old_name_is_no_error(tmp_path: Path) -> None:
    apart = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a, float[64] c) => (float[1, 64] y) {
        p = MatMul (x, a)  s = Add (p, c)  y = Relu (s) }"""
    )
    folded = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a, float[64] c) => (float[1, 64] y) {
        p = Gemm (x, a, c)  y = Relu (p) }"""
    )
    a, b = (built(text, a=(64, 64), c=(64,)) for text in (apart, folded))
    found = compared(tmp_path, a, b)
    assert found.parted == 0
    assert pairs(found)["s"] == "p"


def test_scale_moved_over_a_node_is_no_error(tmp_path: Path) -> None:
    a, b = two(), two()
    put(b, "a", np.multiply(array_of(a, "a"), 4, dtype=np.float32))
    put(b, "b", np.divide(array_of(a, "b"), 4, dtype=np.float32))
    found = compared(tmp_path, a, b)
    assert found.same
    assert found.parted == 0
    assert {changed.name for changed in found.weights.changed} == {"a", "b"}


def test_quantization_of_a_tensor_is_told_apart_from_its_node(tmp_path: Path) -> None:
    model = two()
    found = compared(tmp_path, model, plant(model, "zero point wrong", "p").model)
    assert worst(found) == "p"
    assert found.worst[0].operator == "MatMul, quantized"
    assert "zero point 100" in found.worst[0].because[0]


def test_relu_that_is_left_to_a_clipping_scale_is_no_error(tmp_path: Path) -> None:
    clipped = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a, float[64, 64] b) => (float[1, 64] y) {
        s = Constant <value = float {0.02}> ()  z = Constant <value = int8 {-128}> ()
        q = MatMul (x, a)  i = QuantizeLinear (q, s, z)  r = DequantizeLinear (i, s, z)
        y = MatMul (r, b) }"""
    )
    a, b = two(), built(clipped, a=(64, 64), b=(64, 64))
    found = compared(tmp_path, a, b)
    assert pairs(found)["q"] == "r"
    assert all(error.adds < 1e-3 for error in found.errors)


def test_tensors_between_integer_operators_are_compared(tmp_path: Path) -> None:
    integers = (
        HEAD
        + """(float[1, 64] x, float[64, 64] a, float[64, 64] b) => (float[1, 64] y) {
        s = Constant <value = float {0.03}> ()  z = Constant <value = int8 {0}> ()
        w = Constant <value = float {0.004}> ()
        i = QuantizeLinear (x, s, z)  c = QuantizeLinear (a, w, z)  d = QuantizeLinear (b, w, z)
        p_quantized = QLinearMatMul (i, s, z, c, w, z, s, z)
        k = QLinearMatMul (p_quantized, s, z, d, w, z, s, z)
        y = DequantizeLinear (k, s, z) }"""
    )
    plain = TWO.replace("q = Relu (p)", "q = Identity (p)")
    a, b = (built(text, a=(64, 64), b=(64, 64)) for text in (plain, integers))
    found = compared(tmp_path, a, b)
    assert pairs(found)["p"] == "p"
    assert 0 < {error.tensor.name: error.adds for error in found.errors}["p"] < 0.01


def test_scale_of_one_element_may_have_any_axis(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[1, 64] x, int8[64] c) => (float[1, 64] y) {
        s = Constant <value = float[1] {0.5}> ()  z = Constant <value = int8[1] {0}> ()
        d = DequantizeLinear (c, s, z)  y = Add (x, d) }"""
    )
    model = ir.from_onnx_text(text.replace("{opset}", "17"))
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(np.arange(64, dtype=np.int8), name="c")
    model.graph.register_initializer(value)
    assert constant_array(model.graph[2].outputs[0]) is not None
    assert compared(tmp_path, model, model).same


@pytest.mark.parametrize("tensor", ["p", "q", "p_1", "q_1"])
def test_error_in_a_branch_is_found_in_it(tmp_path: Path, tensor: str) -> None:
    model = bodies.if_model()
    names: dict[str, int] = {}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            name = value.name or ""
            names[name] = names.get(name, -1) + 1
            value.name = f"{name}_{names[name]}" if names[name] else name
    kind = "weight scaled" if tensor.startswith("p") else "activation leaky"
    found = compared(tmp_path, model, plant(model, kind, tensor).model, samples=16)
    assert worst(found) == tensor
    assert found.parted == 1


def test_error_in_a_loop_is_found_at_its_node(tmp_path: Path) -> None:
    model = bodies.loop_model()
    changed = model.clone()
    put(changed, "b", np.add(array_of(model, "b"), 0.5, dtype=np.float32))
    found = compared(tmp_path, model, changed)
    first = found.first
    assert first is not None
    assert first.error.tensor.name == "z"


def test_random_numbers_are_not_blamed_on_nodes(tmp_path: Path) -> None:
    text = (
        HEAD
        + """(float[1, 64] x) => (float[1, 64] y) {
        n = RandomNormalLike (x)  s = Add (x, n)  y = Relu (s) }"""
    )
    model = built(text)
    found = compared(tmp_path, model, model)
    assert found.random
    assert found.parted == 0


def test_removed_channels_cannot_be_compared_but_what_follows_can(tmp_path: Path) -> None:
    a = two()
    kept = np.flatnonzero(np.arange(64) % 4)
    narrow = TWO.replace("float[64, 64] a, float[64, 64] b", "float[64, 48] a, float[48, 64] b")
    b = built(narrow, a=(64, 48), b=(48, 64))
    put(b, "a", array_of(a, "a")[:, kept])
    put(b, "b", array_of(a, "b")[kept])
    found = compared(tmp_path, a, b)
    assert set(found.incomparable) == {"p", "q"}
    assert worst(found) == "y"


def test_models_without_a_common_output_are_refused(tmp_path: Path) -> None:
    other = two()
    other.graph.outputs[0].name = "z"
    with pytest.raises(UsageError, match=r"gives z, but .* gives y; expected an output"):
        compared(tmp_path, two(), other)


def test_input_that_only_b_takes_leaves_weights_and_operators(tmp_path: Path) -> None:
    more = (
        HEAD
        + """(float[1, 64] x, int64[1] k, float[64, 64] a, float[64, 64] b)
        => (float[1, 64] y) { p = MatMul (x, a)  q = Relu (p)  y = MatMul (q, b) }"""
    )
    found = compared(tmp_path, two(), built(more, a=(64, 64), b=(64, 64)))
    assert not found.same
    assert "B takes k: int64[1]" in found.notes[0]
    assert found.weights.equal == 2
    assert not found.outputs


def test_renamed_input_is_found_by_its_place(tmp_path: Path) -> None:
    other = two()
    other.graph.inputs[0].name = "image"
    found = compared(tmp_path, two(), other)
    assert found.first is None
    assert found.outputs["y"].sqnr_db == np.inf
    assert found.interface
    assert not found.same


@pytest.mark.parametrize("tensor", ["p", "y"])
def test_value_that_is_not_finite_is_blamed_on_its_node(tmp_path: Path, tensor: str) -> None:
    model = two()
    found = compared(tmp_path, model, plant(model, "weight NaN", tensor).model)
    assert worst(found) == tensor
    assert found.worst[0].error.adds == np.inf


def test_constants_with_infinities_are_compared_by_their_finite_numbers() -> None:
    def masked(*values: float) -> ir.Node:
        tensor = ir.tensor(np.array(values, np.float32), name="mask")
        mask = ir.Value(name="mask", const_value=tensor)
        return ir.node("Add", [ir.Value(name="x"), mask])

    inf = float("inf")
    same, moved, lost = masked(0, 1, -inf), masked(0, 1.5, -inf), masked(0, 1, 0)
    assert list(constants_changed(same, masked(0, 1, -inf))) == []
    assert list(constants_changed(same, moved)) == ["mask [3] differs (7.8 dB)"]
    assert list(constants_changed(same, lost)) == ["mask has other places that are not finite"]
