"""What is found of attention, norms and streams in forms that no export here has."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from large_models import small_decoder
from onnx import TensorProto, helper

from onnxpress import model_file, registry
from onnxpress.lossless import simplified
from onnxpress.targets import load_target
from onnxpress.transformer import Structure, find_structure
from onnxpress.transformer.norms import find_norms
from onnxpress.transformer.tensors import Tensors

WIDTH, HEADS, LENGTH = 16, 4, 5


class Graph:
    """Nodes and drawn weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def add(self, kind: str, inputs: list[str], *, outputs: int = 1, **attributes: Any) -> str:
        """A node; the name of its first output."""
        names = [f"t{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0]

    def weight(self, *shape: int, name: str = "") -> str:
        """A drawn constant."""
        array = self.rng.standard_normal(shape, dtype=np.float32)
        return self.constant(array, name)

    def constant(self, array: npt.ArrayLike, name: str = "") -> str:
        """A constant that is known."""
        name = name or f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A layer without a bias."""
        return self.add("MatMul", [x, self.weight(inputs, outputs)])

    def norm(self, x: str) -> str:
        """A LayerNorm."""
        return self.add("LayerNormalization", [x, self.weight(WIDTH), self.weight(WIDTH)])

    def heads(self, x: str, count: int, perm: list[int]) -> str:
        """Heads of a tensor, apart."""
        shape = self.constant(np.asarray([0, 0, count, -1], np.int64))
        return self.add("Transpose", [self.add("Reshape", [x, shape])], perm=perm)

    def attention(self, x: str, *, key_heads: int = HEADS) -> str:
        """In products, from what it reads to its projection."""
        narrow = WIDTH // HEADS * key_heads
        q = self.heads(self.linear(x, WIDTH, WIDTH), HEADS, [0, 2, 1, 3])
        k = self.heads(self.linear(x, WIDTH, narrow), key_heads, [0, 2, 3, 1])
        v = self.heads(self.linear(x, WIDTH, narrow), key_heads, [0, 2, 1, 3])
        weights = self.add("Softmax", [self.add("MatMul", [q, k])], axis=-1)
        answer = self.add("Transpose", [self.add("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        whole = self.add("Reshape", [answer, self.constant(np.asarray([0, 0, WIDTH], np.int64))])
        return self.linear(whole, WIDTH, WIDTH)

    def model(self, *outputs: str, inputs: tuple[str, ...] = ("x",), opset: int = 23) -> ir.Model:
        """All of it."""

        def info(name: str) -> onnx.ValueInfoProto:
            cache: list[str | int | None] = ["batch", HEADS, "past", WIDTH // HEADS]
            plain: list[str | int | None] = ["batch", "length", WIDTH]
            shape = cache if "past" in name else plain
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(
            self.nodes, "graph", [info(name) for name in inputs], given, self.weights
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return ir.from_proto(helper.make_model(graph, opset_imports=opsets))


def structure(model: ir.Model) -> Structure:
    found = find_structure(model)
    assert found is not None
    return found


def test_no_attention_is_no_transformer(models: Path) -> None:
    assert find_structure(model_file.load(models / "fashion_cnn.onnx")) is None
    graph = Graph()
    classes = graph.add("Softmax", [graph.linear("x", WIDTH, 10)])
    assert find_structure(graph.model(classes)) is None


def test_attention_of_a_newer_opset_with_its_own_cache() -> None:
    graph = Graph()
    y = graph.norm("x")
    q, k, v = (graph.linear(y, WIDTH, WIDTH) for _ in range(3))
    answer = graph.add(
        "Attention",
        [q, k, v, "", "past_key", "past_value"],
        outputs=3,
        q_num_heads=HEADS,
        kv_num_heads=HEADS,
    )
    keys, values = (answer.replace("_0", f"_{at}") for at in (1, 2))
    z = graph.add("Add", ["x", graph.linear(answer, WIDTH, WIDTH)])
    inputs = ("x", "past_key", "past_value")
    (found,) = structure(graph.model(z, keys, values, inputs=inputs)).attentions
    assert (found.heads, found.key_heads, found.head_width) == (HEADS, HEADS, WIDTH // HEADS)
    assert found.past == ("past_key", "past_value")
    assert found.present == (keys, values)


@pytest.mark.parametrize("packed", [False, True])
def test_grouped_query_attention_of_onnxruntime(*, packed: bool) -> None:
    graph, key_heads = Graph(), 2
    narrow = WIDTH // HEADS * key_heads
    y = graph.norm("x")
    if packed:
        given = [graph.linear(y, WIDTH, WIDTH + 2 * narrow), "", ""]
    else:
        given = [graph.linear(y, WIDTH, size) for size in (WIDTH, narrow, narrow)]
    answer = graph.add(
        "GroupQueryAttention",
        [*given, "past_key", "past_value"],
        outputs=3,
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=key_heads,
        do_rotary=1,
    )
    z = graph.add("Add", ["x", graph.linear(answer, WIDTH, WIDTH)])
    model = graph.model(z, inputs=("x", "past_key", "past_value"))
    (found,) = structure(model).attentions
    assert (found.heads, found.key_heads, found.head_width) == (HEADS, key_heads, WIDTH // HEADS)
    assert found.rotary
    assert found.past == ("past_key", "past_value")
    assert len(found.query) == 1


def test_multi_head_attention_of_onnxruntime_has_its_biases_in_the_operator() -> None:
    graph = Graph()
    given = [graph.linear(graph.norm("x"), WIDTH, WIDTH) for _ in range(3)]
    answer = graph.add(
        "MultiHeadAttention",
        [*given, graph.weight(3 * WIDTH)],
        domain="com.microsoft",
        num_heads=HEADS,
    )
    z = graph.add("Add", ["x", graph.linear(answer, WIDTH, WIDTH)])
    (found,) = structure(graph.model(z)).attentions
    assert found.bias
    assert found.heads == HEADS


def test_attention_and_mlp_beside_each_other_are_one_block() -> None:
    graph = Graph()
    y = graph.norm("x")
    inner = graph.linear(graph.add("Relu", [graph.linear(y, WIDTH, 40)]), 40, WIDTH)
    both = graph.add("Add", [graph.attention(y), inner])
    (stream,) = structure(graph.model(graph.add("Add", [both, "x"]))).streams
    (block,) = stream.additions
    assert (len(block.attentions), len(block.mlps), len(block.writers)) == (1, 1, 2)


def test_stream_of_another_width_is_another_stream() -> None:
    graph = Graph()
    first = graph.add("Add", ["x", graph.attention(graph.norm("x"))])
    wide = graph.linear(first, WIDTH, WIDTH)
    second = graph.add("Add", [wide, graph.attention(graph.norm(wide))])
    found = structure(graph.model(second))
    assert len(found.streams) == 2
    assert [len(stream.additions) for stream in found.streams] == [1, 1]


def test_attention_inside_a_body_is_found() -> None:
    inner = Graph()
    inner.add("Add", ["x", inner.attention(inner.norm("x"))])
    name = inner.nodes[-1].output[0]
    result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    bodies = []
    for branch in ("then", "else"):
        body = helper.make_graph(inner.nodes, branch, [], [result], inner.weights)
        bodies.append(onnx.GraphProto.FromString(body.SerializeToString()))
    for node in bodies[1].node:
        node.output[0] = f"else_{node.output[0]}"
        node.input[:] = [f"else_{n}" if n.startswith("t") else n for n in node.input]
    bodies[1].output[0].name = f"else_{name}"
    graph = Graph()
    condition = graph.constant(np.asarray(1))
    flag = graph.add("Cast", [condition], to=TensorProto.BOOL)
    made = graph.add("If", [flag], then_branch=bodies[0], else_branch=bodies[1])
    found = structure(graph.model(made))
    assert len(found.attentions) == len(found.streams) == 2


def test_attention_inside_a_function_is_found_once_it_is_inlined() -> None:
    inner = Graph()
    result = inner.add("Add", ["x", inner.attention(inner.norm("x"))])
    names = ["x", *(one.name for one in inner.weights)]
    opsets = [helper.make_opsetid("", 23)]
    function = helper.make_function("local", "Block", names, [result], inner.nodes, opsets)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", WIDTH])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", WIDTH])
    call = helper.make_node("Block", names, ["y"], domain="local")
    graph = helper.make_graph([call], "calls", [value], [made], inner.weights)
    opsets.append(helper.make_opsetid("local", 1))
    proto = helper.make_model(graph, functions=[function], opset_imports=opsets)
    assert find_structure(ir.from_proto(proto)) is None
    model = simplified(ir.from_proto(proto), registry.default_passes()[0], load_target("cpu"))
    (found,) = structure(model).attentions
    assert (found.heads, found.key_heads) == (HEADS, HEADS)


def _root_mean_square(graph: Graph, form: str) -> str:
    squares = (
        graph.add("Mul", ["x", "x"])
        if form == "product"
        else graph.add("Pow", ["x", graph.constant(np.float32(2))])
    )
    axes = graph.constant(np.asarray([-1], np.int64))
    mean = graph.add("ReduceMean", [squares, axes], keepdims=1)
    moved = graph.add("Add", [mean, graph.constant(np.float32(1e-6))])
    if form == "power":
        scaled = graph.add(
            "Mul", ["x", graph.add("Pow", [moved, graph.constant(np.float32(-0.5))])]
        )
    elif form == "reciprocal":
        scaled = graph.add("Mul", [graph.add("Reciprocal", [graph.add("Sqrt", [moved])]), "x"])
    else:
        scaled = graph.add("Div", ["x", graph.add("Sqrt", [moved])])
    return graph.add("Mul", [scaled, graph.weight(WIDTH, name="scale")])


@pytest.mark.parametrize("form", ["product", "power", "reciprocal", "quotient"])
def test_rms_norm_in_primitives(form: str) -> None:
    graph = Graph()
    (norm,) = find_norms(Tensors(graph.model(_root_mean_square(graph, form)))).values()
    assert (norm.kind, norm.width, norm.operator) == ("rms", WIDTH, False)
    assert norm.scale is not None
    assert norm.scale.name == "scale"
    assert norm.input is not None
    assert norm.input.name == "x"


def test_root_of_two_powers_is_no_norm_of_one() -> None:
    graph = Graph()
    axes = graph.constant(np.asarray([-1], np.int64))
    other = graph.add("Relu", ["x"])
    means = [
        graph.add("ReduceMean", [graph.add("Mul", [one, one]), axes], keepdims=1)
        for one in ("x", other)
    ]
    root = graph.add("Sqrt", [graph.add("Add", means)])
    assert not find_norms(Tensors(graph.model(graph.add("Div", ["x", root]))))


def _layer_norm(graph: Graph, form: str) -> str:
    """As Flax, Haiku and Keras compute it: (its variance, where scale and mean come in)."""
    axes = graph.constant(np.asarray([-1], np.int64))
    mean = graph.add("ReduceMean", ["x", axes], keepdims=1)
    centred = graph.add("Sub", ["x", mean])
    if form == "flax":
        power = graph.add("ReduceMean", [graph.add("Mul", ["x", "x"]), axes], keepdims=1)
        variance = graph.add("Sub", [power, graph.add("Mul", [mean, mean])])
        variance = graph.add("Max", [variance, graph.constant(np.float32(0))])
    else:
        other = graph.add("Sub", ["x", mean])
        variance = graph.add("ReduceMean", [graph.add("Mul", [other, other]), axes], keepdims=1)
    root = graph.add("Sqrt", [graph.add("Add", [variance, graph.constant(np.float32(1e-6))])])
    scale, offset = (graph.weight(WIDTH, name=name) for name in ("scale", "offset"))
    if form == "flax":
        scaled = graph.add("Mul", [graph.add("Div", [centred, root]), scale])
        return graph.add("Add", [scaled, offset])
    factor = graph.add("Mul", [graph.add("Reciprocal", [root]), scale])
    if form == "haiku":
        return graph.add("Add", [graph.add("Mul", [factor, centred]), offset])
    less = graph.add("Sub", [offset, graph.add("Mul", [mean, factor])])
    return graph.add("Add", [graph.add("Mul", ["x", factor]), less])


@pytest.mark.parametrize("form", ["flax", "haiku", "keras"])
def test_layer_norm_in_primitives(form: str) -> None:
    graph = Graph()
    result = _layer_norm(graph, form)
    (norm,) = find_norms(Tensors(graph.model(result))).values()
    assert (norm.kind, norm.width, norm.operator) == ("layer", WIDTH, False)
    assert (norm.input and norm.input.name, norm.output.name) == ("x", result)
    assert [one and one.name for one in (norm.scale, norm.offset)] == ["scale", "offset"]


def _averaged(graph: Graph, x: str, kind: str, factor: tuple[str, float]) -> str:
    """As jax2onnx writes it: a total without its axis, the axis put back, and a division."""
    total = graph.add(kind, [x, graph.constant(np.asarray([2], np.int64))], keepdims=0)
    shape = graph.constant(np.asarray([0, 0, 1], np.int64))
    put_back = graph.add("Reshape", [total, shape])
    operator, number = factor
    return graph.add(operator, [put_back, graph.constant(np.float32(number))])


def _jax_layer_norm(graph: Graph, factor: tuple[str, float]) -> str:
    centred = graph.add("Sub", ["x", _averaged(graph, "x", "ReduceSum", factor)])
    squared = _averaged(graph, centred, "ReduceSumSquare", factor)
    moved = graph.add("Add", [squared, graph.constant(np.float32(1e-6))])
    root = graph.add("Div", [graph.constant(np.float32(1)), graph.add("Sqrt", [moved])])
    scaled = graph.add("Mul", [graph.add("Mul", [centred, root]), graph.weight(WIDTH, name="g")])
    return graph.add("Add", [scaled, graph.weight(WIDTH, name="b")])


@pytest.mark.parametrize("factor", [("Div", WIDTH), ("Mul", 1 / WIDTH)])
def test_layer_norm_whose_means_are_totals_of_jax(factor: tuple[str, float]) -> None:
    graph = Graph()
    (norm,) = find_norms(Tensors(graph.model(_jax_layer_norm(graph, factor)))).values()
    assert (norm.kind, norm.width, norm.operator) == ("layer", WIDTH, False)
    assert norm.input is not None
    assert norm.input.name == "x"
    assert [one.name for one in (norm.scale, norm.offset) if one is not None] == ["g", "b"]


def test_total_divided_by_another_number_is_no_mean() -> None:
    graph = Graph()
    assert not find_norms(Tensors(graph.model(_jax_layer_norm(graph, ("Div", WIDTH - 1)))))


@pytest.mark.parametrize("float16", [False, True])
def test_large_decoder_with_its_weights_outside(tmp_path: Path, *, float16: bool) -> None:
    path = small_decoder(tmp_path, float16=float16)
    found = structure(model_file.load(path))
    (stream,) = found.streams
    assert (stream.width, len(stream.additions), stream.post_norm) == (64, 4, False)
    assert {norm.kind for norm in stream.norms} == {"rms"}
    for one in found.attentions:
        assert (one.heads, one.key_heads, one.head_width, one.rotary) == (4, 2, 16, True)
        assert len(one.past) == len(one.present) == 2
    assert {(mlp.width, mlp.gated, mlp.activation) for mlp in found.mlps} == {(160, True, "silu")}


@pytest.mark.public
@pytest.mark.parametrize(
    ("name", "width", "norm", "blocks", "heads"),
    [
        ("minilm", 384, "layer", 6, 12),
        ("t5_encoder", 512, "rms", 16, 6),
        ("t5_decoder", 512, "rms", 24, 6),
        ("vit_focus", 384, "layer", 24, 6),
        ("smart_turn", 384, "layer", 8, 6),
        ("ocr_rec", 120, "layer", 4, 8),
    ],
)
def test_public_models(
    models: Path, name: str, width: int, norm: str, blocks: int, heads: int
) -> None:
    path = models / ".cache" / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{name} was not fetched")
    found = structure(model_file.load(path))
    (stream,) = found.streams
    assert (stream.width, len(stream.additions)) == (width, blocks)
    assert {one.kind for one in stream.norms} == {norm}
    assert {one.heads for one in found.attentions} == {heads}
    assert len(found.mlps) + len(found.attentions) == blocks
