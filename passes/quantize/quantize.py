"""The pass itself: candidates by predicted noise, and the rewrite to QDQ or integer weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.errors import UsageError
from onnxpress.graph import (
    Layer,
    add_initializer,
    constant,
    is_standard,
    output_channel_axis,
    to_matrix,
    unique_name,
)
from onnxpress.opset import standard_opset
from onnxpress.passes.quantize.placement import (
    WITHOUT_WEIGHTS,
    fused_output,
    input_of,
    operator_inputs,
    scale_source,
    static_refusal,
)
from onnxpress.passes.quantize.ranges import ActivationRange, choose_range
from onnxpress.passes.quantize.weights import QuantizedWeight, quantize_weight
from onnxpress.plan import Candidate, Context, Decision, Parameter, Pass, Proposal, Skip, Stage
from onnxpress.reconstruction import output_energy, relative_error
from onnxpress.statistics import LayerStatistics, Observations

__all__ = ["Quantize"]

Parameters = Mapping[str, Parameter]

_NODE_BYTES = 160
_BIAS_LIMIT = 2.0**30


@dataclass(frozen=True)
class Quantize(Pass):
    """Eight-bit integers for weights, and for activations where that pays."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.NUMBER_FORM
    minimum_opset: ClassVar[int] = 13

    form: str = field(
        default="auto",
        metadata={
            "help": "static (integer kernels, needs calibration data), weight_only, or auto: "
            "static where possible."
        },
    )

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.form not in ("auto", "static", "weight_only"):
            raise UsageError(
                f"quantize: form is {self.form!r}; expected auto, static or weight_only"
            )

    def observes(self, context: Context) -> Observations:
        """Inputs and outputs of all layers that have an integer kernel, and Gram matrices."""
        if self.form == "weight_only":
            return Observations()
        tensors: set[str] = set()
        layers: set[str] = set()
        for layer in context.layers:
            if static_refusal(layer, context.target.quantized_operators) is None:
                layers.add(layer.name)
                for value in (input_of(layer), fused_output(layer.node)):
                    tensors.add(scale_source(value, _keepers(context)).name or "")
        for node in _operators(context):
            tensors.add(scale_source(fused_output(node), _keepers(context)).name or "")
        return Observations(frozenset(tensors), frozenset(layers), gram=True)

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Static and weight-only candidates for layers; static ones for operators between."""
        proposals: list[Proposal | Skip] = []
        for layer in context.layers:
            reason = layer.unsafe
            if reason is None and not np.isfinite(layer.read()).all():
                reason = "its weight holds NaN or infinity"
            if reason is not None:
                proposals.append(Skip(layer.name, reason))
                continue
            candidates: list[Candidate] = []
            limit: str | None = None
            if self.form != "weight_only":
                static, limit = self._static(context, layer)
                candidates += [static] if static is not None else []
            if self.form != "static":
                weight_only = _weight_only(context, layer)
                candidates += [weight_only] if weight_only is not None else []
            if candidates:
                proposals.append(Proposal(layer.name, tuple(candidates), limit))
            else:
                proposals.append(
                    Skip(layer.name, limit or "too small: its scales would take what is saved")
                )
        if self.form != "weight_only":
            proposals += self._between(context)
        return proposals

    def _static(self, context: Context, layer: Layer) -> tuple[Candidate | None, str | None]:
        reason = static_refusal(layer, context.target.quantized_operators)
        if reason is None and standard_opset(context.model) < context.target.minimum_opset:
            reason = f"opset {standard_opset(context.model)} has no per-channel QDQ"
        if reason is None and context.statistics is None:
            reason = "without calibration data the ranges of its activations are unknown"
        if reason is not None:
            return None, reason
        source = _range(context, input_of(layer))
        result = _range(context, fused_output(layer.node))
        if source is None or result is None:
            return None, "its activations were not observed, or are not finite"
        moments = _moments(context, layer)
        if moments is None or moments.rows == 0 or not moments.absolute_maximum.any():
            return None, "the calibration data never exercises it: its inputs are all zero"
        matrix = layer.read()
        weight = _integers(context, layer, source.scale)
        delta = _matrix(layer, weight.dequantize()) - matrix
        energy = output_energy(matrix, moments.gram, moments.second_moment)
        noise = source.noise * float(np.square(matrix, dtype=np.float64).sum())
        error = relative_error(delta, matrix, moments.gram, moments.second_moment)
        error += noise / energy if energy > 0 else 0.0
        if layer.op_type == "Conv":
            error += result.error
        parameters: dict[str, Parameter] = {"form": "static"}
        parameters |= _named("input", source) | _named("output", result)
        return Candidate(parameters, error, _saved(layer, weight)), None

    def _between(self, context: Context) -> list[Proposal | Skip]:
        if context.statistics is None or (
            standard_opset(context.model) < context.target.minimum_opset
        ):
            return []
        proposals: list[Proposal | Skip] = []
        for node in _operators(context):
            result = _range(context, fused_output(node))
            if result is not None:
                parameters: dict[str, Parameter] = {"form": "static"}
                parameters |= _named("output", result)
                candidate = Candidate(parameters, result.error, carried=True)
                proposals.append(Proposal(node.name or "", (candidate,)))
        return proposals

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Write integer weights and QDQ pairs as decided; activations need no statistics."""
        nodes = {node.name: node for node in _operators(context)}
        static = {
            decision.site: decision.candidate.parameters
            for decision in decisions
            if decision.candidate.parameters["form"] == "static"
        }
        pairs = _Pairs(context)
        layers = [context.layer(site) for site in static if site not in nodes]
        for layer in layers:
            pairs.want_input(layer, static[layer.name])
            if layer.op_type == "Conv":
                pairs.want_output(layer.node, static[layer.name])
        for node in context.model.graph:
            if node.name in static and node.name in nodes:
                pairs.join(node, static[node.name])
        pairs.fill_outputs(layers)
        for layer in layers:
            _write_static(context, layer, float(static[layer.name]["input_scale"]))
        pairs.insert()
        for decision in decisions:
            if decision.candidate.parameters["form"] == "weight_only":
                _write_weight_only(context.layer(decision.site))


