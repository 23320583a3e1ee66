"""Which tensors of a graph may be half, and which of them must be of one type together.

A choice is made for each *unit*: an operator with all its inputs and outputs that the ONNX schema
(or onnxruntime's, for its own operators) allows in half, or a *slot* of If, Loop and Scan, where
what a branch gives, what an iteration hands to the next and what the graph outside reads are one
tensor type. What has no unit stays float32: inputs and outputs of the main graph, places that a
schema fixes to float32 (scales of Resize), tensors of unknown type, sequences.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxpress.conversion.half_schemas import half_parameters
from onnxpress.graph import RANDOM_OPERATORS, is_standard, standard_opset

__all__ = ["GAINS", "Flow", "Place", "Slot", "Unit", "flow_of"]

GAINS = frozenset(
    [
        *("Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"),
        *("GRU", "LSTM", "RNN", "FusedConv", "FusedGemm", "FusedMatMul", "MultiHeadAttention"),
        *("GroupQueryAttention", "QAttention", "MatMulNBits"),
    ]
)
"""Operators that half makes faster: they are in float32 only where they must be."""
_NOT_HALF = frozenset(
    [
        *RANDOM_OPERATORS,
        *("EyeLike", "HannWindow", "HammingWindow", "BlackmanWindow"),
        *("MelWeightMatrix", "SequenceEmpty", "ImageDecoder", "BitCast"),
        # onnxruntime's float16.DEFAULT_OP_BLOCK_LIST: no half kernels on one provider or another.
        *("TopK", "RoiAlign", "Range", "CumSum", "Min", "Max", "Upsample", "NonMaxSuppression"),
    ]
)
"""Operators whose schemas allow half and that stay in float32 all the same."""
_FLOW = ("If", "Loop", "Scan")
_SCAN_WITHOUT_BATCH_OPSET = 9


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that crosses into or out of bodies: `index` counts those of a node."""

    node: ir.Node
    index: int


Unit = ir.Node | Slot


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is read: the input of a node, or an output of a graph, by its index.

    Attributes:
        reader: node or graph.
        index: of the input or output.
        unit: whose precision it is read in; `None`: float32.
    """

    reader: ir.Node | ir.Graph
    index: int
    unit: Unit | None


@dataclass(frozen=True, slots=True)
class Flow:
    """The float32 tensors of a model, who gives and who reads them.

    Attributes:
        givers: the unit by tensor; `None`: it is float32 whatever is chosen.
        places: where each is read.
        units: all of them, in the order of the graph.
        exact: units that only serve sizes, indices and places fixed to float32.
    """

    givers: Mapping[ir.Value, Unit | None]
    places: Mapping[ir.Value, Sequence[Place]]
    units: Sequence[Unit]
    exact: frozenset[Unit]

    def beside(self, value: ir.Value) -> list[Unit]:
        """The units that give and read a tensor."""
        giver = self.givers.get(value)
        readers = [place.unit for place in self.places.get(value, ())]
        return [unit for unit in (giver, *readers) if unit is not None]


@dataclass(slots=True)
class _Survey:
    opsets: Mapping[str, int]
    givers: dict[ir.Value, Unit | None] = field(default_factory=dict)
    places: dict[ir.Value, list[Place]] = field(default_factory=dict)
    units: dict[Unit, None] = field(default_factory=dict)

    def read(self, value: ir.Value | None, place: Place) -> None:
        if value is not None and value.dtype == ir.DataType.FLOAT and _is_tensor(value):
            self.places.setdefault(value, []).append(place)
            if place.unit is not None:
                self.units[place.unit] = None

    def give(self, value: ir.Value, unit: Unit | None) -> None:
        if value.dtype == ir.DataType.FLOAT and _is_tensor(value):
            self.givers[value] = unit
            if unit is not None:
                self.units[unit] = None


def flow_of(model: ir.Model) -> Flow:
    """The flow of float32 tensors through a model, bodies included.

    Args:
        model: types are worked out; without functions; constants are initializers.
    """
    survey = _Survey({**model.opset_imports, "": standard_opset(model)})
    for value in model.graph.inputs:
        survey.give(value, None)
    _look_over(survey, model.graph, frozen=False)
    for index, value in enumerate(model.graph.outputs):
        survey.read(value, Place(model.graph, index, None))
    units = tuple(survey.units)
    return Flow(survey.givers, survey.places, units, _exact(survey, units))


def _look_over(survey: _Survey, graph: ir.Graph, *, frozen: bool) -> None:
    for node in graph:
        inner = [a.as_graph() for a in _graphs(node)]
        if inner and is_standard(node) and node.op_type in _FLOW and not frozen:
            _slots(survey, node)
            for body in inner:
                _look_over(survey, body, frozen=False)
            continue
        takes, gives = (frozenset(), frozenset()) if inner or frozen else _allowed(survey, node)
        for index, value in enumerate(node.inputs):
            survey.read(value, Place(node, index, node if index in takes else None))
        for index, value in enumerate(node.outputs):
            survey.give(value, node if index in gives else None)
        for body in inner:
            for value in body.inputs:
                survey.give(value, None)
            _look_over(survey, body, frozen=True)
            for index, value in enumerate(body.outputs):
                survey.read(value, Place(body, index, None))


def _graphs(node: ir.Node) -> list[ir.Attr]:
    return [
        value
        for value in node.attributes.values()
        if not value.is_ref() and value.type == ir.AttributeType.GRAPH
    ]


def _is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType)


_Group = tuple[list[tuple[ir.Node | ir.Graph, int]], list[ir.Value]]


def _slots(survey: _Survey, node: ir.Node) -> None:
    """The tensors that cross the edges of bodies; float32 where one of them is something else."""
    handled: set[int] = set()
    for number, (reads, gives) in enumerate(_groups(survey, node)):
        values = [value for reader, index in reads if (value := _at(reader, index)) is not None]
        floats = all(v.dtype == ir.DataType.FLOAT and _is_tensor(v) for v in (*values, *gives))
        unit = Slot(node, number) if floats and values and gives else None
        for reader, index in reads:
            survey.read(_at(reader, index), Place(reader, index, unit))
            if reader is node:
                handled.add(index)
        for value in gives:
            survey.give(value, unit)
    for index, value in enumerate(node.inputs):
        if index not in handled:
            survey.read(value, Place(node, index, None))


def _at(reader: ir.Node | ir.Graph, index: int) -> ir.Value | None:
    values = reader.inputs if isinstance(reader, ir.Node) else reader.outputs
    return values[index] if index < len(values) else None


def _groups(survey: _Survey, node: ir.Node) -> Iterator[_Group]:
    """Places and tensors that are of one type, as the operators' specifications say."""
    outputs = node.outputs
    if node.op_type == "If":
        branches = [attribute.as_graph() for attribute in _graphs(node)]
        for index, value in enumerate(outputs):
            yield [(branch, index) for branch in branches], [value]
        return
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":
        states, before, first, skipped = len(node.inputs) - 2, 2, 2, 1
        scanned = 0
    else:
        if survey.opsets[""] < _SCAN_WITHOUT_BATCH_OPSET:
            for index in range(len(body.outputs)):
                yield [(body, index)], [*outputs[index : index + 1]]
            for value in body.inputs:
                yield [], [value]
            return
        scanned = node.attributes["num_scan_inputs"].as_int()
        states, before, first, skipped = len(node.inputs) - scanned, 0, 0, 0
    for index in range(states):
        reads: list[tuple[ir.Node | ir.Graph, int]] = [(node, before + index)]
        yield (
            [*reads, (body, skipped + index)],
            [body.inputs[first + index], *outputs[index : index + 1]],
        )
    for index in range(states, states + scanned):
        yield [(node, index)], [body.inputs[index]]
    for index in range(states, len(body.outputs) - skipped):
        yield [(body, skipped + index)], [*outputs[index : index + 1]]


