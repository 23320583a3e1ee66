"""Constant folding by bytes, defaults that callers override, forms of the opset at hand."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from generated import hold
from simplification import build, simplified

from onnxpress import model_file
from onnxpress.contract import Decision
from onnxpress.passes.pack import Pack
from onnxpress.passes.simplify import Simplify, simplify
from onnxpress.passes.simplify.folding import is_writable
from onnxpress.passes.simplify.inference import InferShapes
from onnxpress.pool import Pool
from onnxpress.runtime import Array
from onnxpress.targets import load_target


def _given(text: str, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def _stored(kind: str, array: Array, opset: int = 19) -> ir.Model:
    """X @ unfolded(w), where the weight is stored in another type."""
    unfolded = {
        "cast": "u = Cast <to = 1> (w)",
        "scaled": "c = Cast <to = 1> (w)\n u = Mul (c, s)",
        "dequantized": "u = DequantizeLinear (w, s)",
        "looked up": "u = Gather (s, w)",
    }[kind]
    scale = "float[256] s" if kind == "looked up" else "float s"
    stored = {"float16": "float16", "int8": "int8", "int32": "int32"}[array.dtype.name]
    size = ", ".join(map(str, array.shape))
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[2, {array.shape[0]}] x, {stored}[{size}] w, {scale}) => (float[2, n] y) {{
            {unfolded}
            y = MatMul (x, u)
        }}"""
    )
    table = np.linspace(0, 1, 256, dtype=np.float32) if kind == "looked up" else np.float32(0.5)
    return hold(model, {"w": array, "s": np.asarray(table)})


@pytest.mark.parametrize("size", [8, 30, 300])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("cast", np.float16), ("cast", np.int8), ("scaled", np.int8), ("dequantized", np.int8)],
)
def test_weights_that_lie_small_stay_small(kind: str, dtype: type, size: int) -> None:
    array: Array = np.random.default_rng(0).integers(-9, 9, (size, size)).astype(dtype)
    model = _stored(kind, array)
    before = len(model_file.to_bytes(model))
    feed = {"x": np.random.default_rng(1).standard_normal((2, size)).astype(np.float32)}
    simplified(model, feed)
    kept = {value.dtype for value in model.graph.initializers.values()}
    assert ir.DataType.from_numpy(array.dtype) in kept
    assert model_file.weight_bytes(model) <= before


def test_what_pack_made_small_stays_small() -> None:
    array = np.zeros((40, 40), np.float32)
    array[::5, ::5] = 1.5
    text = "g (float[2, 40] x, float[40, 40] w) => (float[2, 40] y) { y = MatMul (x, w) }"
    model = hold(_given(text), {"w": array})
    pool = Pool((Pack(),))
    context = pool.context(model, load_target("cpu"))
    (proposal,) = pool.offer(context).proposals
    packed = pool.rewrite(context, [Decision(proposal.site, proposal.candidates[0])])
    before = model_file.weight_bytes(packed)
    simplify(packed)
    assert model_file.weight_bytes(packed) <= before < array.nbytes


