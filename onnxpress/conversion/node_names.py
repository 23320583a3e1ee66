"""Node names that repeat, which ONNX allows and onnxruntime refuses to load."""

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from onnxpress.graph import Names, graphs_of

__all__ = ["with_own_names"]


def with_own_names(model: ir.Model) -> tuple[ir.Model, str]:
    """Each node of a graph by a name of its own; bodies may repeat those of other graphs.

    Args:
        model: not changed.

    Returns:
        The same model where no name repeats, else a copy in which the first node keeps it; and
        what was done, empty where nothing was.
    """
    repeated = sum(1 for _ in _again(model))
    if not repeated:
        return model, ""
    found = model.clone()
    names = Names(found)
    for node in list(_again(found)):
        node.name = names.free(node.name or "")
    counted = f"{repeated:,} node{'s have the names' if repeated > 1 else ' has the name'}"
    return found, (
        f"{counted} of others, which onnxruntime does not load: in the result they have numbers "
        "behind them [W022]"
    )


def _again(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes whose name an earlier one of the same graph has."""
    roots = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in (one for root in roots for one in graphs_of(root)):
        met: Counter[str] = Counter()
        for node in graph:
            if node.name:
                met[node.name] += 1
                if met[node.name] > 1:
                    yield node
