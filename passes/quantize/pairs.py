"""QDQ pairs around what computes in integers, of 8 bits or of 16, both in one model.

An operator computes with activations of one width. Layers that were chosen for 16 bits make those
wide that give them what they read: an input that was rounded to 8 bits before would gain nothing.
Operators without weights are wide where everything they read is. Where a tensor of the other width
is read, a second pair stands behind the first (DequantizeLinear → QuantizeLinear is the conversion
in onnxruntime's mixed precision, and one operator on Qualcomm's HTP); a tensor computed in float
gets a pair for each width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.contract import Context, Parameter
from onnxpress.graph import add_initializer, insert_behind, standard_opset
from onnxpress.layers import Layer
from onnxpress.passes.quantize.activations import (
    integer_operators,
    integer_type,
    regridded,
    widened,
)
from onnxpress.passes.quantize.equalizing import Smoothed
from onnxpress.passes.quantize.qdq_rules import (
    KEEPS_SCALE,
    fused_output,
    input_of,
    operator_inputs,
    rounds_output,
)

__all__ = ["SIXTEEN_BIT_OPSET", "Pairs"]

Parameters = Mapping[str, Parameter]
Range = tuple[float, int]
"""Scale and zero point."""

SIXTEEN_BIT_OPSET = 21
_COPIES = KEEPS_SCALE | {"Concat"}


class Pairs:
    """The QDQ pairs of a rewrite: gathered first, then inserted, one per tensor and width."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keepers = integer_operators(context)
        self._ranges: dict[ir.Value, dict[bool, Range]] = {}
        self._readers: dict[ir.Value, list[ir.Node]] = {}
        self._integer: dict[ir.Value, ir.Node] = {}
        self._wide: set[ir.Node] = set()
        self._smoothed: dict[ir.Value, ir.Value] = {}

    def want_input(self, layer: Layer, parameters: Parameters, *, wide: bool) -> None:
        """The layer reads its input through a pair."""
        value = input_of(layer)
        self._ranges.setdefault(value, {})[wide] = _range(parameters, "input")
        self._readers.setdefault(value, []).append(layer.node)
        if wide:
            self._wide.add(layer.node)

    def want_output(self, node: ir.Node, parameters: Parameters, *, wide: bool) -> None:
        """Everyone reads the node's output, behind a fused activation, through a pair."""
        value = fused_output(node)
        # Who reads it may want another range than its own: less was absorbed into a bias.
        found = self._ranges.setdefault(value, {})
        found.setdefault(wide, _range(parameters, "output"))
        if "other_output_scale" in parameters:
            found.setdefault(not wide, _range(parameters, "other_output"))
        self._integer[value] = node

    def join(self, node: ir.Node, parameters: Parameters) -> None:
        """An operator without weights computes in integers if all it reads is in integers."""
        inputs = operator_inputs(node)
        if inputs is not None and all(value in self._integer for value in inputs):
            self.want_output(node, parameters, wide=False)
            for value in inputs:
                self._readers.setdefault(value, []).append(node)

    def fill_outputs(self, layers: Sequence[Layer], chosen: Mapping[str, Parameters]) -> None:
        """Gemm and MatMul outputs that an integer kernel reads are integers themselves."""
        for layer in layers:
            if not rounds_output(layer) and fused_output(layer.node) in self._readers:
                wide = layer.node in self._wide
                self.want_output(layer.node, chosen[layer.name], wide=wide)

    def widen(self, smoothed: Sequence[Smoothed]) -> None:
        """Settle who computes in 16 bits; `smoothed`: divisions between tensors and layers."""
        self._smoothed = before = {found.node.outputs[0]: found.value for found in smoothed}
        reads = {node: value for value, nodes in self._readers.items() for node in nodes}
        waiting = [reads[node] for node in self._wide]
        while waiting:
            value = waiting.pop()
            node = self._integer.get(before.get(value, value))
            if node is None or node in self._wide:
                continue
            self._wide.add(node)
            if node.op_type in _COPIES:
                waiting += operator_inputs(node) or ()
        for node in self._keepers.values():
            if fused_output(node) in self._integer:
                inputs = operator_inputs(node) or ()
                if all(self._integer[value] in self._wide for value in inputs):
                    self._wide.add(node)

    def input_scale(self, layer: Layer) -> float:
        """Of the pair through which the layer reads."""
        return self._range(input_of(layer), wide=layer.node in self._wide)[0]

    @property
    def tensors(self) -> frozenset[ir.Value]:
        """All that get a pair."""
        return frozenset(self._ranges)

    def move(self, moved: Mapping[ir.Value, ir.Value]) -> None:
        """Pairs of tensors that are gone go to those in their place, with their ranges."""
        for old, new in moved.items():
            if old not in self._ranges:
                continue
            self._ranges[new] = self._ranges.pop(old)
            self._readers.setdefault(new, []).extend(self._readers.pop(old, []))

    def insert(self) -> None:
        """Put every pair into the graph."""
        for value in self._ranges:
            if self._context.idle and self._is_idle(value):
                continue
            producer = self._integer.get(value)
            readers = self._readers.get(value, [])
            if producer is None:
                # Of a tensor computed in float only integer kernels read the rounded form.
                for wide in sorted({node in self._wide for node in readers}):
                    own = {node for node in readers if (node in self._wide) is wide}
                    users = [usage for usage in value.uses() if usage.node in own]
                    _drop_idle(self._insert(value, value, users, wide=wide))
                continue
            native = producer in self._wide
            others = {node for node in readers if (node in self._wide) is not native}
            is_output = value.is_graph_output()
            uses = list(value.uses())
            first = self._insert(value, value, uses, wide=native)
            users = [usage for usage in uses if usage.node in others]
            if users:
                _drop_idle(self._insert(value, first, users, wide=not native))
            if is_output:
                self._replace_output(value, first)
            _drop_idle(first)

    def _is_idle(self, value: ir.Value) -> bool:
        """Whether nothing that reads it is computed, nor it, unless that is new."""
        idle = self._context.idle
        around = [output for node, _ in value.uses() for output in node.outputs]
        own = () if value in self._smoothed else (value,)
        return all(one.name in idle for one in (*own, *around))

    def _range(self, value: ir.Value, *, wide: bool) -> Range:
        """As wanted, or the range of the other width."""
        found = self._ranges[value]
        if wide in found:
            return found[wide]
        signed, _ = integer_type(self._context)
        return regridded(*found[not wide], signed=signed, finer=wide)

    def _insert(
        self, value: ir.Value, behind: ir.Value, users: Sequence[tuple[ir.Node, int]], *, wide: bool
    ) -> ir.Value:
        """A pair for some uses of a tensor; what it gives in the tensor's own graph.

        QuantizeLinear stands where the tensor is, DequantizeLinear in each graph that computes with
        it: so a tensor that a body reads is quantized once, outside, and the runtime sees the other
        half of the pair in the graph of the operator.

        Args:
            value: the tensor.
            behind: itself, or what its first pair gives.
            users: that read the new pair.
            wide: of 16 bits where the others have 8.
        """
        graph = self._context.model.graph
        target = (widened(self._context) if wide else self._context).target
        kind = np.dtype(target.activation_type)
        # Sixteen bits came to ONNX's own operators with opset 21, to onnxruntime's before.
        domain = ""
        if kind.itemsize > 1 and standard_opset(self._context.model) < SIXTEEN_BIT_OPSET:
            domain = "com.microsoft"
            graph.opset_imports.setdefault(domain, 1)
        stem = f"{value.name or 'tensor'}{'_wide' if wide else ''}"
        scale, zero_point = self._range(value, wide=wide)
        factor = add_initializer(
            self._context.names, graph, f"{stem}_scale", np.asarray(scale, np.float32)
        )
        zero = add_initializer(
            self._context.names, graph, f"{stem}_zero_point", np.asarray(zero_point, kind)
        )
        quantize = ir.Node(domain, "QuantizeLinear", [behind, factor, zero])
        quantize.name = f"{stem}_QuantizeLinear"
        quantize.outputs[0].name = self._context.names.free(f"{stem}_quantized")
        quantize.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(kind))
        quantize.outputs[0].shape = value.shape
        home = value.graph if value.graph is not None else graph
        insert_behind(home, behind, [quantize])
        computing = {node for nodes in self._readers.values() for node in nodes}
        places = dict.fromkeys([home, *(node.graph for node, _ in users if node in computing)])
        results = {place: self._dequantized(quantize, value, stem, place) for place in places}
        for node, index in users:
            node.replace_input_with(index, results.get(node.graph, results[home]))
        return results[home]

    def _dequantized(
        self, quantize: ir.Node, value: ir.Value, stem: str, place: object
    ) -> ir.Value:
        inputs = [quantize.outputs[0], *quantize.inputs[1:]]
        node = ir.Node(quantize.domain, "DequantizeLinear", inputs)
        result = node.outputs[0]
        result.name = self._context.names.free(f"{stem}_dequantized")
        result.type, result.shape = value.type, value.shape
        node.name = f"{result.name.removesuffix('_dequantized')}_DequantizeLinear"
        assert isinstance(place, ir.Graph)
        insert_behind(place, quantize.outputs[0], [node])
        return result

    def _replace_output(self, value: ir.Value, result: ir.Value) -> None:
        graph = self._context.model.graph
        home = value.graph if value.graph is not None else graph
        if home is graph:
            name = value.name or ""
            value.name = self._context.names.free(f"{name}_float")
            result.name = name
        for place, output in enumerate(home.outputs):
            if output is value:
                home.outputs[place] = result


def _drop_idle(result: ir.Value) -> None:
    """Remove the half of a pair that only bodies read, which have their own."""
    node = result.producer()
    if node is not None and not result.uses() and not result.is_graph_output():
        assert isinstance(node.graph, ir.Graph)
        node.graph.remove(node, safe=True)


def _range(parameters: Parameters, which: str) -> Range:
    return float(parameters[f"{which}_scale"]), int(parameters[f"{which}_zero_point"])
