"""Units that can go without any loss and without data: dead ones, and copies of another.

A unit is dead where all constants that make it are zero, or all that read it. A row of a layer
that can never be positive counts as zero where only a Relu reads it. Two units are copies where
the constants that make them are equal, or equal up to a positive factor where everything between
the makers and the readers is positively homogeneous; the readers of the one then take over the
other's weights.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import constant, is_standard
from onnxpress.layers import Layer, is_scaled_gemm
from onnxpress.passes.prune.coupling import Group
from onnxpress.passes.prune.layout import Layout
from onnxpress.spill import kept

__all__ = ["Redundancy", "find_redundant", "merge_copies"]

_MOVES = frozenset(
    ["Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Identity", "Concat"]
)
_POOLS = frozenset(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
_HOMOGENEOUS = _MOVES | _POOLS | {"Relu", "LeakyRelu", "Conv", "Gemm", "MatMul"}
_NOT_NEGATIVE = frozenset(
    ["Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Softplus", "Abs", "Sqrt"]
)
_KEEPS_SIGN = _MOVES | _POOLS | {"Add", "Mul"}
_SAME = 1e-6
"""Relative; a factor between two rows is known no better in float32."""

_CHUNK = 1_000_000
"""Numbers in double precision: all at once would take many times the weight."""
_COPIED_BYTES = 256_000_000
"""Of a group's constants, which are then put in the order of its units; it is many times faster."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Redundancy:
    """What a group holds twice or for nothing.

    Attributes:
        dead: indices of units that carry nothing.
        copies: `(unit, the one it is a copy of, factor)`.
    """

    dead: tuple[int, ...]
    copies: tuple[tuple[int, int, float], ...]

    @property
    def removed(self) -> list[int]:
        """All indices that may go."""
        return sorted({*self.dead, *(unit for unit, _, _ in self.copies)})


def find_redundant(layout: Layout, group: Group, layers: Mapping[str, Layer]) -> Redundancy:
    """What may go of a group that is not blocked.

    Args:
        layout: of the model.
        group: in it.
        layers: of the model, by name.
    """
    sizes = [layout.constants[name].const_value for name, _ in group.constants]
    copied = sum(tensor.nbytes for tensor in sizes if tensor is not None) < _COPIED_BYTES
    columns = [_columns(layout, group, name, axis, copied=copied) for name, axis in group.constants]
    making = [one.part for one in columns if not one.reads]
    reading = [one.part for one in columns if one.reads]
    chunks = _chunks(len(group.units), columns)
    names = {name for name, _ in group.constants}
    # Whether the constants that read the units are all there is to know of how they are used.
    weighted = not (
        layout.summed_unweighted(group)
        or layout.runs_on_all(group)
        or any(layers[name].unsafe or len(layers[name].uses) > 1 for name in names & layers.keys())
    )
    zero = layout.arrives_as_zero(group)
    never = _never_positive(layout, group, layers) if zero else set()
    idle = np.zeros(len(group.units), bool)
    idle[sorted(never)] = True
    for some in chunks:
        if zero:
            idle[some] |= ~_any(making, some)
        if weighted and reading:
            idle[some] |= ~_any(reading, some)
    dead = np.flatnonzero(idle).tolist()
    if len(dead) == len(group.units):
        dead = dead[1:]
    copies: list[tuple[int, int, float]] = []
    if weighted and reading:
        scaled = _is_homogeneous(layout, group)
        first: dict[bytes, tuple[int, float]] = {}
        gone = set(dead)
        for some in chunks:
            made = np.concatenate([part(some) for part in making], axis=1)
            norms = np.linalg.norm(made, axis=1) if scaled else np.ones(len(made))
            # Of dead ones it may be 0.
            divisors = np.where(norms > 0, norms, 1.0)[:, None]
            keys = (np.round(made / divisors / _SAME) if scaled else made) + 0.0
            for unit, key, norm in zip(range(some.start, some.stop), keys, norms, strict=True):
                if unit in gone:
                    continue
                digest = hashlib.blake2b(np.ascontiguousarray(key).data, digest_size=16).digest()
                place, other = first.setdefault(digest, (unit, float(norm)))
                if place != unit:
                    copies.append((unit, place, float(norm) / other))
    return Redundancy(tuple(dead), tuple(copies))


@dataclass(frozen=True)
class _Columns:
    """A constant along the axis of a group's units.

    Attributes:
        part: `[units, numbers of each]` of some units in turn, in double precision.
        reads: whether the constant reads the units.
        numbers: of each unit; 0: units have different numbers, and are asked for one at a time.
    """

    part: Callable[[slice], Float64]
    reads: bool
    numbers: int


