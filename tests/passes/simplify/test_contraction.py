"""Einsum with a constant becomes MatMul, and answers as the specification says."""

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress import model_file
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "f": 2}


def einsum(equation: str, *, left: bool = False, readers: int = 1) -> ir.Model:
    """Einsum of x, with dynamic axes where the weight has none of the label, and a constant w."""
    terms, arrow, out = equation.partition("->")
    first, second = terms.split(",")
    dims = [str(SIZES[k]) if k in second else f"n_{k}" for k in first.replace("...", "ab")]
    weight = [SIZES[k] for k in second]
    text = f"{second},{first}{arrow}{out}" if left else equation
    order = "w, x" if left else "x, w"
    body = "\n".join(f'y{n} = Einsum <equation = "{text}"> ({order})' for n in range(readers))
    outputs = ", ".join(f"float y{n}" for n in range(readers))
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{", ".join(dims)}] x, float{weight} w) => ({outputs}) {{ {body} }}"""
    )
    value = model.graph.inputs.pop(1)
    array = np.random.default_rng(3).standard_normal(weight).astype(np.float32)
    value.const_value = ir.Tensor(array, name="w")
    model.graph.register_initializer(value)
    for output in model.graph.outputs:
        output.shape = None
    onnx_model = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    return ir.from_proto(onnx_model)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def assert_same(model: ir.Model, rewritten: ir.Model, equation: str) -> None:
    first = equation.split(",", maxsplit=1)[0].replace("...", "ab")
    shape = [SIZES[label] for label in first]
    feed = {"x": np.random.default_rng(4).standard_normal(shape).astype(np.float32)}
    evaluator = onnx.reference.ReferenceEvaluator(ir.to_proto(model))
    inputs: dict[str, np.ndarray] = dict(feed)
    wanted = evaluator.run(None, inputs)
    proto = onnx.load_from_string(model_file.to_bytes(rewritten))
    onnx.checker.check_model(proto, full_check=True)
    found = Session(rewritten).run(feed)
    for value, array in zip(model.graph.outputs, wanted, strict=True):
        result = found[value.name or ""]
        assert result.shape == np.asarray(array).shape
        assert np.allclose(result, array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", [False, True], ids=["weight right", "weight left"])
@pytest.mark.parametrize(
    ("equation", "wanted"),
    [
        ("abc,cd->abd", ["MatMul"]),
        ("abc,dc->abd", ["MatMul"]),
        ("abc,cde->abde", ["MatMul", "Reshape"]),
        ("abcd,cde->abe", ["Reshape", "MatMul"]),
        ("abcd,dec->abe", ["Reshape", "MatMul"]),
        ("abcd,ecdf->abef", ["Reshape", "MatMul", "Reshape"]),
        ("...c,cd->...d", ["MatMul"]),
        ("c,cd->d", ["MatMul"]),
        ("abdc,bec->abde", ["MatMul"]),
    ],
)
def test_a_product_of_matrices_is_written_as_one(
    equation: str, wanted: list[str], *, left: bool
) -> None:
    model = einsum(equation, left=left)
    rewritten = model.clone()
    simplify(rewritten)
    assert operators(rewritten) == wanted
    assert_same(model, rewritten, equation)


@pytest.mark.parametrize(
    "equation",
    ["abc,bd->acd", "abc,cd->adb", "abc,cd->ab", "abc,bce->aeb", "adbc,bec->abde", "abc,cb->abc"],
)
def test_what_would_have_to_be_moved_stays(equation: str) -> None:
    model = einsum(equation)
    rewritten = model.clone()
    simplify(rewritten)
    assert operators(rewritten) == ["Einsum"]


@settings(max_examples=60)
@given(data=st.data())
def test_any_equation_keeps_its_answer(data: st.DataObject) -> None:
    distinct = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
    letters = distinct.map("".join)
    one, other = data.draw(letters), data.draw(letters)
    shared = sorted(set(one) | set(other))
    out = "".join(data.draw(st.permutations(shared))[: data.draw(st.integers(0, len(shared)))])
    equation = f"{one},{other}->{out}"
    model = einsum(equation, left=data.draw(st.booleans()))
    rewritten = model.clone()
    simplify(rewritten)
    assert_same(model, rewritten, equation)


def _with_more(equation: str, *nodes: str) -> ir.Model:
    """Einsum, and nodes in ONNX text that read x and w besides; the last gives an output z."""
    model = einsum(equation)
    dims = ", ".join(str(dim) for dim in model.graph.inputs[0].shape or ())
    array = model.graph.initializers["w"].const_value
    assert array is not None
    body = f'y0 = Einsum <equation = "{equation}"> (x, w)\n' + "\n".join(nodes)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{dims}] x, float{list(array.shape.numpy())} w) => (float y0, float z) {{
        {body} }}"""
    made = ir.from_onnx_text(text)
    value = made.graph.inputs.pop(1)
    value.const_value = array
    made.graph.register_initializer(value)
    for output in made.graph.outputs:
        output.shape = None
    return ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(made)))


def _floats(model: ir.Model) -> list[list[int]]:
    constants = model.graph.initializers.values()
    floats = [value.const_value for value in constants if value.dtype == ir.DataType.FLOAT]
    return [list(tensor.shape.numpy()) for tensor in floats if tensor is not None]


def test_a_constant_that_others_read_as_it_is_is_not_doubled() -> None:
    model = _with_more("abc,dc->abd", "t = Transpose (w)", "n = Neg (x)", "z = MatMul (n, t)")
    simplify(model)
    assert len(_floats(model)) == 1


def test_readers_of_one_constant_share_the_matrix() -> None:
    model = _with_more(
        "abc,dce->abde", "n = Neg (x)", 'z = Einsum <equation = "abc,dce->abde"> (n, w)'
    )
    simplify(model)
    assert operators(model).count("MatMul") == 2
    assert _floats(model) == [[4, 30]]
