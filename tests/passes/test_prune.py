"""Removed channels against zeroed ones, scores against least squares, networks against bars."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import onnxpress
from onnxpress import model_file
from onnxpress.adapter import PressPass
from onnxpress.cli import cli
from onnxpress.contract import Context, Proposal, Skip
from onnxpress.data import Samples, load_samples, random_samples
from onnxpress.errors import UsageError
from onnxpress.layers import Layer, find_layers
from onnxpress.passes.prune import Prune
from onnxpress.passes.prune.cut import remove, zeroed
from onnxpress.passes.prune.importance import Reading, removal_order, solve_kept
from onnxpress.passes.prune.layout import Layout
from onnxpress.reconstruction import damped_gram
from onnxpress.registry import create
from onnxpress.runtime import Session
from onnxpress.search import apply
from onnxpress.targets import load_target

Float64 = npt.NDArray[np.float64]

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SMALL_LIGHT = ["inception_v1", "shufflenet", "squeezenet"]
LARGE_LIGHT = ["bvlc_alexnet", "densenet121", "inception_v2", "resnet50", "vgg19", "zfnet512"]
PUBLIC = ["ocr_rec", "ocr_det", "ocr_cls", "layout", "minilm", "magika", "silero_vad"]
SAME_DB = 80.0
"""Sums in another order differ by 1e-6 in float32, and deep random networks magnify that."""


def simplified(model: ir.Model) -> ir.Model:
    return PressPass(create("simplify"))(model).model


def compared(model: ir.Model, share: float, samples: Samples | None = None) -> tuple[float, Layout]:
    """Worst SQNR of outputs with a share of every group removed, against the same zeroed."""
    rng = np.random.default_rng(0)
    layout = Layout(model, find_layers(model))
    chosen: list[tuple[str, int]] = []
    for group in layout.groups.values():
        if group.blocked is None and len(group.units) > 1:
            count = max(1, int(len(group.units) * share))
            picked = rng.choice(len(group.units), count, replace=False)
            chosen += [(group.name, int(index)) for index in picked]
    assert chosen, "nothing could be cut"
    narrow, reference = model.clone(), model.clone()
    for changed, action in ((narrow, remove), (reference, zeroed)):
        fresh = Layout(changed, find_layers(changed))
        units = {fresh.groups[name].units[index] for name, index in chosen}
        if action is remove:
            remove(changed, fresh.reader, units)
        else:
            zeroed(changed, fresh.reader.coupling, units)
    content = model_file.to_bytes(narrow)
    weights = [sum(layer.nbytes for layer in find_layers(made)) for made in (narrow, model)]
    assert weights[0] < weights[1]
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    before, after = Session(reference), Session(narrow)
    worst = np.inf
    for feed in (samples or random_samples(before, 2, 0)).feeds[:2]:
        wanted, found = before.run(feed), after.run(feed)
        for name, array in wanted.items():
            assert found[name].shape == array.shape
            if array.dtype.kind != "f":
                np.testing.assert_array_equal(found[name], array)
                continue
            exact = array.astype(np.float64)
            error = np.square(exact - found[name].astype(np.float64)).sum()
            power = np.square(exact).sum()
            worst = min(worst, 10 * (np.log10(power + 1e-300) - np.log10(error + 1e-300)))
    return worst, layout


def light(name: str) -> ir.Model:
    """An architecture that ONNX ships, with random weights and without the final Softmax."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes, weights = [], []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = shapes[node.input[0]].tolist()
            fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
            drawn = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
            if len(shape) == 1:
                drawn = rng.uniform(0.5, 1.5, shape)
            weights.append(onnx.numpy_helper.from_array(drawn.astype(np.float32), node.output[0]))
        elif node.op_type == "Softmax":
            # Of random weights it makes one class certain, which hides all differences.
            model.graph.output[0].name = node.input[0]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    made = {weight.name for weight in weights}
    kept = [i for i in model.graph.initializer if i.name in used - made]
    inputs = [i for i in model.graph.input if i.name in used - set(shapes) - made]
    graph = make_graph(nodes, name, inputs, model.graph.output, [*kept, *weights])
    return simplified(
        ir.serde.deserialize_model(
            make_model(graph, opset_imports=model.opset_import, ir_version=8)
        )
    )


