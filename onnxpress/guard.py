"""Whether a model stayed as it was: arrays that cannot be written to, and a look before and after.

Parts are compared by identity, which costs a walk over the graph and no copy.
"""

import contextlib
import operator
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxpress.graph import graphs_of

__all__ = ["Snapshot", "difference", "read_only", "snapshot"]


@contextlib.contextmanager
def read_only(model: ir.Model) -> Iterator[None]:
    """Within it, no array of a weight can be written to."""
    arrays = [array for tensor in _tensors(model) if (array := _array(tensor)) is not None]
    writeable = [array for array in arrays if array.flags.writeable]
    for array in writeable:
        array.flags.writeable = False
    try:
        yield
    finally:
        # A view may be written to only where its base may.
        for array in sorted(writeable, key=_views_below):
            array.flags.writeable = True


def _views_below(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> int:
    """How many arrays lie between this one and the memory it shows."""
    depth, base = 0, array.base
    while isinstance(base, np.ndarray):
        depth, base = depth + 1, base.base
    return depth


def _array(tensor: object) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    raw = getattr(tensor, "raw", None)
    return raw if isinstance(raw, np.ndarray) else None


def _tensors(model: ir.Model) -> Iterator[object]:
    for graph in graphs_of(model.graph):
        for value in graph.initializers.values():
            yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.value


Snapshot = list[tuple[str, tuple[object, ...]]]


def snapshot(model: ir.Model) -> Snapshot:
    """(what it is called, what it consists of) of everything in a model."""
    found: Snapshot = [
        ("the opset", tuple(sorted(model.graph.opset_imports.items()))),
        ("the metadata", tuple(sorted(model.metadata_props.items()))),
    ]
    for graph in graphs_of(model.graph):
        ends = tuple((v, v.name, v.type, _dims(v)) for v in (*graph.inputs, *graph.outputs))
        found.append((graph.name or "the graph", (graph, ends)))
        for name, value in graph.initializers.items():
            found.append((name, (value, value.const_value)))
        for node in graph:
            attributes = tuple(sorted(node.attributes.items(), key=_first))
            outputs = tuple((value, value.name, value.type, _dims(value)) for value in node.outputs)
            kind = (node.domain, node.op_type, node.overload)
            parts = (node, kind, node.name, tuple(node.inputs), outputs, attributes)
            found.append((node.name or node.op_type, parts))
    return found


_first = operator.itemgetter(0)


def _dims(value: ir.Value) -> tuple[object, ...] | None:
    """The shape as it is now: a shape itself may be changed in place."""
    return None if value.shape is None else value.shape.dims


def difference(before: Snapshot, after: Snapshot) -> tuple[str, str] | None:
    """(site, what happened) of the first thing that is not as it was."""
    for (name, was), (other, is_now) in zip(before, after, strict=False):
        if name != other or len(was) != len(is_now):
            return name, f"{name!r} stands where it did not"
        for old, new in zip(was, is_now, strict=True):
            if old is not new and old != new:
                return name, f"{name!r} is not what it was"
    if len(before) != len(after):
        return "", f"{abs(len(before) - len(after))} nodes or weights more or less"
    return None
