"""Samples from what callers in Python hold: a dictionary of arrays, an array, or an iterable."""

from collections.abc import Iterable, Mapping, Sequence

from onnxpress.data.checks import from_arrays
from onnxpress.data.items import array_of, is_array, is_iterable, read_items
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError
from onnxpress.runtime import Array, InputSpec

__all__ = ["READER"]

_SOURCE = "the given arrays"


def _accepts(data: object) -> bool:
    return isinstance(data, Mapping) or is_array(data) or (not path_of(data) and is_iterable(data))


def _read(data: Mapping[str, Array] | Iterable[object], inputs: Sequence[InputSpec]) -> Samples:
    if isinstance(data, Mapping):
        return from_arrays(data, inputs, _SOURCE)
    if not is_array(data):
        return read_items(data, inputs)
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise DataError(
            f"{_SOURCE}: one array is given, and the model has {len(inputs)} inputs; expected a "
            f"dictionary with {names} [D002]"
        )
    array = array_of(data, inputs[0].dtype, _SOURCE)
    return from_arrays({inputs[0].name: array}, inputs, _SOURCE)


READER = Reader(
    "in Python, arrays or an iterable of samples",
    _accepts,
    _read,
)