def untouched(layout: Layout, layers: list[Layer], positions: dict[str, float]) -> float:
    """Share of the multiply-adds in layers of which neither side can be cut."""
    free = {u for g in layout.groups.values() if g.blocked is None for u in g.units}
    total = left = 0.0
    for layer in layers:
        work = positions[layer.name] * layer.read().size
        side = layout.sides[layer.name]
        total += work
        if not free & {*side.inputs.tolist(), *side.outputs.tolist()}:
            left += work
    return left / total


def positions_of(model: ir.Model) -> dict[str, float]:
    """How often each weight is applied, by the shapes of the graph."""
    return {
        layer.name: float(
            np.prod([d for d in layer.node.outputs[0].shape or () if isinstance(d, int)])
        )
        / layer.read().shape[0]
        for layer in find_layers(model)
    }


def check_light(name: str) -> None:
    model = light(name)
    worst, layout = compared(model, 0.25)
    assert worst > SAME_DB
    assert untouched(layout, find_layers(model), positions_of(model)) < 0.1


@pytest.mark.parametrize("name", SMALL_LIGHT)
def test_light_architecture_is_cut_exactly(name: str) -> None:
    check_light(name)


@pytest.mark.public
@pytest.mark.parametrize("name", LARGE_LIGHT)
def test_large_light_architecture_is_cut_exactly(name: str) -> None:
    check_light(name)


@pytest.mark.public
@pytest.mark.parametrize("name", PUBLIC)
def test_public_model_is_cut_exactly(models: Path, name: str) -> None:
    folder = models / ".cache" / name
    if not (folder / "model.onnx").exists():
        pytest.skip("run models/fetch.py first")
    model = simplified(onnxpress.load(folder / "model.onnx"))
    data = folder / "calibration.npz"
    samples = load_samples(data, Session(model).inputs) if data.exists() else None
    worst, layout = compared(model, 0.25, samples)
    assert worst > SAME_DB
    heads = [g for g in layout.groups.values() if g.kind == "head" and g.blocked is None]
    assert len(heads) == {"minilm": 3, "ocr_rec": 2}.get(name, 0)


# Generated graphs


