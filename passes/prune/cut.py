"""Take units out of a model: constants, and the nodes that say how many channels there are.

The result computes what the model computes with all constants of the removed units set to zero.
"""

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, attribute, constant
from onnxpress.passes.prune.coupling import Atoms, Coupling, Dynamic
from onnxpress.passes.prune.moving import split_sizes
from onnxpress.passes.prune.reader import Reader, bounds
from onnxpress.recurrent import HIDDEN_WEIGHT, RECURRENT
from onnxpress.spill import kept as stored

__all__ = ["remove", "zeroed"]

Kept = npt.NDArray[np.bool_]


def remove(names: Names, model: ir.Model, reader: Reader, units: Collection[int]) -> None:
    """Remove units, in place.

    Args:
        names: that are free in the model.
        model: that `reader` has read.
        reader: its coupling is that of the model before, afterwards too.
        units: roots of units that are not blocked.
    """
    cut = _Cut(names, reader, units)
    nodes = list(model.graph.all_nodes())
    for node in nodes:
        handler = _HANDLERS.get(node.op_type)
        if handler is not None:
            handler(cut, node)
    for value, axes in reader.coupling.constants.items():
        kept = [cut.kept(axis) for axis in axes]
        if any(keep is not None for keep in kept):
            shorten(value, kept)
    for value, axes in reader.coupling.axes.items():
        if value.const_value is None and value.shape is not None and len(value.shape) == len(axes):
            dims = list(value.shape)
            for at, axis in enumerate(axes):
                keep = cut.kept(axis)
                if keep is not None:
                    dims[at] = int(keep.sum())
            value.shape = ir.Shape(dims)
    for node in nodes:
        if node in reader.needs_all:
            cut.surround(node)


