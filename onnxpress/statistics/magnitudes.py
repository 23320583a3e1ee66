"""The largest and smallest magnitudes of every float32 tensor of a model, for half precision.

Each node is run as it stands in the file: with its tensors as outputs, onnxruntime fuses nothing.
What an operator adds up without giving it (the squares of a norm, the sum behind a mean) is worked
out from the tensor that it reads.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.conversion.half_range import Magnitudes
from onnxpress.data import Samples
from onnxpress.graph import attribute, constant, graphs_of
from onnxpress.runtime import Array
from onnxpress.statistics.collector import RUN_BYTES, chunks_of
from onnxpress.statistics.exposing import Observer, observable

__all__ = ["observe_magnitudes"]

_AT_FIRST = 16
"""Tensors of one run, until their sizes are known."""
_Floats = npt.NDArray[np.floating]


def observe_magnitudes(
    model: ir.Model, sets: Sequence[Samples], *, most: int, made_up: bool, threads: int = 0
) -> Magnitudes:
    """Run the model over samples and note how far its tensors reach.

    Args:
        model: not changed.
        sets: samples.
        most: of them that are run, in all.
        made_up: whether they are random inputs.
        threads: of onnxruntime.
    """
    can = observable(model)
    readers = {
        value.name: [use.node for use in value.uses() if use.idx == 0]
        for graph in graphs_of(model.graph)
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs))
        if value.name in can and value.dtype in (None, ir.DataType.FLOAT)
    }
    names = [name for name in readers if name is not None]
    observer = Observer(model, names, threads=threads)
    found = _Found()
    feeds = [feed for samples in sets for feed in samples.feeds][:most]
    chunks = [names[start : start + _AT_FIRST] for start in range(0, len(names), _AT_FIRST)]
    for done, feed in enumerate(feeds, 1):
        # What is in bodies may turn out not to be given.
        sizes = dict.fromkeys(names, 0)
        for chunk in chunks:
            for name, arrays in observer.run(feed, chunk).items():
                sizes[name] = sum(array.nbytes for array in arrays)
                for array in arrays:
                    found.add(name, array, readers[name])
        if done == 1:
            chunks = chunks_of(names, sizes, RUN_BYTES)
    source = " and ".join(dict.fromkeys(samples.source for samples in sets))
    return Magnitudes(
        found.largest, found.smallest, found.inside, found.small_inside, source, made_up
    )


class _Found:
    """Extremes so far."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = {}
        self.smallest: dict[str, float] = {}
        self.inside: dict[str, float] = {}
        self.small_inside: dict[str, float] = {}

    def add(self, name: str, array: Array, readers: Sequence[ir.Node]) -> None:
        """Take in a tensor as a run gave it, and what its readers make of it inside."""
        if array.dtype != np.float32 or not array.size:
            return
        floats = np.asarray(array, np.float32)
        sizes = np.abs(floats)
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        if not sizes.size:
            return
        self.largest[name] = max(self.largest.get(name, 0.0), float(sizes.max()))
        self.smallest[name] = min(self.smallest.get(name, np.inf), float(sizes.min()))
        for node in readers:
            key = node.outputs[0].name or ""
            if node.op_type in _INSIDE:
                reached = _INSIDE[node.op_type](node, np.nan_to_num(floats, posinf=0, neginf=0))
                self.inside[key] = max(self.inside.get(key, 0.0), reached)
            if node.op_type in _NORMALIZED:
                least = _least_variance(node, floats)
                self.small_inside[key] = min(self.small_inside.get(key, np.inf), least)


def _axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """What a reduction adds up over; all where it is not known."""
    given = node.attributes.get("axes")
    if given is not None and not given.is_ref():
        return tuple(axis % rank for axis in given.as_ints()) if rank else ()
    array = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if array is not None and array.size and rank:
        return tuple(int(axis) % rank for axis in array.reshape(-1))
    return tuple(range(rank))