class Builder:
    """Adds operators to a graph of [2, channels, 6, 6] tensors."""

    def __init__(self, seed: int, channels: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels = channels
        self.value = "x"

    def constant(self, array: npt.NDArray[np.generic]) -> str:
        """A constant's name."""
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def drawn(self, *shape: int) -> str:
        """A random constant's name."""
        return self.constant((0.4 * self.rng.standard_normal(shape)).astype(np.float32))

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """The outputs of a new node."""
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(make_node(op_type, inputs, names, **attributes))
        return names

    def conv(self, channels: int, *, groups: int = 1, kernel: int = 3) -> None:
        """A convolution that keeps height and width."""
        weight = self.drawn(channels, self.channels // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        bias = self.drawn(channels)
        (self.value,) = self.add("Conv", self.value, weight, bias, group=groups, pads=pads)
        self.channels = channels

    def model(
        self, inputs: list[int | str], outputs: list[int | str] | None, opset: int = 17
    ) -> ir.Model:
        """From x through what was added to its last output, shapes inferred."""
        output = self.nodes[-1].output[0]
        graph = make_graph(
            self.nodes,
            "built",
            [make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [make_tensor_value_info(output, TensorProto.FLOAT, outputs)],
            self.weights,
        )
        ir_version = 6 if opset < 13 else 9
        proto = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=ir_version)
        return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def _conv(b: Builder) -> None:
    b.conv(int(b.rng.integers(2, 5)) * 4)


def _depthwise(b: Builder) -> None:
    b.conv(b.channels, groups=b.channels)


def _widening_depthwise(b: Builder) -> None:
    b.conv(2 * b.channels, groups=b.channels)
    b.conv(8, kernel=1)


def _grouped(b: Builder) -> None:
    b.conv(b.channels, groups=2)


def _batch_norm(b: Builder) -> None:
    parameters = [b.drawn(b.channels) for _ in range(3)]
    variance = b.constant(b.rng.uniform(0.5, 2, b.channels).astype(np.float32))
    (b.value,) = b.add("BatchNormalization", b.value, *parameters, variance)


def _activation(b: Builder) -> None:
    kind = str(b.rng.choice(["Relu", "Sigmoid", "HardSwish", "PRelu", "LeakyRelu"]))
    slope = [b.drawn(b.channels, 1, 1)] if kind == "PRelu" else []
    (b.value,) = b.add(kind, b.value, *slope)


def _residual(b: Builder) -> None:
    before, channels = b.value, b.channels
    b.conv(12)
    _activation(b)
    b.conv(channels)
    (b.value,) = b.add("Add", before, b.value)


def _concat(b: Builder) -> None:
    before, channels = b.value, b.channels
    b.conv(8)
    (b.value,) = b.add("Concat", before, b.value, axis=1)
    b.channels += channels


def _split(b: Builder) -> None:
    half = b.channels // 2
    sizes = b.constant(np.array([half, b.channels - half], np.int64))
    one, other = b.add("Split", b.value, sizes, outputs=2, axis=1)
    (b.value,) = b.add("Concat", other, one, axis=1)


def _slice(b: Builder) -> None:
    ends = [b.constant(np.array([n], np.int64)) for n in (2, b.channels, 1)]
    (b.value,) = b.add("Slice", b.value, *ends)
    b.channels -= 2
    b.conv(8)


def _gather(b: Builder) -> None:
    order = b.rng.permutation(b.channels).astype(np.int64)
    (b.value,) = b.add("Gather", b.value, b.constant(order), axis=1)


def _channel_shuffle(b: Builder) -> None:
    apart = b.constant(np.array([0, 2, b.channels // 2, 6, 6], np.int64))
    together = b.constant(np.array([0, b.channels, 6, 6], np.int64))
    (b.value,) = b.add("Reshape", b.value, apart)
    (b.value,) = b.add("Transpose", b.value, perm=[0, 2, 1, 3, 4])
    (b.value,) = b.add("Reshape", b.value, together)


def _squeeze_excite(b: Builder) -> None:
    before, channels = b.value, b.channels
    (b.value,) = b.add("GlobalAveragePool", b.value)
    b.conv(6, kernel=1)
    (b.value,) = b.add("Relu", b.value)
    b.conv(channels, kernel=1)
    (b.value,) = b.add("HardSigmoid", b.value)
    (b.value,) = b.add("Mul", before, b.value)


def _pool(b: Builder) -> None:
    pads = [1, 1, 1, 1]
    (b.value,) = b.add("AveragePool", b.value, kernel_shape=[3, 3], pads=pads)


def _neighbours(b: Builder) -> None:
    (b.value,) = b.add("LRN", b.value, size=3)


def _transposed(b: Builder) -> None:
    weight = b.drawn(b.channels, 8, 3, 3)
    (b.value,) = b.add("ConvTranspose", b.value, weight, pads=[1, 1, 1, 1])
    b.channels = 8


def _pixel_shuffle(b: Builder) -> None:
    b.conv(16)
    mode = str(b.rng.choice(["DCR", "CRD"]))
    (b.value,) = b.add("DepthToSpace", b.value, blocksize=2, mode=mode)
    (b.value,) = b.add("SpaceToDepth", b.value, blocksize=2)
    b.conv(8)


def _resize(b: Builder) -> None:
    sizes = b.constant(np.array([2, b.channels, 6, 6], np.int64))
    (b.value,) = b.add("Resize", b.value, "", "", sizes)


def _computed_reshape(b: Builder) -> None:
    (shape,) = b.add("Shape", b.value)
    first = b.constant(np.array([0, 1], np.int64))
    (head,) = b.add("Gather", shape, first)
    (target,) = b.add("Concat", head, b.constant(np.array([36], np.int64)), axis=0)
    (flat,) = b.add("Reshape", b.value, target)
    (b.value,) = b.add("Reshape", flat, shape)


def _unknown(b: Builder) -> None:
    (b.value,) = b.add("Softmax", b.value, axis=1)
    b.conv(8)


STEPS: list[Callable[[Builder], None]] = [
    _conv,
    _depthwise,
    _widening_depthwise,
    _grouped,
    _batch_norm,
    _activation,
    _residual,
    _concat,
    _split,
    _slice,
    _gather,
    _channel_shuffle,
    _squeeze_excite,
    _pool,
    _neighbours,
    _transposed,
    _pixel_shuffle,
    _resize,
    _computed_reshape,
    _unknown,
]


def build(steps: list[Callable[[Builder], None]], seed: int) -> ir.Model:
    b = Builder(seed, 3)
    b.conv(8)
    for step in steps:
        step(b)
    b.conv(8)
    flat = b.add("Flatten", b.value)
    b.add("Gemm", flat[0], b.drawn(8 * 36, 5), b.drawn(5))
    return b.model([2, 3, 6, 6], [2, 5])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 1000))
@example([_neighbours, _neighbours], 0)
def test_generated_graph_is_cut_exactly(steps: list[Callable[[Builder], None]], seed: int) -> None:
    worst, _ = compared(build(steps, seed), 0.4)
    assert worst > SAME_DB


def test_operator_that_is_not_understood_blocks_what_it_reads_by_name() -> None:
    model = build([_unknown], 0)
    layout = Layout(model, find_layers(model))
    reasons = {group.blocked for group in layout.groups.values()}
    assert any(reason and "Softmax" in reason for reason in reasons)
    assert None in reasons, "the others can still be cut"


def attention(heads: int = 4, width: int = 16) -> ir.Model:
    """x[batch, steps, 16] → attention with shapes computed at run time → y, and a GRU behind."""
    b = Builder(0, 0)

    def projected(source: str, inputs: int, outputs: int) -> str:
        (made,) = b.add("MatMul", source, b.drawn(inputs, outputs))
        return b.add("Add", made, b.drawn(outputs))[0]

    (shape,) = b.add("Shape", "x")
    (lead,) = b.add("Slice", shape, *(b.constant(np.array([n], np.int64)) for n in (0, 2)))
    size = width // heads
    (target,) = b.add("Concat", lead, b.constant(np.array([heads, size], np.int64)), axis=0)
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        (apart,) = b.add("Reshape", projected("x", 16, width), target)
        parts += b.add("Transpose", apart, perm=perm)
    (scores,) = b.add("MatMul", parts[0], parts[1])
    (weights,) = b.add("Softmax", scores, axis=-1)
    (mixed,) = b.add("MatMul", weights, parts[2])
    (mixed,) = b.add("Transpose", mixed, perm=[0, 2, 1, 3])
    (whole,) = b.add("Concat", lead, b.constant(np.array([width], np.int64)), axis=0)
    (merged,) = b.add("Reshape", mixed, whole)
    hidden = b.add("Relu", projected(projected(merged, width, 16), 16, 12))[0]
    (steps,) = b.add("Transpose", hidden, perm=[1, 0, 2])
    recurrent = [b.drawn(1, 15, 12), b.drawn(1, 15, 5)]
    b.add("GRU", steps, *recurrent, hidden_size=5)
    return b.model(["batch", "steps", 16], None)


def test_heads_and_the_input_side_of_a_gru_are_cut_exactly() -> None:
    worst, layout = compared(attention(), 0.5)
    assert worst > SAME_DB
    kinds = [(g.kind, len(g.units)) for g in layout.groups.values() if g.blocked is None]
    assert ("head", 4) in kinds
    assert ("channel", 12) in kinds, "what the GRU reads"


def test_bodies_of_if_nodes_are_cut_inside() -> None:
    inner = Builder(1, 3)
    inner.conv(8)
    inner.conv(3)
    nodes, weights = inner.nodes, inner.weights
    bodies = []
    for name in ("then", "other"):
        renamed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        for node in renamed:
            node.input[:] = [f"{name}_{i}" if i != "x" else i for i in node.input]
            node.output[:] = [f"{name}_{o}" for o in node.output]
        held = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
        for weight in held:
            weight.name = f"{name}_{weight.name}"
        made = make_tensor_value_info(renamed[-1].output[0], TensorProto.FLOAT, [2, 3, 6, 6])
        bodies.append(make_graph(renamed, name, [], [made], held))
    node = make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    graph = make_graph(
        [node],
        "bodies",
        [
            make_tensor_value_info("c", TensorProto.BOOL, []),
            make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 6]),
        ],
        [make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 6, 6])],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    worst, layout = compared(ir.serde.deserialize_model(proto), 0.5)
    assert worst > SAME_DB
    assert sum(group.blocked is None for group in layout.groups.values()) == 2