def _keepers(context: Context) -> dict[str, ir.Node]:
    return {node.name or "": node for node in _operators(context)}


def _operators(context: Context) -> list[ir.Node]:
    """Operators without weights that have an integer kernel and read only activations."""
    return [
        node
        for node in context.model.graph
        if is_standard(node)
        and node.name
        and node.op_type in WITHOUT_WEIGHTS
        and node.op_type in context.target.quantized_operators
        and operator_inputs(node) is not None
        and node.outputs[0].dtype == ir.DataType.FLOAT
    ]


def _range(context: Context, value: ir.Value) -> ActivationRange | None:
    assert context.statistics is not None
    source = scale_source(value, _keepers(context))
    found = context.statistics.tensors.get(source.name or "")
    if found is None or found.minimum > found.maximum:
        return None
    return choose_range(found, signed=context.target.activation_type == "int8")


def _named(which: str, found: ActivationRange) -> dict[str, Parameter]:
    return {f"{which}_scale": found.scale, f"{which}_zero_point": found.zero_point}


def _moments(context: Context, layer: Layer) -> LayerStatistics | None:
    return None if context.statistics is None else context.statistics.layers.get(layer.name)


def _matrix(layer: Layer, array: npt.NDArray[np.float64]) -> npt.NDArray[np.floating]:
    """An array of the weight's shape as `[out, in]`."""
    return to_matrix(array, layer.uses[0], layer.groups)


def _bias(layer: Layer) -> npt.NDArray[np.float64] | None:
    inputs = layer.node.inputs
    values = constant(inputs[2]) if len(inputs) > 2 else None
    if values is None:
        return None
    outputs = layer.read().shape[0]
    return np.broadcast_to(np.asarray(values, np.float64).reshape(-1), (outputs,))


def _integers(context: Context, layer: Layer, input_scale: float) -> QuantizedWeight:
    """The weight for an integer kernel, its scales large enough for an int32 bias."""
    target = context.target
    bias = _bias(layer)
    least: npt.NDArray[np.float64] | float = 0.0
    if bias is not None:
        least = np.abs(bias) / (input_scale * _BIAS_LIMIT)
        if not target.per_channel:
            least = float(least.max())
    assert layer.weight.const_value is not None
    return quantize_weight(
        layer.weight.const_value.numpy(),
        output_channel_axis(layer) if target.per_channel else None,
        bits=target.weight_bits,
        unsigned=target.weight_type == "uint8",
        least_scales=least,
    )


