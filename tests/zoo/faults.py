"""Edits of a model's graph: what breaks it, and what does no harm."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from zoo.builder import Array, Made, Net, floats, opened, with_changed_weights

__all__ = [
    "Edit",
    "both",
    "chosen",
    "constant",
    "drifting",
    "edited",
    "failing_beyond",
    "noisy",
    "only_when",
    "rare",
    "renamed",
    "rounded",
    "scaled",
    "shifted",
    "stuck",
    "with_initializer",
]

Edit = Callable[[Made], onnx.ModelProto]
Build = Callable[[Net, str], str]
"""Add nodes that compute a new value from a value; the name of the new one."""
_NOISE = 1e-3


def edited(output: str, build: Build) -> Edit:
    """An output computed anew from what it was."""

    def edit(made: Made) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(made.model)
        before = f"{output}_before"
        for node in model.graph.node:
            for place, name in enumerate(node.output):
                if name == output:
                    node.output[place] = before
        net = Net(prefix=f"{output}_edit_")
        new = build(net, before)
        model.graph.node.extend(net.nodes)
        model.graph.node.append(
            onnx.helper.make_node("Identity", [new], [output], name=f"{output}_edited")
        )
        model.graph.initializer.extend(net.constants)
        return model

    return edit


def both(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(made: Made) -> onnx.ModelProto:
        for one in edits:
            made = Made(one(made), made.feeds)
        return made.model

    return edit


def scaled(output: str, factors: npt.ArrayLike, offsets: npt.ArrayLike = 0.0) -> Edit:
    """Values times factors and plus offsets, which are broadcast."""

    def build(net: Net, x: str) -> str:
        return net.op("Add", net.op("Mul", x, floats(factors)), floats(offsets))

    return edited(output, build)


def chosen(output: str, indices: Sequence[int], axis: int) -> Edit:
    """Slices along an axis in another order, or some twice."""
    places = np.array(indices, np.int64)
    return edited(output, lambda net, x: net.op("Gather", x, places, axis=axis))


def shifted(output: str, steps: int, axis: int, size: int) -> Edit:
    """Moved along an axis, what leaves at one end comes in at the other."""
    return chosen(output, np.roll(np.arange(size), steps).tolist(), axis)


def stuck(output: str, sample: int = 0) -> Edit:
    """Always the answer to one sample."""

    def edit(made: Made) -> onnx.ModelProto:
        answer = opened(made.model).run(made.feeds[sample])[output]

        def build(net: Net, x: str) -> str:
            zero = net.op("Mul", x, np.zeros((), answer.dtype))
            return net.op("Add", zero, answer)

        return edited(output, build)(made)

    return edit


def constant(output: str, value: float) -> Edit:
    """The same number everywhere."""
    return scaled(output, 0.0, value)


def only_when(output: str, source: str, least: float, build: Build, *, rank: int) -> Edit:
    """A change where the sum of an input is at least so much; the batch is the first axis."""

    def changed(net: Net, x: str) -> str:
        total = net.op("Cast", source, to=1)
        axes = list(range(1, rank))
        total = net.op("ReduceSum", total, np.array(axes), keepdims=0)
        seen = net.op("GreaterOrEqual", total, floats(least))
        seen = net.op("ReduceMax", net.op("Cast", seen, to=1), axes=[0], keepdims=0)
        return net.op("Where", net.op("Cast", seen, to=9), build(net, x), x)

    return edited(output, changed)


def rare(output: str, source: str, number: int, build: Build) -> Edit:
    """A change on those samples alone whose inputs have the greatest sums."""

    def edit(made: Made) -> onnx.ModelProto:
        sums = np.sort([float(feed[source].astype(np.float64).sum()) for feed in made.feeds])
        least = float(sums[-number] + sums[-number - 1]) / 2
        return only_when(output, source, least, build, rank=made.feeds[0][source].ndim)(made)

    return edit


def failing_beyond(output: str, *sizes: int) -> Edit:
    """A Reshape to the sizes of the samples: others are an error."""
    return edited(output, lambda net, x: net.reshaped(x, *sizes))


def drifting(state: str, step: float) -> Edit:
    """A state that gets a little more at every step."""
    return scaled(state, 1.0, step)


def with_initializer(place: int, change: Callable[[Array], Array]) -> Edit:
    """One constant changed, by its place."""

    def edit(made: Made) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(made.model)
        tensor = model.graph.initializer[place]
        array = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model

    return edit


def noisy(made: Made) -> onnx.ModelProto:
    """Every weight off by about a thousandth."""
    rng = np.random.default_rng(999)
    return with_changed_weights(
        made.model, lambda w: (w * (1 + _NOISE * rng.standard_normal(w.shape))).astype(np.float32)
    )


def rounded(made: Made) -> onnx.ModelProto:
    """Weights in 8 bits with a scale for each output channel."""

    def change(weight: npt.NDArray[np.float32]) -> Array:
        if weight.ndim < 2:
            return weight
        axes = tuple(range(1, weight.ndim)) if weight.ndim == 4 else (weight.ndim - 2,)
        scale = np.abs(weight).max(axis=axes, keepdims=True) / 127
        return floats(np.rint(weight / np.maximum(scale, 1e-12)) * scale)

    return with_changed_weights(made.model, change)


def renamed(made: Made) -> onnx.ModelProto:
    """Other names of nodes and of the values between them."""
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    public = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    for node in model.graph.node:
        node.name = f"renamed/{node.name}"
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = name if name in public else f"renamed/{name}"
    for tensor in model.graph.initializer:
        tensor.name = f"renamed/{tensor.name}"
    return model