def shorten(value: ir.Value, kept: list[Kept | None]) -> None:
    """Keep of each axis what the masks say; `None` keeps all."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    for at, keep in enumerate(kept):
        if keep is not None:
            array = np.compress(keep, array, axis=at)
    tensor = ir.Tensor(np.ascontiguousarray(array), dtype=value.const_value.dtype, name=value.name)
    value.const_value = tensor if value.graph is None else stored(value.graph, tensor)
    value.shape = ir.Shape(array.shape)


def zeroed(model: ir.Model, coupling: Coupling, units: Collection[int]) -> None:
    """Set all constants of the units to zero, in place: what `remove` has to agree with."""
    chosen = np.asarray(sorted(units))
    for value, axes in coupling.constants.items():
        array = None
        for at, axis in enumerate(axes):
            if isinstance(axis, Dynamic):
                continue
            gone = np.isin(coupling.roots(axis), chosen)
            if gone.any():
                assert value.const_value is not None
                array = value.const_value.numpy().copy() if array is None else array
                array[(slice(None),) * at + (gone,)] = 0
        if array is not None:
            assert value.const_value is not None
            value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)


class _Cut:
    def __init__(self, names: Names, reader: Reader, units: Collection[int]) -> None:
        self.names, self.reader = names, reader
        self._units = np.asarray(sorted(units), np.int64)

    def kept(self, axis: Atoms | Dynamic) -> Kept | None:
        """Which indices of an axis stay; `None`: all."""
        if isinstance(axis, Dynamic):
            return None
        gone = np.isin(self.reader.coupling.roots(axis), self._units)
        return ~gone if gone.any() else None

    def along(self, value: ir.Value | None, place: int) -> Kept | None:
        """`kept` of an axis of a value."""
        axes = self.reader.axes(value)
        return None if axes is None or place >= len(axes) else self.kept(axes[place])

    def surround(self, node: ir.Node) -> None:
        """Put removed channels back as zeros before a node that looks at neighbours (LRN)."""
        # By its output: its input may come from another such node, which has been surrounded.
        keep = self.along(node.outputs[0], 1)
        if keep is None:
            return
        graph, source = node.graph, node.inputs[0]
        assert isinstance(graph, ir.Graph)
        assert source is not None
        rank = len(self.reader.axes(node.outputs[0]) or [])
        stem = node.name or node.outputs[0].name or "LRN"
        pads = np.zeros(2 * rank, np.int64)
        pads[rank + 1] = 1
        # Behind the kept channels stands one of zeros, which all removed places are taken from.
        places = np.where(keep, np.cumsum(keep) - 1, keep.sum()).astype(np.int64)
        output = node.outputs[0]
        users = list(output.uses())
        pad = _node(self.names, "Pad", [source], f"{stem}_pad")
        if self.reader.opset < 11:
            pad.attributes["pads"] = ir.AttrInt64s("pads", pads.tolist())
        else:
            pad.resize_inputs(2)
            pad.replace_input_with(1, add_initializer(self.names, graph, f"{stem}_pads", pads))
        wide = _node(
            self.names,
            "Gather",
            [pad.outputs[0], add_initializer(self.names, graph, f"{stem}_all", places)],
            f"{stem}_spread",
            axis=1,
        )
        narrow = _node(
            self.names,
            "Gather",
            [output, add_initializer(self.names, graph, f"{stem}_kept", np.flatnonzero(keep))],
            f"{stem}_gather",
            axis=1,
        )
        narrow.outputs[0].type, narrow.outputs[0].shape = output.type, output.shape
        output.shape = None
        graph.insert_before(node, [pad, wide])
        graph.insert_after(node, [narrow])
        node.replace_input_with(0, wide.outputs[0])
        for user, index in users:
            user.replace_input_with(index, narrow.outputs[0])


def _node(
    names: Names, op_type: str, inputs: list[ir.Value], name: str, **attributes: int
) -> ir.Node:
    # Nodes need not have names, so that two may share a stem; their outputs never do.
    output = names.free(f"{name}_output")
    node = ir.node(op_type, inputs, attributes=attributes, name=output)
    node.outputs[0].name = output
    node.outputs[0].type = inputs[0].type
    return node


def _conv(cut: _Cut, node: ir.Node) -> None:
    groups = attribute(node, "group", 1)
    axes = cut.reader.axes(node.inputs[0])
    keep = cut.along(node.inputs[0], 1)
    if keep is None or axes is None or isinstance(axes[1], Dynamic):
        return
    if groups > 1 and groups == len(axes[1]):
        node.attributes["group"] = ir.AttrInt64("group", int(keep.sum()))


def _recurrent(cut: _Cut, node: ir.Node) -> None:
    keep = cut.along(node.inputs[HIDDEN_WEIGHT], 2)
    if keep is not None:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(keep.sum()))


def _target(cut: _Cut, node: ir.Node) -> None:
    """Numbers in the target of a Reshape or an Expand."""
    elements = cut.reader.elements(node.inputs[1])
    axes = cut.reader.axes(node.outputs[0])
    if elements is None or axes is None:
        return
    shift = np.zeros(len(elements), np.int64)
    for at, element in enumerate(elements):
        keep = cut.kept(axes[at - len(elements)])
        if keep is not None and isinstance(element, int) and element > 1:
            shift[at] = int(keep.sum()) - element
    _shift(cut, node, 1, shift)


def _resize(cut: _Cut, node: ir.Node) -> None:
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return
    elements, keep = cut.reader.elements(node.inputs[3]), cut.along(node.inputs[0], 1)
    if elements is None or keep is None or not isinstance(elements[1], int):
        return
    shift = np.zeros(len(elements), np.int64)
    shift[1] = int(keep.sum()) - elements[1]
    _shift(cut, node, 3, shift)


def _shift(cut: _Cut, node: ir.Node, index: int, shift: npt.NDArray[np.int64]) -> None:
    """Add to a shape, which may be computed at run time; other nodes may read it as it was."""
    source = node.inputs[index]
    if source is None or not shift.any():
        return
    graph = _root(node)
    stem = f"{node.name or node.outputs[0].name}_shape"
    array = constant(source)
    if array is not None:
        changed = (array + shift.astype(array.dtype)).astype(array.dtype)
        node.replace_input_with(index, add_initializer(cut.names, graph, stem, changed))
        return
    added = _node(
        cut.names,
        "Add",
        [source, add_initializer(cut.names, graph, f"{stem}_change", shift)],
        stem,
    )
    assert node.graph is not None
    node.graph.insert_before(node, [added])
    node.replace_input_with(index, added.outputs[0])


def _root(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def _split(cut: _Cut, node: ir.Node) -> None:
    axes = cut.reader.axes(node.inputs[0])
    if axes is None:
        return
    place = attribute(node, "axis", 0) % len(axes)
    keep = cut.along(node.inputs[0], place)
    if keep is None:
        return
    sizes = split_sizes(node, len(keep))
    assert sizes is not None
    ends = np.cumsum(sizes)
    left = [int(keep[end - size : end].sum()) for size, end in zip(sizes, ends, strict=True)]
    if "split" in node.attributes or cut.reader.opset < 13:
        node.attributes["split"] = ir.AttrInt64s("split", left)
        return
    node.attributes.pop("num_outputs", None)
    stem = f"{node.name or node.outputs[0].name}_split"
    value = add_initializer(cut.names, _root(node), stem, np.asarray(left, np.int64))
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _slice(cut: _Cut, node: ir.Node) -> None:
    found = bounds(node)
    if found is None:
        return
    starts, ends = [start for _, start, _, _ in found], [end for _, _, end, _ in found]
    changed = False
    for at, (axis, start, end, _) in enumerate(found):
        axes = cut.reader.axes(node.inputs[0])
        if axes is None:
            return
        keep = cut.along(node.inputs[0], axis % len(axes))
        if keep is None:
            continue
        low, high, _ = slice(start, end).indices(len(keep))
        starts[at], ends[at] = int(keep[:low].sum()), int(keep[:high].sum())
        changed = True
    if not changed:
        return
    for index, (name, values) in enumerate((("starts", starts), ("ends", ends)), 1):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, values)
            continue
        old = constant(node.inputs[index])
        assert old is not None
        stem = f"{node.name or node.outputs[0].name}_{name}"
        array = np.asarray(values, old.dtype)
        node.replace_input_with(index, add_initializer(cut.names, _root(node), stem, array))


def _gather(cut: _Cut, node: ir.Node) -> None:
    axes, found = cut.reader.axes(node.inputs[0]), constant(node.inputs[1])
    if axes is None or found is None:
        return
    indices = found.astype(np.int64)
    keep = cut.along(node.inputs[0], attribute(node, "axis", 0) % len(axes))
    if keep is None:
        return
    positive = np.where(indices < 0, indices + len(keep), indices)
    places = np.cumsum(keep) - 1
    picked = places[positive[keep[positive]]] if indices.ndim == 1 else places[positive]
    stem = f"{node.name or node.outputs[0].name}_indices"
    value = add_initializer(cut.names, _root(node), stem, picked.astype(found.dtype))
    node.replace_input_with(1, value)


_HANDLERS: dict[str, Callable[[_Cut, ir.Node], None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    **dict.fromkeys(RECURRENT, _recurrent),
    "Reshape": _target,
    "Expand": _target,
    "Resize": _resize,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
}