def _weight_only_integers(layer: Layer) -> QuantizedWeight:
    assert layer.weight.const_value is not None
    # An embedding's rows are words of very different norms: a scale each.
    axis = 0 if layer.op_type == "Gather" else output_channel_axis(layer)
    return quantize_weight(layer.weight.const_value.numpy(), 0 if axis is None else axis)


def _saved(layer: Layer, weight: QuantizedWeight) -> int:
    return layer.nbytes - weight.values.nbytes - weight.scales.nbytes - _NODE_BYTES


def _weight_only(context: Context, layer: Layer) -> Candidate | None:
    weight = _weight_only_integers(layer)
    saved = _saved(layer, weight)
    if saved <= 0:
        return None
    moments = _moments(context, layer)
    matrix = layer.read()
    error = relative_error(
        _matrix(layer, weight.dequantize()) - matrix,
        matrix,
        None if moments is None else moments.gram,
        None if moments is None else moments.second_moment,
    )
    return Candidate({"form": "weight_only"}, error, saved, neutral=True)


def _write_static(context: Context, layer: Layer, input_scale: float) -> None:
    graph, node = layer.graph, layer.node
    weight = _integers(context, layer, input_scale)
    scales = weight.scales if weight.axis is not None else weight.scales.reshape(())
    bias = _bias(layer)
    node.replace_input_with(
        layer.uses[0].index,
        _dequantize(context, layer.name, weight.values, scales, weight.zero_point, weight.axis),
    )
    if bias is not None:
        bias_scales = (np.float32(input_scale) * scales).astype(np.float32)
        bias_scales = np.maximum(bias_scales, np.finfo(np.float32).tiny)
        integers = np.clip(
            np.round(bias / bias_scales.astype(np.float64)), -(2.0**31), 2.0**31 - 1
        ).astype(np.int32)
        old = node.inputs[2]
        assert old is not None
        axis = 0 if bias_scales.ndim else None
        name = unique_name(graph, f"{old.name}_int32")
        node.replace_input_with(2, _dequantize(context, name, integers, bias_scales, 0, axis))
        _drop(old)
    _drop(layer.weight)


def _drop(value: ir.Value) -> None:
    if not value.uses() and value.graph is not None and not value.is_graph_output():
        del value.graph.initializers[value.name or ""]


def _dequantize(
    context: Context,
    stem: str,
    values: npt.NDArray[np.generic],
    scales: npt.NDArray[np.float32],
    zero_point: int,
    axis: int | None,
) -> ir.Value:
    """Integers behind DequantizeLinear, as the first nodes of the graph."""
    graph = context.model.graph
    inputs = [
        add_initializer(graph, f"{stem}_quantized", values),
        add_initializer(graph, f"{stem}_scale", scales),
    ]
    zeros = np.full(scales.shape, zero_point, values.dtype)
    inputs.append(add_initializer(graph, f"{stem}_zero_point", zeros))
    attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
    node = ir.Node("", "DequantizeLinear", inputs, attributes, name=f"{stem}_DequantizeLinear")
    output = node.outputs[0]
    output.name = unique_name(graph, f"{stem}_dequantized")
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(values.shape)
    _prepend(graph, [node])
    return output


