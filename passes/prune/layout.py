"""What a model's groups mean for its layers: who makes the units and who reads them."""

import collections
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.layers import Layer, output_channel_axis
from onnxpress.passes.prune.coupling import Atoms, Dynamic, Group, fixed
from onnxpress.passes.prune.operators import analyse
from onnxpress.passes.prune.reader import Reader
from onnxpress.recurrent import INPUT_WEIGHT, RECURRENT

__all__ = ["Layout", "Side"]


@dataclass(frozen=True)
class Side:
    """A layer's axes, in units.

    Attributes:
        inputs: `[in]` the unit of every column of the layer's matrix, −1: stays.
        outputs: `[out]` the unit of every row.
    """

    inputs: Atoms
    outputs: Atoms

    def share(self, gone: npt.NDArray[np.bool_]) -> float:
        """Of the layer's multiply-adds, what is left without some units (`Layout.marked`)."""
        left = [1 - gone[axis].mean() for axis in (self.inputs, self.outputs)]
        return float(left[0] * left[1])


class Layout:
    """Groups and layers of one model."""

    def __init__(self, model: ir.Model, layers: Collection[Layer]) -> None:
        self.reader: Reader = analyse(model)
        coupling = self.reader.coupling
        produced = {layer.weight: _out_axis(layer) for layer in layers}
        rest = {value: -1 for value in coupling.constants if value not in produced}
        self.constants: dict[str, ir.Value] = {v.name or "": v for v in coupling.constants}
        self._read_axes = {layer.weight: _in_axis(layer) for layer in layers}
        self._read_axes |= {
            value: 2
            for value in coupling.constants
            for node, index in value.uses()
            if node.op_type in RECURRENT and index == INPUT_WEIGHT
        }
        counts = collections.Counter(value.name for value in coupling.constants)
        shared = {name for name, count in counts.items() if count > 1}
        self.sides: dict[str, Side] = {layer.name: self._side(layer) for layer in layers}
        otherwise = [layer for layer in layers if layer.other_uses]
        self.groups: Mapping[str, Group] = {
            group.name: self._unless_unpredictable(_unless_shared(group, shared), otherwise)
            for group in coupling.groups({**produced, **rest})
        }
        self._names = list(self.groups)

    def _side(self, layer: Layer) -> Side:
        axes = self.reader.axes(layer.weight)
        matrix = layer.read().shape
        nothing = Side(fixed(matrix[1]), fixed(matrix[0]))
        if axes is None:
            return nothing
        roots = [
            fixed(size) if isinstance(axis, Dynamic) else self.reader.coupling.roots(axis)
            for size, axis in zip(layer.shape, axes, strict=True)
        ]
        kernel = int(np.prod(layer.shape[2:]))
        if layer.op_type == "Conv":
            return Side(np.repeat(roots[1], kernel), roots[0])
        if layer.op_type == "ConvTranspose":
            if layer.groups > 1 and matrix[1] == 1:
                # Depthwise: its rows are what it reads, and it makes nothing new of them.
                return Side(fixed(1), np.repeat(roots[0], matrix[0] // layer.groups))
            inputs = roots[0][: matrix[1]]
            return Side(inputs, np.tile(np.repeat(roots[1], kernel), layer.groups))
        if layer.op_type in ("Gemm", "MatMul") and len(layer.shape) == 2:
            out = _out_axis(layer)
            return Side(roots[1 - out], roots[out])
        if layer.op_type == "Gather":
            return Side(roots[0], roots[1])
        if layer.op_type in RECURRENT:
            # Rows of direction after direction, in each of gate after gate.
            return Side(roots[2], np.tile(roots[1], layer.groups))
        return nothing

    def _unless_unpredictable(self, group: Group, layers: Collection[Layer]) -> Group:
        """Blocked where it meets layers whose weight is read in another way too, unobserved.

        A tied embedding is one: the last layer reads its table through a Transpose.
        """
        units = np.asarray(group.units)
        for layer in layers:
            axes = (self.sides[layer.name].inputs, self.sides[layer.name].outputs)
            if any(np.isin(axis, units).any() for axis in axes):
                return replace(group, blocked=group.blocked or f"{layer.name}: {layer.unsafe}")
        return group

    @functools.cached_property
    def _group_of_unit(self) -> Atoms:
        """The number of the group of each unit; −1: none."""
        units = [unit for group in self.groups.values() for unit in group.units]
        found = np.full(1 + max(units, default=0), -1, np.int64)
        for number, group in enumerate(self.groups.values()):
            found[np.asarray(group.units)] = number
        return found

    def _groups_of(self, axis: Atoms) -> list[str]:
        """The groups whose units are along an axis."""
        known = axis[(axis >= 0) & (axis < len(self._group_of_unit))]
        return [self._names[n] for n in np.unique(self._group_of_unit[known]).tolist() if n >= 0]

    @functools.cached_property
    def _neighbours(self) -> dict[str, tuple[list[str], list[str]]]:
        """By group the layers that read it, and those that make it."""
        found: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in self.groups}
        for layer, side in self.sides.items():
            for which, axis in enumerate((side.inputs, side.outputs)):
                for name in self._groups_of(axis):
                    found[name][which].append(layer)
        return found

    def marked(self, units: Collection[int]) -> npt.NDArray[np.bool_]:
        """Whether each unit is one of these; the last place is that of −1, which none is."""
        found = np.zeros(self.reader.coupling.count + 1, np.bool_)
        found[list(units)] = True
        return found

    def readers(self, group: Group) -> list[str]:
        """Layers whose matrices sum over the group's units."""
        return self._neighbours[group.name][0]

    def makers(self, group: Group) -> list[str]:
        """Layers whose rows are the group's units."""
        return self._neighbours[group.name][1]

    def reads(self, value: ir.Value, axis: int) -> bool:
        """Whether a constant's axis is one that its layer sums over."""
        return self._read_axes.get(value, -1) == axis

    def summed_unweighted(self, group: Group) -> bool:
        """Whether the group's units are summed over by others than layers with constants."""
        return self._any(self.reader.summed, group)

    def runs_on_all(self, group: Group) -> bool:
        """Whether a node looks at the group's units in their order (LRN)."""
        axes = [self.reader.axes(node.inputs[0]) for node in self.reader.needs_all]
        return self._any([found[1] for found in axes if found is not None], group)

    def roots(self, value: ir.Value, axis: int) -> Atoms:
        """The unit of every index along a constant's axis."""
        atoms = self.reader.coupling.constants[value][axis]
        assert not isinstance(atoms, Dynamic)
        return self.reader.coupling.roots(atoms)

    @functools.cached_property
    def _carriers(self) -> dict[str, set[ir.Value]]:
        """The tensors, constants too, that any of a group's units runs through."""
        found: dict[str, set[ir.Value]] = {name: set() for name in self.groups}
        coupling = self.reader.coupling
        for value, axes in coupling.axes.items():
            for axis in axes:
                if not isinstance(axis, Dynamic):
                    for name in self._groups_of(coupling.roots(axis)):
                        found[name].add(value)
        return found

    def carriers(self, group: Group) -> set[ir.Value]:
        """The tensors, constants too, that any of the group's units runs through."""
        return self._carriers[group.name]

    def arrives_as_zero(self, group: Group) -> bool:
        """Whether a unit whose constants are all zero is zero where it is read."""
        return all(
            value.const_value is not None or self.reader.vanishes(value)
            for value in self.carriers(group)
        )

    def _any(self, axes: Iterable[Atoms | Dynamic], group: Group) -> bool:
        units = np.asarray(group.units)
        roots = self.reader.coupling.roots
        return any(not isinstance(a, Dynamic) and np.isin(roots(a), units).any() for a in axes)


def _unless_shared(group: Group, names: Collection[str | None]) -> Group:
    """Blocked where bodies of an If give the same name to different constants."""
    for name, _ in group.constants:
        if name in names:
            return replace(group, blocked=f"there are several constants named {name!r}")
    return group


def _in_axis(layer: Layer) -> int:
    if layer.op_type == "Gather":
        return -1
    if layer.op_type in RECURRENT:
        return 2
    if layer.op_type == "Conv":
        return 1
    if layer.op_type == "ConvTranspose":
        return 0
    out, rank = _out_axis(layer), len(layer.shape)
    return 2 * rank - 3 - out if rank >= 2 else -1


def _out_axis(layer: Layer) -> int:
    if layer.op_type == "Gather":
        return 1
    if layer.op_type in RECURRENT:
        # R reads the units too, so that they are named after W.
        return 1 if layer.uses[0].index == INPUT_WEIGHT else -1
    axis = output_channel_axis(layer)
    if axis is None:
        return 1 if layer.op_type == "ConvTranspose" else -1
    return axis
