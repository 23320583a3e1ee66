"""Run two models and look at their tensors: as they are, or with the other model's values inside.

*Freely*, an error that one node makes is seen in all that follows. *Given* values, every tensor of
B that has a counterpart in A is replaced by A's value wherever it is read, so that each stretch of
B between counterparts starts without error: what it ends with is what the stretch itself adds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.difference.tensors import Tensor, Tensors
from onnxpress.graph import Names, bodies, graphs_of
from onnxpress.runtime import Array, Feed
from onnxpress.statistics.exposing import Observer

__all__ = ["Run", "Sketch", "frontier", "opened", "shaped", "sketches", "sketches_given"]

_SKETCHED = 4096
_TOGETHER = 256
"""Tensors observed in one run before their sizes are known."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is kept of a tensor of the first sample.

    Attributes:
        values: up to 4,096 of its elements, evenly spread, as float64.
        shape: of the whole.
        dtype: as onnxruntime gives it.
        times: how often it was computed; 0 in a branch not taken.
    """

    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    times: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all that was computed."""
        return self.size * self.dtype.itemsize * self.times


@dataclass(frozen=True, slots=True)
class Run:
    """A model opened to be looked into, some tensors replaced.

    Attributes:
        observer: of the changed copy.
        given: the replaced tensors: name of the input that stands for it, and its type.
        names: of the tensors it is asked for.
    """

    observer: Observer
    given: Mapping[str, tuple[str, np.dtype[np.generic]]]
    names: tuple[str, ...]

    def __call__(self, feed: Feed, values: Mapping[str, list[Array]]) -> dict[str, list[Array]]:
        """The tensors' arrays in one run.

        Args:
            feed: of the model's own inputs.
            values: of the replaced tensors; one that was not computed is not needed either.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        whole = dict(feed)
        for name, (stand_in, dtype) in self.given.items():
            found = values.get(name) or [np.zeros(1)]
            with np.errstate(all="ignore"):
                whole[stand_in] = np.asarray(found[0].astype(dtype))
        return self.observer.run(whole, self.names)


def opened(
    tensors: Tensors,
    names: Iterable[str],
    given: Mapping[str, np.dtype[np.generic]],
    *,
    threads: int = 0,
) -> Run:
    """Open a model to observe tensors, with those replaced that they depend on.

    Args:
        tensors: the model.
        names: of the tensors to observe.
        given: which tensors have values from outside, and of which type these are.
        threads: of onnxruntime.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    asked = tuple(names)
    needed = frontier(tensors, asked, given)
    copy = tensors.model.clone()
    free = Names(copy)
    stand_ins = {name: free.free(f"{name}_given") for name in needed}
    _replace(copy, stand_ins, given)
    observer = Observer(copy, asked, threads=threads)
    return Run(observer, {n: (stand_ins[n], given[n]) for n in needed}, asked)


def frontier(tensors: Tensors, names: Sequence[str], given: Iterable[str]) -> list[str]:
    """The replaced tensors that others are computed from, nearest first met going back."""
    stops, seen = set(given), set[str]()
    found: dict[str, None] = {}
    waiting = [name for name in names if name in tensors.by_name]
    while waiting:
        tensor = tensors.by_name[waiting.pop()]
        for name in (*tensor.reads, *_read_in_bodies(tensor, tensors)):
            if name in stops:
                found[name] = None
            elif name and name not in seen:
                seen.add(name)
                waiting.append(name)
    return sorted(found, key=lambda name: tensors.by_name[name].position)


def _read_in_bodies(tensor: Tensor, tensors: Tensors) -> list[str]:
    """Of a node with bodies, all that is read anywhere in them."""
    if tensor.node is None:
        return []
    return [
        value.name
        for body in bodies(tensor.node)
        for node in body.all_nodes()
        for value in node.inputs
        if value is not None and value.name and value.name in tensors.by_name
    ]


