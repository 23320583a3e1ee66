"""Node names that repeat, which ONNX allows and onnxruntime refuses to load."""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.errors import ModelError
from onnxpress.graph import Names, graphs_of
from onnxpress.runtime import Session

__all__ = ["opened_file", "with_own_names"]


def with_own_names(model: ir.Model) -> tuple[ir.Model, str]:
    """Each node of a graph by a name of its own; bodies may repeat those of other graphs.

    Args:
        model: not changed.

    Returns:
        The same model where no name repeats, else a copy in which the first node keeps it; and
        what was done, empty where nothing was.
    """
    repeated = sum(1 for root in _roots(model) for _ in _again(root))
    if not repeated:
        return model, ""
    found = model.clone()
    for root in _roots(found):
        names = Names(root)
        for node in list(_again(root)):
            node.name = names.free(node.name or "")
    counted = f"{repeated:,} node{'s have the names' if repeated > 1 else ' has the name'}"
    return found, (
        f"{counted} of others, which onnxruntime does not load: in the result they have numbers "
        "behind them [W022]"
    )


def opened_file(
    file: Path, *, threads: int = 0, optimize: bool = True, name: str | None = None
) -> Session:
    """A session of a file that was given, also where its names repeat.

    Not for files that were written here: those have to load as they are.

    Args:
        file: of a model.
        threads: of onnxruntime; 0: all cores.
        optimize: whether onnxruntime optimizes the graph.
        name: for messages; `None`: the file's.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    name = name or str(file)
    try:
        return Session(file, threads=threads, optimize=optimize, name=name)
    except ModelError:
        loaded = model_file.load(file)
        named, _ = with_own_names(loaded)
        if named is loaded:
            raise
    return Session(named, threads=threads, optimize=optimize, name=name)


def _roots(model: ir.Model) -> list[ir.Graph]:
    """The graphs that have names of their own: the main one, and those of functions."""
    return [model.graph, *(function.graph for function in model.functions.values())]


def _again(root: ir.Graph) -> Iterator[ir.Node]:
    """Nodes whose name an earlier one of the same graph has."""
    for graph in graphs_of(root):
        met: set[str] = set()
        for node in graph:
            if node.name in met:
                yield node
            elif node.name:
                met.add(node.name)
