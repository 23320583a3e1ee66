"""What Flatten and Reshape say of their axes, by the ONNX operator specifications.

The axes at both ends that stay are paired off; what is between is cut into the shortest runs of
input and output axes of the same product. One axis for one is that axis, several for one leave the
choice of `coupling.product`.
"""

import math

import numpy as np
import onnx_ir as ir

from onnxpress.graph import attribute, node_label
from onnxpress.passes.prune.coupling import LARGEST, Atoms, Axes, Dynamic, fixed, still
from onnxpress.passes.prune.reader import Element, Reader, Rule, registering

__all__ = ["RESHAPING"]

RESHAPING: dict[str, Rule] = {}

_rule = registering(RESHAPING)


@_rule("Flatten")
def _flatten(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes = reader.axes(node.inputs[0])
    if axes is None:
        return None
    place = attribute(node, "axis", 1)
    place = place % len(axes) if place < 0 else place
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    reason = f"{node_label(node)} puts them together with others"
    return [[_merged(reader, part, reason) for part in (axes[:place], axes[place:])]]


def _merged(reader: Reader, axes: Axes, reason: str) -> Atoms | Dynamic:
    """One axis for several."""
    wide = [axis for axis in axes if isinstance(axis, Dynamic) or len(axis) > 1]
    if len(wide) == 1:
        return wide[0]
    if not wide:
        return fixed(1)
    sized = [axis for axis in wide if not isinstance(axis, Dynamic)]
    size = math.prod(len(axis) for axis in sized)
    if len(sized) < len(wide) or size > LARGEST:
        reader.coupling.block_all(sized, reason)
        return Dynamic()
    whole = reader.coupling.fresh(size)
    reader.coupling.product(whole, sized, reason)
    return whole


def _target_elements(reader: Reader, node: ir.Node) -> list[Element] | None:
    """What a Reshape's target says of each output axis: a number, or the axis it follows."""
    axes, elements = reader.axes(node.inputs[0]), reader.elements(node.inputs[1])
    if axes is None or elements is None:
        return None
    copies = not attribute(node, "allowzero", 0)
    return [
        axes[at] if isinstance(element, int) and element == 0 and copies else element
        for at, element in enumerate(elements)
    ]


@_rule("Reshape")
def _reshape(reader: Reader, node: ir.Node) -> list[Axes | None] | None:
    axes, wanted = reader.axes(node.inputs[0]), _target_elements(reader, node)
    if axes is None or wanted is None:
        return None
    reason = f"{node_label(node)} puts them together with others"
    reader.coupling.vanishes[node.outputs[0]] = reader.vanishes(node.inputs[0])
    before, after = list(axes), list(wanted)
    head: Axes = []
    while before and after and _same(before[0], after[0]):
        head.append(before.pop(0))
        after.pop(0)
    tail: Axes = []
    while before and after and _same(before[-1], after[-1]):
        tail.insert(0, before.pop())
        after.pop()
    middle = _regrouped(reader, before, after, reason)
    if middle is None:
        reader.coupling.block_all(before, reason)
        middle = [
            Dynamic()
            if not isinstance(e, int) or e < 0
            else still(e)
            if not isinstance(e, np.ndarray)
            else e
            for e in after
        ]
        for element in after:
            if isinstance(element, np.ndarray):
                reader.coupling.block(element, reason)
    return [[*head, *middle, *tail]]


def _same(axis: Atoms | Dynamic, element: Element) -> bool:
    """Whether an output axis is this input axis for sure."""
    if isinstance(element, Dynamic):
        return element is axis
    if isinstance(element, int):
        return not isinstance(axis, Dynamic) and len(axis) == element
    return not isinstance(axis, Dynamic) and np.array_equal(axis, element)


def _regrouped(reader: Reader, before: Axes, after: list[Element], reason: str) -> Axes | None:
    """The output axes of the part of a Reshape that changes; `None` where it cannot be told."""
    before = [axis for axis in before if isinstance(axis, Dynamic) or len(axis) > 1]
    if any(isinstance(axis, Dynamic) for axis in before):
        return None
    sized = [axis for axis in before if not isinstance(axis, Dynamic)]
    total = math.prod(len(axis) for axis in sized)
    sizes = [e if isinstance(e, int) else -2 if isinstance(e, Dynamic) else len(e) for e in after]
    if total > LARGEST or -2 in sizes or sizes.count(-1) > 1:
        return None
    rest = math.prod(size for size in sizes if size != -1)
    if rest == 0 or total % rest:
        return None
    sizes = [total // rest if size == -1 else size for size in sizes]
    if math.prod(sizes) != total:
        return None
    made = _runs(reader, sized, sizes, reason)
    for element, axis in zip(after, made, strict=True):
        if isinstance(element, np.ndarray):
            # The size of another axis: it follows that one.
            reader.coupling.relate(element, axis, reason)
    return made


def _runs(reader: Reader, sized: list[Atoms], sizes: list[int], reason: str) -> Axes:
    """Output axes of these sizes, each run of them made of the shortest run of input axes."""
    made: Axes = []
    place = 0
    at = 0
    while at < len(sizes):
        if sizes[at] == 1:
            made.append(fixed(1))
            at += 1
            continue
        run, many = [sized[place]], [sizes[at]]
        place, at = place + 1, at + 1
        while math.prod(len(axis) for axis in run) != math.prod(many):
            if math.prod(len(axis) for axis in run) < math.prod(many):
                run.append(sized[place])
                place += 1
            else:
                many.append(sizes[at])
                at += 1
        if len(run) == 1 and len(many) == 1:
            made.append(run[0])
            continue
        whole = run[0] if len(run) == 1 else _merged(reader, list(run), reason)
        assert not isinstance(whole, Dynamic)
        if len(many) == 1:
            made.append(whole)
            continue
        factors = [reader.coupling.fresh(size) for size in many]
        reader.coupling.product(whole, factors, reason)
        made += factors
    return made
