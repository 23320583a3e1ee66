"""Names that we made are told briefly where they are much of a file.

A pair of QuantizeLinear and DequantizeLinear has six names, each written where it is made and
where it is read; after long ones of the exporter's they are up to a fifth of a small file. What
stood in the original keeps its name: people and `diff` look for it.
"""

import itertools
from collections.abc import Iterator

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.graph import graphs_of

__all__ = ["briefly_named"]

_WORTH = 0.02
"""The share of a file below which names stay readable."""
_SMALL_BYTES = 1024
"""Constants up to here are told briefly.

Equal ones are not shared: onnxruntime replaces zero points of weights under their names, and
refuses the second time (`session.x64quantprecision`).
"""
_BRIEF = 4
"""Letters of a brief name, about."""


def briefly_named(model: ir.Model, given: ir.Model) -> ir.Model:
    """The model with brief names for nodes, tensors and small constants that `given` has not.

    Args:
        model: not changed.
        given: the original.

    Returns:
        The same object where a fiftieth of the file would not be gained; functions are left alone.
    """
    known = _names(given) | {value.name for value in model.graph.outputs}
    gain = _gain(model, known)
    sizes = (model_file.weight_bytes, model_file.whole_size)  # the quick one first
    if any(gain < _WORTH * size(model) for size in sizes):
        return model
    brief = model.clone()
    taken = known | _names(brief)
    nodes, tensors, constants = (_fresh(letter, taken) for letter in "ntc")
    for graph in graphs_of(brief.graph):
        for value in list(graph.initializers.values()):
            if _is_ours(value, known) and _nbytes(value) <= _SMALL_BYTES:
                value.name = next(constants)
        for node in graph:
            if node.name and node.name not in known:
                node.name = next(nodes)
            for value in node.outputs:
                if _is_ours(value, known):
                    value.name = next(tensors)
    return brief


def _names(model: ir.Model) -> set[str | None]:
    found: set[str | None] = set()
    for graph in graphs_of(model.graph):
        found.update(value.name for value in graph.inputs)
        found.update(graph.initializers)
        for node in graph:
            found.add(node.name)
            found.update(value.name for value in node.outputs)
    return found


def _fresh(letter: str, taken: set[str | None]) -> Iterator[str]:
    names = (f"{letter}{number}" for number in itertools.count())
    return (name for name in names if name not in taken)


def _is_ours(value: ir.Value, known: set[str | None]) -> bool:
    """Whether it can be called otherwise; what a body gives is told by its place."""
    return bool(value.name) and value.name not in known


def _nbytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else _SMALL_BYTES + 1


def _gain(model: ir.Model, known: set[str | None]) -> int:
    """Letters that brief names would save, about."""
    saved = 0
    for graph in graphs_of(model.graph):
        constants = [v for v in graph.initializers.values() if _nbytes(v) <= _SMALL_BYTES]
        # Of these no type is told.
        values = [(value, 1 + len(value.uses())) for value in constants]
        for node in graph:
            if node.name and node.name not in known:
                saved += len(node.name) - _BRIEF
            values += [(v, 1 + len(v.uses()) + (v.shape is not None)) for v in node.outputs]
        for value, times in values:
            if _is_ours(value, known):
                saved += times * (len(value.name or "") - _BRIEF)
    return saved