def _replace(
    model: ir.Model, stand_ins: Mapping[str, str], given: Mapping[str, np.dtype[np.generic]]
) -> None:
    graphs = graphs_of(model.graph)
    values = {out.name: out for graph in graphs for node in graph for out in node.outputs}
    for name, stand_in in stand_ins.items():
        kind = ir.TensorType(ir.DataType.from_numpy(given[name]))
        new = ir.Value(name=stand_in, type=kind)
        model.graph.inputs.append(new)
        for node, index in tuple(values[name].uses()):
            node.replace_input_with(index, new)
        _hand_on(graphs[1:], values[name], new)
    # What is asked for is added by the observer; nothing else has to be computed.
    model.graph.outputs.clear()


def _hand_on(graphs: Sequence[ir.Graph], old: ir.Value, new: ir.Value) -> None:
    """A body that gives the replaced tensor gives the stand-in; through Identity, as ONNX asks."""
    for graph in graphs:
        for index, value in enumerate(graph.outputs):
            if value is old:
                node = ir.Node("", "Identity", [new])
                node.outputs[0].name = f"{new.name}_out"
                node.outputs[0].type, node.outputs[0].shape = old.type, old.shape
                graph.append(node)
                graph.outputs[index] = node.outputs[0]


def sketches(
    tensors: Tensors, names: Sequence[str], feeds: Sequence[Feed], *, threads: int = 0
) -> dict[str, Sketch]:
    """A sketch of every tensor on the first sample that computes it, some tensors at a time.

    Raises:
        ModelError: onnxruntime cannot run the model on this sample.
    """
    found: dict[str, Sketch] = {}
    for part in _parts(names):
        run = opened(tensors, part, {}, threads=threads)
        for feed in feeds:
            arrays = run(feed, {})
            missing = [name for name in part if name not in found]
            new = {name: sketch for name in missing if (sketch := _sketch(arrays.get(name)))}
            found.update(new)
            if len(new) == len(missing):
                break
    return found


def sketches_given(
    b: Tensors,
    names: Sequence[str],
    feed: Feed,
    originals: Callable[[Sequence[str]], Mapping[str, list[Array]]],
    pairs: Mapping[str, str],
    free: Mapping[str, Sketch],
    *,
    threads: int = 0,
) -> dict[str, Sketch]:
    """The same of tensors of B, where B's paired tensors have A's values.

    Args:
        b: the other model.
        names: of tensors of B.
        feed: the sample, for B.
        originals: gives tensors of A by name.
        pairs: names of tensors of B and of their counterparts in A.
        free: sketches of all tensors of B as it is.
        threads: of onnxruntime.

    Raises:
        ModelError: onnxruntime cannot run B on these values.
    """
    given = {name: free[name].dtype for name in pairs}
    found: dict[str, Sketch] = {}
    for part in _parts(names):
        run = opened(b, part, given, threads=threads)
        wanted = sorted({pairs[name] for name in run.given})
        shapes = {name: free[name].shape for name in run.given}
        arrays = run(feed, shaped(originals(wanted), pairs, shapes))
        found.update((name, sketch) for name in part if (sketch := _sketch(arrays.get(name))))
    return found


def shaped(
    originals: Mapping[str, list[Array]],
    pairs: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, list[Array]]:
    """A's arrays under the names of B and in B's shapes (a MatMul may have become a Gemm)."""
    found = {}
    for name, shape in shapes.items():
        arrays = originals.get(pairs[name], [])
        found[name] = [
            array.reshape(shape) if array.size == np.prod(shape, dtype=np.int64) else array
            for array in arrays
        ]
    return found


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + _TOGETHER] for start in range(0, len(names), _TOGETHER)]


def _sketch(arrays: list[Array] | None) -> Sketch | None:
    if not arrays:
        return None
    first = arrays[0]
    if first.dtype.kind not in "fiub":
        return None
    flat = first.reshape(-1)
    if flat.size > _SKETCHED:
        flat = flat[np.linspace(0, flat.size - 1, _SKETCHED).astype(np.int64)]
    return Sketch(flat.astype(np.float64), first.shape, first.dtype, len(arrays))