def _prepend(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _write_weight_only(layer: Layer) -> None:
    graph = layer.graph
    weight = _weight_only_integers(layer)
    stored = layer.weight.const_value
    assert stored is not None
    scales = weight.broadcast_scales().astype(stored.numpy().dtype)
    integers = add_initializer(graph, f"{layer.name}_quantized", weight.values)
    factor = add_initializer(graph, f"{layer.name}_scale", scales, layer.dtype)
    cast = ir.Node(
        "",
        "Cast",
        [integers],
        [ir.AttrInt64("to", int(layer.dtype))],
        name=f"{layer.name}_Cast",
    )
    cast.outputs[0].name = unique_name(graph, f"{layer.name}_cast")
    scaled = ir.Node("", "Mul", [cast.outputs[0], factor], name=f"{layer.name}_Mul")
    for node in (cast, scaled):
        node.outputs[0].type = ir.TensorType(layer.dtype)
        node.outputs[0].shape = ir.Shape(layer.shape)
    _prepend(graph, [cast, scaled])
    ir.convenience.replace_all_uses_with(layer.weight, scaled.outputs[0])
    del graph.initializers[layer.name]
    scaled.outputs[0].name = layer.name


class _Pairs:
    """The QDQ pairs of a rewrite: gathered first, then inserted, one per tensor."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keepers = _keepers(context)
        self._ranges: dict[ir.Value, tuple[float, int]] = {}
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        self._integer: set[ir.Value] = set()

    def want_input(self, layer: Layer, parameters: Parameters) -> None:
        """The layer reads its input through a pair."""
        value = input_of(layer)
        self._ranges[value] = _scale(parameters, "input")
        self._readers.setdefault(value, []).append(layer.node)

    def want_output(self, node: ir.Node, parameters: Parameters) -> None:
        """Everyone reads the node's output, behind a fused activation, through a pair."""
        value = fused_output(node)
        self._ranges[value] = _scale(parameters, "output")
        self._integer.add(value)

    def join(self, node: ir.Node, parameters: Parameters) -> None:
        """An operator without weights computes in integers if all it reads is in integers."""
        inputs = operator_inputs(node)
        if inputs is not None and all(value in self._integer for value in inputs):
            self.want_output(node, parameters)

    def fill_outputs(self, layers: list[Layer]) -> None:
        """Gemm and MatMul outputs that an integer kernel reads are integers themselves."""
        for layer in layers:
            output = fused_output(layer.node)
            if layer.op_type != "Conv" and output in self._readers:
                self._integer.add(output)

    def insert(self) -> None:
        """Put every pair into the graph."""
        graph = self._context.model.graph
        for value, (scale, zero_point) in self._ranges.items():
            self._insert(graph, value, scale, zero_point)

    def _insert(self, graph: ir.Graph, value: ir.Value, scale: float, zero_point: int) -> None:
        signed = self._context.target.activation_type == "int8"
        kind = np.int8 if signed else np.uint8
        stem = value.name or "tensor"
        factor = add_initializer(graph, f"{stem}_scale", np.asarray(scale, np.float32))
        zero = add_initializer(graph, f"{stem}_zero_point", np.asarray(zero_point, kind))
        is_output = value.is_graph_output()
        # Of a tensor computed in float only integer kernels read the rounded form.
        everyone = value in self._integer
        users = [usage for usage in value.uses() if everyone or usage.node in self._readers[value]]
        quantize = ir.Node("", "QuantizeLinear", [value, factor, zero])
        quantize.name = f"{stem}_QuantizeLinear"
        dequantize = ir.Node("", "DequantizeLinear", [quantize.outputs[0], factor, zero])
        dequantize.name = f"{stem}_DequantizeLinear"
        quantize.outputs[0].name = unique_name(graph, f"{stem}_quantized")
        quantize.outputs[0].type = ir.TensorType(ir.DataType.INT8 if signed else ir.DataType.UINT8)
        quantize.outputs[0].shape = value.shape
        result = dequantize.outputs[0]
        result.name = unique_name(graph, f"{stem}_dequantized")
        result.type, result.shape = value.type, value.shape
        producer = value.producer()
        if producer is None or producer.graph is not graph:
            _prepend(graph, [quantize, dequantize])
        else:
            graph.insert_after(producer, [quantize, dequantize])
        for node, index in users:
            node.replace_input_with(index, result)
        if is_output and everyone:
            self._rename_output(graph, value, result)

    def _rename_output(self, graph: ir.Graph, value: ir.Value, result: ir.Value) -> None:
        name = value.name or ""
        value.name = unique_name(graph, f"{name}_float")
        result.name = name
        for place, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[place] = result


def _scale(parameters: Parameters, which: str) -> tuple[float, int]:
    return float(parameters[f"{which}_scale"]), int(parameters[f"{which}_zero_point"])
