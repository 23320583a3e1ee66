"""Plant an error of every kind into a model and see at which rank `diff` names its node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from planted import KINDS, plant, renamed, sites

from onnxpress import model_file
from onnxpress.difference import Difference, Parting, compare_models
from onnxpress.difference.tensors import prepared
from onnxpress.errors import ModelError
from onnxpress.runtime import Array, Session

__all__ = ["Found", "hunt", "kinds_of"]

_VISIBLE = 3e-8
"""Noise over power of a planted node's output below which there is nothing to find."""
_TRIES = 12


@dataclass(frozen=True)
class Found:
    """Where `diff` saw a planted error.

    Attributes:
        kind: of the error.
        tensor: it was planted at.
        rank: of its node among `parted`, from 1; 0 where it is not among them.
        first: whether it is the first parting too.
        parted: how many nodes were named.
        because: what was said of the node at the first rank.
    """

    kind: str
    tensor: str
    rank: int
    first: bool
    parted: int
    because: tuple[str, ...]


def kinds_of(model: ir.Model) -> list[str]:
    """Kinds that fit a node of a model."""
    return [kind for kind in KINDS if sites(model, kind)]


def hunt(
    original: Path,
    base: Path,
    data: Mapping[str, Array],
    folder: Path,
    kinds: Sequence[str] = (),
    *,
    samples: int = 4,
    anonymous: bool = False,
) -> Iterator[Found]:
    """Plant into `base`, which may be an optimized form of the original, and compare with it.

    A kind without a site that has an effect is left out.
    """
    model = prepared(model_file.load(base), str(base))
    intact = prepared(model_file.load(original), str(original))
    for kind in kinds or kinds_of(model):
        planted = _effective(model, kind, data, folder)
        if planted is None:
            continue
        path, tensor = planted
        if anonymous:
            model_file.save(renamed(model_file.load(path)), path)
        expected = _expected(model, tensor, _names(intact))
        expected |= _done_together(intact, expected, _names(model))
        found = compare_models(original, path, data=data, samples=samples, listed=10_000)
        yield _judged(kind, tensor, expected, found)


def _judged(kind: str, tensor: str, expected: set[str], found: Difference) -> Found:
    ranks = [i for i, parting in enumerate(found.worst, 1) if _is(parting, expected)]
    first = found.first is not None and _is(found.first, expected)
    because = found.worst[0].because if found.worst else ()
    return Found(kind, tensor, ranks[0] if ranks else 0, first, found.parted, because)


def _is(parting: Parting, expected: set[str]) -> bool:
    return parting.error.tensor.name in expected


def _names(model: ir.Model) -> set[str]:
    graphs = (model.graph, *model.graph.subgraphs())
    return {out.name or "" for graph in graphs for node in graph for out in node.outputs}


def _expected(model: ir.Model, tensor: str, known: set[str]) -> set[str]:
    """The tensor, or the next ones behind it that the original has too."""
    graphs = (model.graph, *model.graph.subgraphs())
    values = {out.name: out for graph in graphs for node in graph for out in node.outputs}
    found, waiting = set(), [values[tensor]]
    while waiting:
        value = waiting.pop()
        if value.name in known:
            found.add(value.name or "")
            continue
        waiting += [out for node, _ in value.uses() for out in node.outputs]
    return found


def _done_together(original: ir.Model, expected: set[str], known: set[str]) -> set[str]:
    """What the original computes in nodes of its own on the way, and the other model does not."""
    graphs = (original.graph, *original.graph.subgraphs())
    values = {out.name: out for graph in graphs for node in graph for out in node.outputs}
    found: set[str] = set()
    waiting = [values[name] for name in sorted(expected)]
    while waiting:
        node = waiting.pop().producer()
        for value in () if node is None else node.inputs:
            if value is not None and value.name in values and value.name not in known | found:
                found.add(value.name or "")
                waiting.append(value)
    return found


def _effective(
    model: ir.Model, kind: str, data: Mapping[str, Array], folder: Path
) -> tuple[Path, str] | None:
    """The first site, from the middle of the model outwards, where the error can be seen."""
    candidates = sites(model, kind)
    middle = len(candidates) // 2
    for tensor in [*candidates[middle:], *candidates[:middle]][:_TRIES]:
        planted = plant(model, kind, tensor)
        path = folder / "planted.onnx"
        model_file.save(planted.model, path)
        try:
            if _seen(model, planted.model, kind, tensor, data):
                return path, tensor
        except ModelError:
            continue
    return None


def _seen(
    model: ir.Model, planted: ir.Model, kind: str, tensor: str, data: Mapping[str, Array]
) -> bool:
    """Whether an output of the planted model differs."""
    outputs = []
    for one in (model, planted):
        session = Session(one)
        feed = {spec.name: _first(data[spec.name], len(spec.shape)) for spec in session.inputs}
        outputs.append(session.run(feed))
    return any(_noise(outputs[0][name], outputs[1][name]) > _VISIBLE for name in outputs[0])


def _first(array: Array, rank: int) -> Array:
    return np.asarray(array[0]) if array.ndim > rank else array[:1]


def _noise(one: Array, other: Array) -> float:
    if one.dtype.kind != "f" or one.shape != other.shape:
        return 0.0
    if not np.isfinite(other).all():
        return float("inf")
    left, right = one.astype(np.float64), other.astype(np.float64)
    return float(np.square(left - right).mean() / (np.square(left).mean() or 1.0))