def _chunks(units: int, columns: Sequence[_Columns]) -> list[slice]:
    """As many units at a time as take few bytes in double precision."""
    numbers = [one.numbers for one in columns]
    step = max(1, _CHUNK // max(sum(numbers), 1)) if all(numbers) else 1
    return [slice(start, min(start + step, units)) for start in range(0, units, step)]


def _any(parts: Sequence[Callable[[slice], Float64]], some: slice) -> npt.NDArray[np.bool_]:
    """Whether any of some units' numbers is not zero; none is where there are no constants."""
    found = np.zeros(some.stop - some.start, bool)
    for part in parts:
        found |= part(some).any(axis=1)
    return found


def _columns(layout: Layout, group: Group, name: str, axis: int, *, copied: bool) -> _Columns:
    """Of a constant; with `copied` in the order of the units, which is many times faster."""
    value = layout.constants[name]
    assert value.const_value is not None
    array = np.moveaxis(value.const_value.numpy(), axis, 0)
    if copied:
        array = np.ascontiguousarray(array)
    roots = layout.roots(value, axis)
    order = np.argsort(roots, kind="stable")
    units = np.asarray(group.units)
    starts = np.searchsorted(roots[order], units, "left")
    ends = np.searchsorted(roots[order], units, "right")

    counts = set((ends - starts).tolist())
    alike = counts.pop() if len(counts) == 1 else 0

    def part(some: slice) -> Float64:
        if alike:
            places = order[starts[some][:, None] + np.arange(alike)]
        else:
            places = order[starts[some][0] : ends[some][0]][None]
        own = array[places]
        return own.reshape(len(places), -1).astype(np.float64)

    return _Columns(part, layout.reads(value, axis), alike * math.prod(array.shape[1:]))


def merge_copies(
    layout: Layout, group: Group, redundancy: Redundancy, constants: Mapping[str, ir.Value]
) -> None:
    """Let the readers of a unit take over the weights of its copies, in place.

    Args:
        layout: of the model before.
        group: in it.
        redundancy: of the group.
        constants: of the model to change, by name.
    """
    for name, axis in group.constants:
        known = layout.constants[name]
        if not layout.reads(known, axis):
            continue
        roots = layout.roots(known, axis)
        value = constants[name]
        assert value.const_value is not None
        stored = value.const_value.numpy()
        array = np.moveaxis(np.array(stored, np.float64), axis, 0)
        for unit, other, factor in redundancy.copies:
            gone, left = roots == group.units[unit], roots == group.units[other]
            array[left] += factor * array[gone]
            # Gone already, for whoever solves for this layer on the inputs before.
            array[gone] = 0
        array = np.ascontiguousarray(np.moveaxis(array, 0, axis).astype(stored.dtype))
        tensor = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)
        value.const_value = tensor if value.graph is None else kept(value.graph, tensor)


def _never_positive(layout: Layout, group: Group, layers: Mapping[str, Layer]) -> set[int]:
    """Units whose only maker is read by a Relu alone and cannot give it more than zero."""
    makers = layout.makers(group)
    if len(makers) != 1:
        return set()
    layer = layers[makers[0]]
    users = [user for user, _ in layer.node.outputs[0].uses()]
    plain = layer.op_type in ("Conv", "Gemm") and len(layer.uses) == 1
    plain = plain and layer.unsafe is None and not is_scaled_gemm(layer.node)
    if not plain or len(users) != 1 or users[0].op_type != "Relu" or not is_standard(users[0]):
        return set()
    if layer.node.outputs[0].is_graph_output():
        return set()
    weights = layer.read()
    bias_value = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
    own = {layer.name, None if bias_value is None else bias_value.name}
    made = {
        name for name, axis in group.constants if not layout.reads(layout.constants[name], axis)
    }
    if not made <= own:
        # What something else makes of the zero is not known to be zero.
        return set()
    bias = constant(bias_value)
    if bias_value is not None and (bias is None or bias.size != len(weights)):
        return set()
    offset = np.zeros(len(weights)) if bias is None else bias.reshape(-1).astype(np.float64)
    signed = not _not_negative(layer.node.inputs[0], set())
    largest = np.abs(weights).max(axis=1) if signed else weights.max(axis=1)
    silent = (largest <= 0) & (offset <= 0)
    outputs = layout.sides[layer.name].outputs
    return {index for index, unit in enumerate(group.units) if silent[outputs == unit].all()}


def _not_negative(value: ir.Value | None, seen: set[ir.Value]) -> bool:
    """Whether a tensor holds no negative number, by the operators that make it."""
    if value is None or value in seen:
        return False
    array = constant(value)
    if array is not None:
        return array.dtype.kind == "f" and bool((array.astype(np.float64) >= 0).all())
    node = value.producer()
    if node is None or not is_standard(node):
        return False
    if node.op_type in _NOT_NEGATIVE:
        return True
    inputs = node.inputs if node.op_type in ("Add", "Mul", "Concat") else node.inputs[:1]
    return node.op_type in _KEEPS_SIGN and all(_not_negative(v, seen | {value}) for v in inputs)


def _is_homogeneous(layout: Layout, group: Group) -> bool:
    """Whether a positive factor on a unit passes from its makers to its readers."""
    nodes = {user for value in layout.carriers(group) for user, _ in value.uses()}
    if any(node.op_type not in _HOMOGENEOUS or not is_standard(node) for node in nodes):
        return False
    for node in nodes:
        # Two activations make a square of the factor.
        if node.op_type == "MatMul" and all(constant(value) is None for value in node.inputs):
            return False
    makers = layout.makers(group)
    # A layer between that neither makes nor reads (depthwise) would count its constants twice,
    # and a bias that is one number for all does not follow the factor.
    return len(makers) == 1 and layout.arrives_as_zero(group)