def _added(node: ir.Node, array: _Floats) -> float:
    """The largest sum of magnitudes in a reduction."""
    return float(np.abs(array).sum(axis=_axes(node, array.ndim), dtype=np.float64).max())


def _squares_added(node: ir.Node, array: _Floats) -> float:
    return _added(node, np.square(array, dtype=np.float64))


def _pooled(node: ir.Node, array: _Floats) -> float:
    """The sum of a window, whose mean is at most the largest magnitude."""
    window = node.attributes.get("kernel_shape")
    if window is None:
        axes = tuple(range(2, array.ndim))
        return float(np.abs(array).sum(axis=axes, dtype=np.float64).max())
    return float(np.prod(window.as_ints()) * np.abs(array).max())


def _squared(_: ir.Node, array: _Floats) -> float:
    """One square: normalizations add up in float32, and give the mean of squares."""
    return float(np.abs(array).max()) ** 2


def _of_the_whole_axis(node: ir.Node, array: _Floats) -> float:
    return float(np.square(array, dtype=np.float64).sum(axis=attribute(node, "axis", -1)).max())


def _of_neighbours(node: ir.Node, array: _Floats) -> float:
    return attribute(node, "size", 1) * float(np.abs(array).max()) ** 2


def _counted(node: ir.Node, array: _Floats) -> float:
    """A softmax adds numbers of at most 1."""
    axis = attribute(node, "axis", -1)
    return float(array.shape[axis]) if array.ndim else 1.0


def _exponential(_: ir.Node, array: _Floats) -> float:
    return float(np.exp(min(float(array.max()), 700.0)))


_INSIDE: Mapping[str, Callable[[ir.Node, _Floats], float]] = {
    "AveragePool": _pooled,
    "GlobalAveragePool": _pooled,
    "GlobalLpPool": lambda node, array: _pooled(node, np.square(array)),
    "GroupNormalization": _squared,
    "InstanceNormalization": _squared,
    "LRN": _of_neighbours,
    "LayerNormalization": _squared,
    "LogSoftmax": _counted,
    "LpNormalization": _of_the_whole_axis,
    "LpPool": lambda node, array: _pooled(node, np.square(array)),
    "MeanVarianceNormalization": _squared,
    "RMSNormalization": _squared,
    "ReduceL1": _added,
    "ReduceL2": _squares_added,
    "ReduceLogSum": _added,
    "ReduceLogSumExp": lambda node, array: _added(node, np.exp(np.minimum(array, 80))),
    "ReduceMean": _added,
    "ReduceSum": _added,
    "ReduceSumSquare": _squares_added,
    "SimplifiedLayerNormalization": _squared,
    "SkipLayerNormalization": _squared,
    "SkipSimplifiedLayerNormalization": _squared,
    "Softmax": _counted,
    "Softplus": _exponential,
}
"""By operator: what it reaches inside, worked out from its first input."""
_NORMALIZED = {
    "GroupNormalization": 2,
    "InstanceNormalization": 2,
    "LayerNormalization": -1,
    "RMSNormalization": -1,
    "SimplifiedLayerNormalization": -1,
}
"""Normalizations that divide by a deviation, and the first axis that it is of, by default."""


def _least_variance(node: ir.Node, array: _Floats) -> float:
    """The least that a normalization takes the root of, its epsilon added."""
    first = _NORMALIZED[node.op_type]
    if first < 0:
        first = attribute(node, "axis", first)
    axes = tuple(range(first % array.ndim, array.ndim)) if array.ndim else ()
    given = node.attributes.get("epsilon")
    epsilon = 1e-5 if given is None else given.as_float()
    mean = 0.0 if "RMS" in node.op_type or "Simplified" in node.op_type else array.mean(axes)
    variance = np.square(array, dtype=np.float64).mean(axes) - np.square(mean, dtype=np.float64)
    return float(np.maximum(variance, 0).min()) + epsilon