def test_what_is_made_of_a_few_numbers_is_folded() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4, 100] x) => (float[4, 100] y) {
            start = Constant <value = int64 {0}> ()
            stop = Constant <value = int64 {100}> ()
            step = Constant <value = int64 {1}> ()
            places = Range (start, stop, step)
            numbers = Cast <to = 1> (places)
            y = Add (x, numbers)
        }"""
    )
    simplify(model)
    assert [node.op_type for node in model.graph if node.op_type == "Range"] == []


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm (x, w, b)",
        "h = MatMul (x, w)\n y = Add (h, b)",
        "h = Gemm (x, w)\n i = Mul (h, one)\n y = Identity (i)",
        "h = Gemm (x, w)\n y = Add (h, b)",
    ],
)
def test_defaults_that_callers_override_are_no_constants(body: str) -> None:
    model = build(
        f"""g (float[2, 4] x, float[4, 3] w, float[3] b, float one) => (float[2, 3] y) {{
            {body}
        }}"""
    )
    for name, array in (("b", np.zeros(3, np.float32)), ("one", np.float32(1))):
        value = model.graph.initializers[name]
        value.const_value = ir.tensor(np.asarray(array), name=name)
        model.graph.inputs.append(value)
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((2, 4)).astype(np.float32),
        "b": rng.standard_normal(3).astype(np.float32),
        "one": np.float32(7),
    }
    simplified(model, feed)
    assert {"b", "one"} <= {value.name for value in model.graph.inputs}
    assert {"b", "one"} <= set(model.graph.initializers)


@pytest.mark.parametrize(("opset", "left"), [(9, 3), (10, 3), (11, 2)])
def test_a_bias_of_zeros_goes_only_where_the_opset_has_it_optional(opset: int, left: int) -> None:
    text = "g (float[2, 4] x, float[4, 3] w, float[3] b) => (float[2, 3] y) { y = Gemm (x, w, b) }"
    model = hold(
        _given(text, opset), {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    )
    simplified(model, {"x": np.ones((2, 4), np.float32)})
    (gemm,) = model.graph
    assert len(gemm.inputs) == left


def test_nodes_are_held_to_the_opset_also_where_their_values_have_no_names() -> None:
    x, axes = ir.Value(), ir.Value()
    node = ir.Node("", "Unsqueeze", [x, axes])
    assert is_writable([node], {"": 13}, 8)
    assert not is_writable([node], {"": 11}, 8)
    assert not node.outputs[0].name


@pytest.mark.parametrize("size", [8, 1_000_000_000_000])
def test_shapes_are_inferred_without_building_what_is_expanded(size: int) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[8] x) => (float[m] y) {{
            value = Constant <value = int64[1] {{3}}> ()
            shape = Constant <value = int64[1] {{{size}}}> ()
            wide = Expand (value, shape)
            twice = Concat <axis = 0> (wide, wide)
            start = Constant <value = int64[1] {{0}}> ()
            few = Slice (twice, start, value)
            z = Cast <to = 1> (few)
            w = Abs (x)
            y = Concat <axis = 0> (w, z)
        }}"""
    )
    simplify(model)
    onnx.checker.check_model(onnx.load_from_string(model_file.to_bytes(model)), full_check=True)
    assert model_file.weight_bytes(model) < 1000


def test_a_sequence_is_not_taken_for_a_tensor() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (seq(float[2]) y) {
            y = If (c) <
                then_branch = t () => (seq(float[2]) a) { a = SequenceConstruct (x) },
                else_branch = e () => (seq(float[2]) b) { b = SequenceConstruct (x, x) }
            >
        }"""
    )
    InferShapes()(model)
    assert isinstance(model.graph.outputs[0].type, ir.SequenceType)
    for graph in model.graph.subgraphs():
        assert isinstance(graph.outputs[0].type, ir.SequenceType)


@pytest.mark.parametrize(
    ("operator", "value", "shape", "gone"),
    [
        ("Mul", 1, (3,), True),
        ("Div", 1, (1, 3), True),
        ("Add", 0, (2, 3), True),
        ("Sub", 0, (), True),
        ("Mul", 1, (4, 2, 3), False),
        ("Mul", 2, (3,), False),
    ],
)
def test_arithmetic_that_changes_nothing_goes_where_it_stretches_nothing(
    operator: str, value: float, shape: tuple[int, ...], *, gone: bool
) -> None:
    dims = ", ".join(map(str, shape))
    out = "4, 2, 3" if len(shape) == 3 else "2, 3"
    text = f"""g (float[2, 3] x, float[{dims}] c) => (float[{out}] y) {{
        h = {operator} (x, c)
        y = Sqrt (h)
    }}"""
    model = hold(_given(text), {"c": np.full(shape, value, np.float32)})
    found = simplified(model, {"x": np.ones((2, 3), np.float32)})
    assert (found == {"Sqrt": 1}) is gone


def test_many_levels_end_in_one_without_arithmetic() -> None:
    context = Pool((Simplify(),)).context(
        build("g (float[2] x) => (float[2] y) { y = Abs (x) }"), load_target("cpu")
    )
    (proposal,) = Simplify().propose(context)
    assert not hasattr(proposal, "reason")
    assert [c.family for c in proposal.candidates] == ["full", "frugal", "structure"]
