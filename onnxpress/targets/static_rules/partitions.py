"""Into how many partitions the units fall that a provider takes.

As in onnxruntime's `partitioning_utils.cc`: in topological order a partition grows until only nodes
are left that it feeds and cannot hold.
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.targets import Target
from onnxpress.targets.static_rules.units import Unit

__all__ = ["partition_count", "passes_through"]

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def partition_count(units: Sequence[Unit], refused: set[int], target: Target) -> int:
    """How many groups of taken units onnxruntime would make."""
    feeds, waits = _dependencies(units)
    passing = {index for index in refused if passes_through(units[index].node, target)}
    ready = [index for index, count in enumerate(waits) if count == 0]
    count, open_group, border = 0, False, set[int]()
    later: list[int] = []
    while ready or later:
        if not ready:
            count, open_group, border = count + open_group, False, set()
            ready, later = later, []
            continue
        index = ready.pop(0)
        taken = index not in refused
        if not taken and index not in passing and index in border:
            later.append(index)
            continue
        open_group = open_group or taken
        if taken or (index in passing and index in border):
            border |= feeds[index]
        for follower in sorted(feeds[index]):
            waits[follower] -= 1
            if waits[follower] == 0:
                ready.append(follower)
    return count + open_group


def _dependencies(units: Sequence[Unit]) -> tuple[list[set[int]], list[int]]:
    """The units that each one feeds, and how many feed it."""
    owner = {member: index for index, unit in enumerate(units) for member in unit.members}
    feeds: list[set[int]] = [set() for _ in units]
    waits = [0] * len(units)
    for index, unit in enumerate(units):
        sources = {
            owner[producer]
            for member in unit.members
            for value in member.inputs
            if value is not None
            and (producer := value.producer()) is not None
            and producer in owner
            and owner[producer] != index
        }
        waits[index] = len(sources)
        for source in sources:
            feeds[source].add(index)
    return feeds, waits


def passes_through(node: ir.Node, target: Target) -> bool:
    """Whether the node may stay with the CPU provider without ending a partition."""
    if not target.shares_cpu_memory or node.op_type not in target.passes_through:
        return False
    if node.op_type not in _VIEWS:
        return True
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    # One axis besides the batch: the tensor lies the same in NCHW and NHWC.
    return shape is not None and sum(dim != 1 for dim in list(shape)[1:]) <= 1
