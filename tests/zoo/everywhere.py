"""What the tables of faults share: values to broadcast, and what breaks any model."""

from collections.abc import Callable

import numpy as np

from zoo.builder import Array, Net, floats
from zoo.faults import (
    Edit,
    constant,
    rare,
    scaled,
    stuck,
)

__all__ = ["NAN", "column", "everywhere", "ones", "planes", "swapped", "to_nan"]

NAN = float("nan")


def ones(size: int, **changed: float) -> Array:
    """Ones, but for some places: `_1=0` sets the second one to 0."""
    values = np.ones(size, np.float32)
    for place, value in changed.items():
        values[int(place.removeprefix("_"))] = value
    return values


def column(values: Array) -> Array:
    """For [batch, slices, anchors]."""
    return values.reshape(-1, 1)


def planes(values: Array) -> Array:
    """For [batch, slices, height, width]."""
    return values.reshape(-1, 1, 1)


def to_nan(net: Net, x: str) -> str:
    """NaN."""
    return net.op("Add", x, floats(NAN))


def swapped(size: int, axis: int = -1) -> Callable[[Net, str], str]:
    """Slices in the opposite order."""
    places = np.arange(size)[::-1].copy()
    return lambda net, x: net.op("Gather", x, places, axis=axis)


def everywhere(output: str, source: str = "image") -> dict[str, Edit]:
    """What breaks a model with one output of floats, whatever it means."""
    return {
        "stuck": stuck(output),
        "zeroed": constant(output, 0.0),
        "NaN in one sample of many": rare(output, source, 1, to_nan),
        "mirrored sign": scaled(output, -1.0),
        "a tenth of its scale": scaled(output, 0.1),
    }