def _allowed(survey: _Survey, node: ir.Node) -> tuple[frozenset[int], frozenset[int]]:
    """Inputs and outputs of an operator that may be half, by index; none where it may not."""
    nothing: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    version = survey.opsets.get(node.domain, 1)
    takes, gives = half_parameters(node.domain, node.op_type, version)
    values = (*node.inputs, *node.outputs)
    known = all(v is None or (v.dtype is not None and _is_tensor(v)) for v in values)
    if not (takes or gives) or not known or node.op_type in _NOT_HALF:
        return nothing
    inputs = [_formal(takes, index) for index in range(len(node.inputs))]
    outputs = [_formal(gives, index) for index in range(len(node.outputs))]
    return (
        frozenset(index for index, half in enumerate(inputs) if half),
        frozenset(index for index, half in enumerate(outputs) if half),
    )


def _formal(allowed: tuple[bool, ...], index: int) -> bool:
    """Of a parameter; the last one of a schema may stand for many."""
    return bool(allowed) and allowed[min(index, len(allowed) - 1)]


def _exact(survey: _Survey, units: Sequence[Unit]) -> frozenset[Unit]:
    """Units all of whose readers want integers, or float32 by their schemas.

    They compute scales, sizes and positions, where 1/3 in half gives another number of pixels.
    """
    given: dict[Unit, list[ir.Value]] = {}
    for value, unit in survey.givers.items():
        if unit is not None:
            given.setdefault(unit, []).append(value)
    exact: set[Unit] = set()

    def wants_exact(place: Place) -> bool:
        if place.unit is None:
            return not isinstance(place.reader, ir.Graph) and _reads_sizes(place)
        if place.unit in exact:
            return True
        return isinstance(place.reader, ir.Node) and _to_integers(place.reader)

    for unit in reversed(units):
        if isinstance(unit, ir.Node) and unit.op_type in GAINS:
            continue
        values = given.get(unit, [])
        read = [place for value in values for place in survey.places.get(value, ())]
        if read and all(wants_exact(place) for place in read):
            exact.add(unit)
    return frozenset(exact)


def _reads_sizes(place: Place) -> bool:
    reader = place.reader
    return isinstance(reader, ir.Node) and reader.op_type in ("Resize", "Upsample", "Range")


def _to_integers(node: ir.Node) -> bool:
    output = node.outputs[0] if node.outputs else None
    return node.op_type == "Cast" and output is not None and output.dtype in _INTEGERS


_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
