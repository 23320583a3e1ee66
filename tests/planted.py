"""Errors planted into a model at one node, of the kinds that exports and quantizers make.

Each kind lists the sites that it can be planted at and changes one of them. What has no effect on
the samples (a dead channel, a Relu that only sees positive values) is no error; `plant` tries site
after site until the node's own output differs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.difference.weights import constant_array
from onnxpress.graph import Names, add_initializer, attribute, is_standard

__all__ = ["KINDS", "Planted", "plant", "renamed", "sites"]

LINEAR = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(frozen=True)
class Planted:
    """A copy with one error.

    Attributes:
        model: the copy.
        node: name of the node that was changed; empty where it has none.
        tensor: its output, which a tensor of the intact model shares its name with.
    """

    model: ir.Model
    node: str
    tensor: str


@dataclass(frozen=True)
class Kind:
    """A kind of error.

    Attributes:
        fits: whether it can be planted at a node.
        change: plants it.
    """

    fits: Callable[[ir.Node], bool]
    change: Callable[[Names, ir.Node], None]


def sites(model: ir.Model, kind: str) -> list[str]:
    """The outputs of the nodes that an error of a kind fits."""
    return [
        node.outputs[0].name or ""
        for node in model.graph.all_nodes()
        if is_standard(node) and node.outputs and KINDS[kind].fits(node)
    ]


def plant(model: ir.Model, kind: str, tensor: str) -> Planted:
    """Plant an error of a kind at the node that computes a tensor."""
    copy = model.clone()
    node = next(n for n in copy.graph.all_nodes() if n.outputs and n.outputs[0].name == tensor)
    name = node.name or ""
    KINDS[kind].change(Names(copy), node)
    return Planted(copy, name, tensor)


def renamed(model: ir.Model) -> ir.Model:
    """A copy where no inner tensor, weight or node has the name it had."""
    copy = model.clone()
    kept = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    number = 0
    for graph in (copy.graph, *copy.graph.subgraphs()):
        values = [*graph.initializers.values(), *(out for node in graph for out in node.outputs)]
        for value in values:
            if value.name and value.name not in kept:
                number += 1
                value.name = f"v{number}"
        for node in graph:
            node.name = ""
    return copy


def _weight(node: ir.Node) -> int | None:
    """Which input is a constant float weight of at least two axes."""
    if node.op_type not in LINEAR:
        return None
    for index in (1, 0):
        found = constant_array(node.inputs[index])
        if found is not None and found.ndim >= 2 and found.dtype.kind == "f" and found.size > 15:
            return index
    return None


def _has_weight(node: ir.Node) -> bool:
    return _weight(node) is not None


def _has_bias(node: ir.Node) -> bool:
    return (
        node.op_type in ("Conv", "Gemm", "ConvTranspose")
        and len(node.inputs) > 2
        and _real(node, 2)
    )


def _real(node: ir.Node, index: int) -> bool:
    found = constant_array(node.inputs[index]) if len(node.inputs) > index else None
    return found is not None and found.dtype.kind == "f"


def _put(names: Names, node: ir.Node, index: int, array: np.ndarray) -> None:
    value = node.inputs[index]
    assert value is not None
    before = constant_array(value)
    assert before is not None
    kind = before.dtype if value.dtype is None else value.dtype.numpy()
    assert isinstance(node.graph, ir.Graph)
    new = add_initializer(names, node.graph, f"{value.name}_planted", array.astype(kind))
    node.replace_input_with(index, new)


def _on_weight(change: Callable[[ir.Node, np.ndarray], np.ndarray]) -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        index = _weight(node)
        assert index is not None
        array = constant_array(node.inputs[index])
        assert array is not None
        _put(names, node, index, change(node, array.astype(np.float64)))

    return Kind(_has_weight, apply)


def _out_axis(node: ir.Node, array: np.ndarray) -> int:
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1 if node.op_type in ("ConvTranspose", "Gemm") else array.ndim - 1


def _zero_channel(node: ir.Node, array: np.ndarray) -> np.ndarray:
    axis = _out_axis(node, array)
    powers = np.square(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1).sum(axis=1)
    np.moveaxis(array, axis, 0)[int(np.argmax(powers))] = 0
    return array


def _permute(node: ir.Node, array: np.ndarray) -> np.ndarray:
    return np.roll(array, 1, axis=_out_axis(node, array))


def _flip(node: ir.Node, array: np.ndarray) -> np.ndarray:
    """The kernel mirrored, or a matrix in the other order of rows."""
    if array.ndim > 2 and array.shape[-1] > 1:
        return array[..., ::-1]
    return array[::-1]


def _scale(node: ir.Node, array: np.ndarray) -> np.ndarray:
    return array * 1.1


def _round(node: ir.Node, array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16)


def _noisy(node: ir.Node, array: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray(array + 0.1 * array.std() * rng.standard_normal(array.shape))


def _nan(node: ir.Node, array: np.ndarray) -> np.ndarray:
    array.reshape(-1)[array.size // 2] = math.nan
    return array


def _on_bias(change: Callable[[np.ndarray], np.ndarray]) -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        array = constant_array(node.inputs[2])
        assert array is not None
        _put(names, node, 2, change(array))

    return Kind(_has_bias, apply)


def _becomes(node: ir.Node, op_type: str, inputs: int, **attributes: float) -> None:
    """Put another operator in the place of a node; its output keeps its name."""
    made = [ir.AttrFloat32(name, value) for name, value in attributes.items()]
    _swap(node, ir.Node("", op_type, list(node.inputs[:inputs]), made, name=node.name))


def _swap(node: ir.Node, new: ir.Node, *between: ir.Node) -> None:
    old = node.outputs[0]
    name, graph = old.name, node.graph
    assert isinstance(graph, ir.Graph)
    new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
    graph.insert_before(node, [*between, new])
    ir.convenience.replace_all_uses_with(old, new.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.outputs[0].name = name


def _operator(op_type: str, becomes: str, **attributes: float) -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        _becomes(node, becomes, 1, **attributes)

    return Kind(lambda node: node.op_type == op_type, apply)


def _pads_shifted() -> Kind:
    def fits(node: ir.Node) -> bool:
        pads = node.attributes.get("pads")
        return (
            node.op_type in ("Conv", "MaxPool", "AveragePool")
            and pads is not None
            and any(pads.as_ints())
        )

    def apply(names: Names, node: ir.Node) -> None:
        pads = list(node.attributes["pads"].as_ints())
        half = len(pads) // 2
        both = [pads[i] + pads[i + half] for i in range(half)]
        shifted = [0] * half + both
        node.attributes["pads"] = ir.AttrInt64s(
            "pads", shifted if shifted != pads else both + [0] * half
        )

    return Kind(fits, apply)


def _epsilon() -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.1)

    norms = ("BatchNormalization", "LayerNormalization", "InstanceNormalization")
    return Kind(lambda node: node.op_type in norms, apply)


def _softmax_axis() -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        node.attributes["axis"] = ir.AttrInt64("axis", 0 if attribute(node, "axis", -1) else 1)

    return Kind(lambda node: node.op_type == "Softmax", apply)


def _clip_bound() -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        array = constant_array(node.inputs[2])
        assert array is not None
        _put(names, node, 2, array.astype(np.float64) * 0.5)

    return Kind(lambda node: node.op_type == "Clip" and _real(node, 2), apply)


def _operands_swapped() -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        left, right = node.inputs
        node.replace_input_with(0, right)
        node.replace_input_with(1, left)

    return Kind(lambda node: node.op_type in ("Sub", "Div") and _is_float(node), apply)


def _is_float(node: ir.Node) -> bool:
    return node.outputs[0].dtype in (ir.DataType.FLOAT, None)


def _operand_dropped() -> Kind:
    def fits(node: ir.Node) -> bool:
        shapes = [None if v is None or v.shape is None else list(v.shape) for v in node.inputs]
        variable = all(constant_array(value) is None for value in node.inputs)
        return node.op_type == "Add" and variable and _is_float(node) and shapes[0] == shapes[1]

    def apply(names: Names, node: ir.Node) -> None:
        _becomes(node, "Identity", 1)

    return Kind(fits, apply)


def _constant_wrong() -> Kind:
    def index_of(node: ir.Node) -> int | None:
        found = [constant_array(value) for value in node.inputs]
        return next((i for i, a in enumerate(found) if a is not None and a.dtype.kind == "f"), None)

    def apply(names: Names, node: ir.Node) -> None:
        index = index_of(node)
        assert index is not None
        array = constant_array(node.inputs[index])
        assert array is not None
        _put(names, node, index, array.astype(np.float64) * 1.25 + 0.01)

    kinds = ("Mul", "Add", "Div", "Sub")
    return Kind(lambda node: node.op_type in kinds and index_of(node) is not None, apply)


def _quantized(scale: float, point: int) -> Kind:
    """Behind a node: 8 bits over ±4 standard steps, the step or the zero point wrong."""

    def apply(names: Names, node: ir.Node) -> None:
        value, graph = node.outputs[0], node.graph
        assert isinstance(graph, ir.Graph)
        step = add_initializer(names, graph, f"{value.name}_scale", np.array(scale, np.float32))
        zero = add_initializer(names, graph, f"{value.name}_zero", np.array(point, np.int8))
        uses = tuple(value.uses())
        quantize = ir.Node("", "QuantizeLinear", [value, step, zero])
        given = ir.Node("", "DequantizeLinear", [quantize.outputs[0], step, zero])
        quantize.outputs[0].name = names.free(f"{value.name}_quantized")
        quantize.outputs[0].type = ir.TensorType(ir.DataType.INT8)
        given.outputs[0].name = names.free(f"{value.name}_dequantized")
        given.outputs[0].type, given.outputs[0].shape = value.type, value.shape
        graph.insert_after(node, [quantize, given])
        for user, index in uses:
            user.replace_input_with(index, given.outputs[0])

    def fits(node: ir.Node) -> bool:
        used = not node.outputs[0].is_graph_output() and node.outputs[0].uses()
        return (
            node.op_type in ("Relu", "Conv", "Add", "MatMul", "HardSwish", "Gemm")
            and bool(used)
            and _is_float(node)
        )

    return Kind(fits, apply)


def _axes_swapped() -> Kind:
    """Two axes of one size exchanged behind a node: a wrong perm that no shape shows."""

    def axes(node: ir.Node) -> tuple[int, int] | None:
        shape = node.outputs[0].shape
        constant = all(constant_array(value) is not None for value in node.inputs)
        if shape is None or constant or not _is_float(node):
            return None
        for i in range(len(shape)):
            for j in range(i + 1, len(shape)):
                if isinstance(shape[i], int) and shape[i] == shape[j] and shape[i] != 1:
                    return i, j
        return None

    def apply(names: Names, node: ir.Node) -> None:
        found, shape = axes(node), node.outputs[0].shape
        assert found is not None
        assert shape is not None
        perm = list(range(len(shape)))
        perm[found[0]], perm[found[1]] = found[1], found[0]
        inner = ir.Node(
            node.domain, node.op_type, list(node.inputs), list(node.attributes.values())
        )
        inner.outputs[0].name = names.free(f"{node.outputs[0].name}_before")
        inner.outputs[0].type = node.outputs[0].type
        new = ir.Node("", "Transpose", [inner.outputs[0]], [ir.AttrInt64s("perm", perm)])
        _swap(node, new, inner)

    one = lambda node: len(node.outputs) == 1 and axes(node) is not None  # noqa: E731
    return Kind(one, apply)


def _row_zeroed() -> Kind:
    def fits(node: ir.Node) -> bool:
        table = constant_array(node.inputs[0]) if node.op_type == "Gather" else None
        return (
            table is not None
            and table.ndim == 2
            and table.shape[0] > 100
            and table.dtype.kind == "f"
        )

    def apply(names: Names, node: ir.Node) -> None:
        table = constant_array(node.inputs[0])
        assert table is not None
        changed = table.copy()
        changed[:128] = 0
        _put(names, node, 0, changed)

    return Kind(fits, apply)


def _resize_mode() -> Kind:
    def apply(names: Names, node: ir.Node) -> None:
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
        other = "linear" if mode == "nearest" else "nearest"
        node.attributes["mode"] = ir.AttrString("mode", other)

    return Kind(lambda node: node.op_type == "Resize", apply)


def _pool_kind() -> Kind:
    other = {"GlobalAveragePool": "GlobalMaxPool", "GlobalMaxPool": "GlobalAveragePool"}
    other |= {"MaxPool": "AveragePool", "AveragePool": "MaxPool", "ReduceMax": "ReduceMean"}
    left_out = ("count_include_pad", "ceil_mode", "dilations", "storage_order")

    def apply(names: Names, node: ir.Node) -> None:
        kept = [v for k, v in node.attributes.items() if k not in left_out]
        _swap(node, ir.Node("", other[node.op_type], [node.inputs[0]], kept, name=node.name))

    return Kind(lambda node: node.op_type in other and len(node.outputs) == 1, apply)


def _erf_approximated() -> Kind:
    """erf(x) ≈ tanh(2/√π·(x + 0.08943·x³)): the fast Gelu."""

    def apply(names: Names, node: ir.Node) -> None:
        x, graph = node.inputs[0], node.graph
        assert isinstance(graph, ir.Graph)
        cubic = add_initializer(names, graph, "cubic", np.array(0.0894301, np.float32))
        outer = add_initializer(names, graph, "outer", np.array(1.1283792, np.float32))
        square = ir.Node("", "Mul", [x, x])
        cube = ir.Node("", "Mul", [square.outputs[0], x])
        scaled = ir.Node("", "Mul", [cube.outputs[0], cubic])
        total = ir.Node("", "Add", [x, scaled.outputs[0]])
        inner = ir.Node("", "Mul", [total.outputs[0], outer])
        nodes = [square, cube, scaled, total, inner]
        for part in nodes:
            part.outputs[0].name = names.free(f"{node.outputs[0].name}_part")
        _swap(node, ir.Node("", "Tanh", [inner.outputs[0]], name=node.name), *nodes)

    return Kind(lambda node: node.op_type == "Erf", apply)


def _activation_swapped() -> Kind:
    other = {"HardSwish": "Relu", "Sigmoid": "HardSigmoid", "Tanh": "Softsign"}
    other |= {"HardSigmoid": "Sigmoid", "Erf": "Tanh", "Exp": "Softplus"}

    def apply(names: Names, node: ir.Node) -> None:
        _becomes(node, other[node.op_type], 1)

    return Kind(lambda node: node.op_type in other, apply)


KINDS: dict[str, Kind] = {
    "weight scaled": _on_weight(_scale),
    "weight noisy": _on_weight(_noisy),
    "weight in float16": _on_weight(_round),
    "weight NaN": _on_weight(_nan),
    "channel zeroed": _on_weight(_zero_channel),
    "channels permuted": _on_weight(_permute),
    "weight flipped": _on_weight(_flip),
    "bias removed": _on_bias(np.zeros_like),
    "bias negated": _on_bias(np.negative),
    "padding shifted": _pads_shifted(),
    "activation removed": _operator("Relu", "Identity"),
    "activation leaky": _operator("Relu", "LeakyRelu", alpha=0.1),
    "activation swapped": _activation_swapped(),
    "Gelu approximated": _erf_approximated(),
    "norm epsilon": _epsilon(),
    "softmax axis": _softmax_axis(),
    "clip bound": _clip_bound(),
    "operands swapped": _operands_swapped(),
    "operand dropped": _operand_dropped(),
    "constant wrong": _constant_wrong(),
    "quantization clips": _quantized(0.004, 0),
    "zero point wrong": _quantized(0.02, 100),
    "axes swapped": _axes_swapped(),
    "embedding rows zeroed": _row_zeroed(),
    "resize mode": _resize_mode(),
    "pool kind": _pool_kind(),
}
"""26 kinds; each fits only some nodes, and some models not at all."""