# Importance


def correlated(rng: np.random.Generator, rows: int, inputs: int) -> Float64:
    x = rng.standard_normal((rows, inputs // 2)) @ rng.standard_normal((inputs // 2, inputs))
    return np.asarray(x + 0.3 * rng.standard_normal((rows, inputs)), np.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_are_what_least_squares_leaves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = correlated(rng, 400, 12)
    w = rng.standard_normal((1, 5, 12))
    gram = (x.T @ x / len(x))[None]
    features = tuple(np.arange(unit * 2, unit * 2 + 2) for unit in range(6))
    order, errors = removal_order([Reading(w, gram, len(x), features)])
    damped = damped_gram(gram, len(x))[0]
    power = np.einsum("oi,ij,oj->", w[0], gram[0], w[0])

    def residual(gone: list[int]) -> float:
        kept = np.concatenate([features[u] for u in range(6) if u not in gone])
        answer = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ w[0].T).T
        delta = w[0].copy()
        delta[:, kept] -= answer
        return float(np.einsum("oi,ij,oj->", delta, damped, delta) / power)

    best = min(range(6), key=lambda unit: residual([unit]))
    assert order[0] == best
    for count in range(1, 6):
        np.testing.assert_allclose(errors[count], residual(order[:count]), rtol=1e-6)


def test_kept_weights_are_the_normal_equations() -> None:
    rng = np.random.default_rng(3)
    x = correlated(rng, 5000, 8)
    w = rng.standard_normal((1, 4, 8))
    kept = np.array([0, 2, 3, 7])
    gram = (x.T @ x / len(x))[None]
    ridge = np.sqrt((damped_gram(gram, len(x)) - gram)[0, 0, 0])
    # The damping as rows of its own, which pull towards the weights before.
    rows = np.concatenate([x[:, kept] / np.sqrt(len(x)), ridge * np.eye(4)])
    wanted = np.concatenate([x @ w[0].T / np.sqrt(len(x)), ridge * w[0][:, kept].T])
    exact = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    np.testing.assert_allclose(solve_kept(w, gram, kept, len(x))[0], exact, rtol=1e-6)


# The pass


def test_dead_and_copied_channels_go_without_data_and_without_loss() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((12, 6)).astype(np.float32)
    bias = rng.standard_normal(12).astype(np.float32)
    first[3], bias[3] = 0, -1  # never above zero
    first[5], bias[5] = 2 * first[1], 2 * bias[1]  # a copy up to a factor
    first[8], bias[8] = first[2], bias[2]
    second = rng.standard_normal((4, 12)).astype(np.float32)
    second[:, 10] = 0  # read by nobody
    weights = {"first": first, "bias": bias, "second": second}
    graph = make_graph(
        [
            make_node("Gemm", ["x", "first", "bias"], ["a"], transB=1),
            make_node("Relu", ["a"], ["b"]),
            make_node("Gemm", ["b", "second"], ["y"], transB=1),
        ],
        "redundant",
        [make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    model = ir.serde.deserialize_model(proto)
    result = onnxpress.optimize(model, passes=["prune"])
    left = {layer.name: layer.shape for layer in find_layers(result.model)}
    assert left == {"first": (8, 6), "second": (4, 8)}
    assert result.validation is not None
    assert result.validation.measurement.worst_sqnr_db > 120


def gemm_pair(first: Float64, bias: Float64, second: Float64, *between: str) -> ir.Model:
    """x[batch, in] → Gemm → operators → Gemm → y."""
    b = Builder(0, 0)
    weights = [b.constant(array.astype(np.float32)) for array in (first, bias, second)]
    value = b.add("Gemm", "x", weights[0], weights[1], transB=1)[0]
    for op_type in between:
        extra = [b.constant(np.ones((), np.float32))] if op_type == "Add" else []
        value = b.add(op_type, value, *extra)[0]
    b.add("Gemm", value, weights[2], transB=1)
    return b.model(["batch", first.shape[1]], ["batch", len(second)])


@pytest.mark.parametrize("between", [("Sigmoid",), ("Add",), ("Relu", "Add"), ("Softplus", "Relu")])
def test_unit_of_zeros_stays_where_what_follows_makes_something_of_it(
    between: tuple[str, ...],
) -> None:
    rng = np.random.default_rng(0)
    first, bias, second = (rng.standard_normal(shape) for shape in ((8, 6), (8,), (4, 8)))
    first[3], bias[3] = 0, 0
    model = gemm_pair(first, bias, second, *between)
    for item in Prune().propose(Context(model, load_target("cpu"))):
        assert isinstance(item, Skip), "nothing is free here"


def test_old_softmax_blocks_every_axis_behind_its_first() -> None:
    b = Builder(0, 3)
    b.conv(8)
    (b.value,) = b.add("Softmax", b.value)
    b.conv(4)
    model = b.model([2, 3, 6, 6], [2, 4, 6, 6], opset=11)
    layout = Layout(model, find_layers(model))
    assert all(group.blocked for group in layout.groups.values())


def test_split_of_an_old_opset_gets_its_sizes_as_an_attribute() -> None:
    b = Builder(0, 3)
    b.conv(8)
    halves = b.add("Split", b.value, outputs=2, axis=1)
    (b.value,) = b.add("Mul", *halves)
    b.channels = 4
    b.conv(4)
    worst, _ = compared(b.model([2, 3, 6, 6], [2, 4, 6, 6], opset=11), 0.5)
    assert worst > SAME_DB


def test_depthwise_transposed_convolution_keeps_its_weights() -> None:
    b = Builder(0, 3)
    b.conv(16)
    (b.value,) = b.add("Relu", b.value)
    weight = b.drawn(16, 1, 3, 3)
    (b.value,) = b.add("ConvTranspose", b.value, weight, group=16, pads=[1, 1, 1, 1])
    b.conv(4)
    model = b.model([1, 3, 6, 6], [1, 4, 6, 6])
    data = {"x": np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)}
    pass_ = Prune(ratio=0.6, importance="magnitude")
    narrow = PressPass(pass_, calibration=data)(model.clone()).model
    left = {layer.name: layer for layer in find_layers(narrow)}[weight]
    assert left.shape[0] < 16
    assert all(np.abs(row).max() > 0 for row in left.read())


def test_half_of_the_residual_network_costs_less_than_two_points(models: Path) -> None:
    result = onnxpress.optimize(
        models / "fashion_cnn.onnx",
        passes=[Prune(ratio=0.5)],
        calibration=models / "fashion_calibration.npz",
        evaluation=models / "fashion_evaluation.npz",
        max_drop=100,
    )
    assert result.validation is not None
    assert result.validation.measurement.drop <= 2
    assert result.validation.latency.speedup > 1.5


def test_residual_block_is_left_out_whole(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_cnn.onnx"))
    calibration = models / "fashion_calibration.npz"
    pass_ = Prune(structure="block")
    shorter = PressPass(pass_, calibration=str(calibration))(model.clone()).model
    before, after = find_layers(model), find_layers(shorter)
    assert len(before) - len(after) == 8, "four blocks of two convolutions"
    onnx.checker.check_model(onnx.load_from_string(model_file.to_bytes(shorter)), full_check=True)


def test_group_that_reaches_input_or_output_says_so(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_mlp.onnx"))
    proposals = Prune(ratio=0.5).propose(Context(model, load_target("cpu")))
    reasons = {item.site: item.reason for item in proposals if isinstance(item, Skip)}
    assert "the output 'logits' of the model" in reasons["head.weight"]


def test_counts_are_multiples_and_never_all(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_mlp.onnx"))
    context = Context(model, load_target("cpu"))
    for item in Prune(ratio=0.5, multiple=24).propose(context):
        if isinstance(item, Proposal):
            kept = [int(c.parameters["kept"]) for c in item.candidates]
            assert all(count % 24 == 0 and count > 0 for count in kept)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match="share of multiply-adds"):
        Prune(ratio=ratio)


def test_unknown_layer_names_the_nearest(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    with pytest.raises(UsageError, match=r"did you mean 'fc1.weight'"):
        Prune(ratio=0.5, layers="fc1.weigth").propose(Context(model, load_target("cpu")))


def test_decision_of_another_model_is_an_error_not_a_crash(models: Path) -> None:
    mlp = Context(onnxpress.load(models / "fashion_mlp.onnx"), load_target("cpu"))
    cnn = Context(simplified(onnxpress.load(models / "fashion_cnn.onnx")), load_target("cpu"))
    pass_ = Prune(ratio=0.5)
    decisions = [
        onnxpress.contract.Decision(item.site, item.candidates[0])
        for item in pass_.propose(mlp)
        if isinstance(item, Proposal)
    ]
    with pytest.raises(onnxpress.errors.RecipeError, match="another model"):
        apply(pass_, cnn, decisions)


def test_command_reports_why_nothing_was_removed(linear_model: Path) -> None:
    done = CliRunner().invoke(cli, ["prune", str(linear_model), "--ratio", "0.5"])
    assert done.exit_code == 1
    assert "have to stay" in " ".join(done.output.split())
