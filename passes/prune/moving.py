"""What operators that move, split and join say of their axes, by the ONNX specifications.

Those that put axes together or take them apart are in `reshaping`.
"""

import math

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, constant, node_label
from onnxpress.passes.prune.coupling import LARGEST, Atoms, Axes, Dynamic, fixed, still
from onnxpress.passes.prune.reader import (
    Reader,
    Rule,
    bounds,
    integers,
    registering,
    spatial,
    unchanging,
)

__all__ = ["MOVING", "split_sizes"]

MOVING: dict[str, Rule] = {}

_rule = registering(MOVING)


@_rule("Concat")
def _concat(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    operands = [reader.axes(value) for value in node.inputs]
    known = [axes for axes in operands if axes is not None]
    if len(known) < len(operands) or len({len(axes) for axes in known}) > 1:
        return None
    reason = f"{node_label(node)} needs as many of each"
    place = attribute(node, "axis", 0) % len(known[0])
    made: Axes = []
    for at in range(len(known[0])):
        facing = [axes[at] for axes in known]
        if at == place:
            sized = [axis for axis in facing if not isinstance(axis, Dynamic)]
            if len(sized) == len(facing):
                made.append(np.concatenate(sized))
            else:
                reader.coupling.block_all(sized, reason)
                made.append(Dynamic())
            continue
        for axis in facing[1:]:
            reader.coupling.relate(facing[0], axis, reason)
        made.append(facing[0])
    reader.coupling.vanishes[node.outputs[0]] = all(reader.vanishes(v) for v in node.inputs)
    return [made]


def split_sizes(node: ir.Node, size: int) -> list[int] | None:
    """Sizes of a Split's outputs for an axis of `size`; `None` where they are computed."""
    given = integers(node, "split", 1)
    if given is None:
        return None
    if given:
        return given
    count = len(node.outputs)
    part = math.ceil(size / count)
    return [min(part, size - part * index) for index in range(count)]


@_rule("Split")
def _split(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    place = attribute(node, "axis", 0) % len(axes)
    along = axes[place]
    if isinstance(along, Dynamic):
        return [
            [*axes[:place], unchanging(value, place, len(axes)), *axes[place + 1 :]]
            for value in node.outputs
        ]
    sizes = split_sizes(node, len(along))
    if sizes is None:
        return None
    ends = np.cumsum(sizes)
    made: list[Axes | None] = []
    for value, start, end in zip(node.outputs, ends - sizes, ends, strict=True):
        made.append([*axes[:place], along[start:end], *axes[place + 1 :]])
        reader.coupling.vanishes[value] = reader.vanishes(node.inputs[0])
    return made


@_rule("Slice")
def _slice(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, found = reader.axes(node.inputs[0]), bounds(node)
    if axes is None or found is None:
        return None
    made = list(axes)
    for at, start, end, step in found:
        along = made[at]
        if isinstance(along, Dynamic):
            made[at] = along if (start, step) == (0, 1) and end >= 2**31 - 1 else Dynamic()
            continue
        if step != 1:
            reader.coupling.block(along, f"{node_label(node)} takes every {step}th")
        picked = along[start : end if end > -(2**31) else None : step]
        made[at] = _single(reader, picked, node) if len(picked) == 1 else picked
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


def _single(reader: Reader, picked: Atoms, node: ir.Node) -> Atoms:
    """One index that is taken out by name has to stay; others may go."""
    reader.coupling.block(picked, f"{node_label(node)} picks it")
    return fixed(1)


@_rule("Gather")
def _gather(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, picks = reader.axes(node.inputs[0]), reader.axes(node.inputs[1])
    if axes is None or picks is None:
        return None
    place = attribute(node, "axis", 0) % len(axes)
    along, indices = axes[place], constant(node.inputs[1])
    middle: Axes = list(picks)
    if indices is None or isinstance(along, Dynamic):
        reader.coupling.block(along, f"{node_label(node)} picks among them at run time")
    elif indices.ndim == 1 and len(indices) > 1:
        middle = [along[indices]]
    else:
        reader.coupling.block(along[indices.reshape(-1)], f"{node_label(node)} picks it")
    reader.coupling.block_all(picks, f"{node_label(node)} uses them as indices")
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[*axes[:place], *middle, *axes[place + 1 :]]]


@_rule("Transpose")
def _transpose(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    order = integers(node, "perm", len(node.inputs)) or list(range(len(axes)))[::-1]
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[axes[at] for at in order]]


@_rule("Squeeze")
def _squeeze(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, places = reader.axes(node.inputs[0]), integers(node, "axes", 1)
    if axes is None or places is None:
        return None
    if not places:
        if any(isinstance(axis, Dynamic) for axis in axes):
            return None
        # An axis that becomes one long would go too.
        reader.coupling.block_all(axes, f"{node_label(node)} drops axes of one by their size")
        places = [
            at for at, axis in enumerate(axes) if not isinstance(axis, Dynamic) and len(axis) == 1
        ]
    gone = {at % len(axes) for at in places}
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[axis for at, axis in enumerate(axes) if at not in gone]]


@_rule("Unsqueeze")
def _unsqueeze(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, places = reader.axes(node.inputs[0]), integers(node, "axes", 1)
    if axes is None or places is None:
        return None
    rank = len(axes) + len(places)
    made = list(axes)
    for at in sorted(place % rank for place in places):
        made.insert(at, fixed(1))
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


@_rule("Pad")
def _pad(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, pads = reader.axes(node.inputs[0]), integers(node, "pads", 1)
    if axes is None or pads is None:
        return None
    places = (integers(node, "axes", 3) or list(range(len(axes)))) if len(node.inputs) > 3 else None
    places = list(range(len(axes))) if places is None else places
    made = list(axes)
    for index, at in enumerate(places):
        if pads[index] or pads[index + len(places)]:
            reader.coupling.block(axes[at], f"{node_label(node)} puts others beside them")
            made[at] = unchanging(node.outputs[0], at % len(axes), len(axes))
    zero = "value" not in node.attributes or node.attributes["value"].as_float() == 0
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        filling = constant(node.inputs[2])
        zero = filling is not None and not filling.any()
    reader.coupling.vanishes[node.outputs[0]] = zero and reader.vanishes(node.inputs[0])
    return [made]


@_rule("Resize", "Upsample")
def _resize(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or len(axes) < 3 or "axes" in node.attributes:
        return None
    # Channels are never resized by those who export images; the shape says whether they are.
    shape = node.outputs[0].shape
    if isinstance(axes[1], Dynamic) or shape is None or len(shape) != len(axes):
        return None
    if shape[1] != len(axes[1]):
        return None
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    if sizes is not None:
        elements = reader.elements(sizes)
        if elements is None:
            return None
        for at, element in enumerate(elements):
            if isinstance(element, np.ndarray) and at != 1:
                reader.coupling.block(element, f"{node_label(node)} computes with their number")
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [[*axes[:2], *spatial(node, axes)]]


@_rule("DepthToSpace", "SpaceToDepth")
def _pixel_shuffle(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None or isinstance(axes[1], Dynamic):
        return None
    block = attribute(node, "blocksize", 1) ** 2
    along = axes[1]
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    if node.op_type == "SpaceToDepth":
        if len(along) * block > LARGEST:
            return None
        made = np.tile(along, block)
    else:
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "DCR"
        table = along.reshape(-1, block).T if mode == "CRD" else along.reshape(block, -1)
        for row in table[1:]:
            reader.coupling.relate(table[0], row, f"{node_label(node)} makes one of several")
        made = table[0]
    return [[axes[0], made, *spatial(node, axes)]]


@_rule("Expand")
def _expand(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, elements = reader.axes(node.inputs[0]), reader.elements(node.inputs[1])
    if axes is None or elements is None:
        return None
    made: Axes = []
    rank = max(len(axes), len(elements))
    reason = f"{node_label(node)} repeats them"
    for place in range(rank):
        mine = axes[place - rank] if len(axes) >= rank - place else fixed(1)
        wanted = elements[place - rank] if len(elements) >= rank - place else 1
        target = still(wanted) if isinstance(wanted, int) else wanted
        if isinstance(mine, Dynamic):
            made.append(mine)
        elif len(mine) > 1:
            if not isinstance(wanted, int):
                reader.coupling.relate(mine, target, reason)
            made.append(mine)
        else:
            made.append(target)
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    return [made]


@_rule("Tile")
def _tile(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, repeats = reader.axes(node.inputs[0]), integers(node, "repeats", 1)
    if axes is None or not repeats:
        return None
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    reason = f"{node_label(node)} repeats them"
    pairs = zip(axes, repeats, strict=True)
    return [[_repeated(reader, axis, times, reason) for axis, times in pairs]]


def _repeated(reader: Reader, axis: Atoms | Dynamic, times: int, reason: str) -> Atoms | Dynamic:
    if times == 1 or isinstance(axis, Dynamic):
        return axis if times == 1 else Dynamic()
    if len(axis) * times > LARGEST:
        reader.coupling.block(axis, reason)
        return Dynamic()
    return np.tile(axis, times)
