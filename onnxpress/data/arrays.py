"""Samples from a dictionary of arrays, for callers in Python."""

from collections.abc import Mapping, Sequence

from onnxpress.data.checks import from_arrays
from onnxpress.data.reader import Reader
from onnxpress.data.samples import Samples
from onnxpress.runtime import Array, InputSpec

__all__ = ["READER"]


def _accepts(data: object) -> bool:
    return isinstance(data, Mapping)


def _read(data: Mapping[str, Array], inputs: Sequence[InputSpec]) -> Samples:
    return from_arrays(data, inputs, "the given arrays")


READER = Reader("in Python, a dictionary of arrays", _accepts, _read)
