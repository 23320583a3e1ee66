"""In how many bits a file holds its float32 weights: in half behind a Cast that is done at load.

A model of such a file is worked on with the float32 weights that its Casts give
(`conversion.half_weights`), and every graph of it carries a `HalfStorage` in its `meta`, which
clones share. Before passes that lose something see the model, and behind each of their rewrites,
its weights are rounded to what half holds, so that what is tried and judged is what will be
written; and weights are counted as the file will hold them.

Rounding to half (11 bits of fraction) leaves about 73 dB of a weight. What is beyond its range is
divided by a power of two, which is exact; where a weight's own range is too wide for that, bfloat16
holds it, with 8 bits of fraction, about 55 dB; else it stays as it is.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import graphs_of, standard_opset
from onnxpress.spill import kept

__all__ = [
    "BFLOAT16_OPSET",
    "LEAST_BYTES",
    "HalfForm",
    "HalfStorage",
    "half_form",
    "is_large",
    "known_exact",
    "note_storage",
    "round_to_storage",
    "storage_of",
    "store_as",
    "stored_bytes",
]

LEAST_BYTES = 512
"""Of a float32 weight: below, a Cast takes more than is saved."""
_LEAST_AXES = 2
"""Biases and scales have one: they are few bytes and lose as much as weights."""
_LEAST_DB = 60.0
"""That a weight keeps as a whole, and each of its rows that is not tiny."""
_BFLOAT16_DB = 48.0
_NOTHING = 2.0**-60
"""Of the other rows' size: what a row has to be below for it not to count."""
BFLOAT16_OPSET = 13
"""From which on Cast takes bfloat16."""
_TOP_EXPONENT = 14
"""Scaled weights end below 2^15, half ends at 65504."""
_KEY = "onnxpress.half_storage"


@dataclass(frozen=True, slots=True)
class HalfStorage:
    """Which float32 weights of a model its file holds in half.

    Attributes:
        half: names of weights that the file that was read holds in half.
        whole: names of those that it holds in float32.
        usual: whether those in half are more bytes; then a weight that passes make, with more than
            one axis, is stored in half too.
    """

    half: frozenset[str]
    whole: frozenset[str]
    usual: bool

    def includes(self, value: ir.Value) -> bool:
        """Whether an initializer is stored in half, by its name, type and shape."""
        tensor = value.const_value
        if tensor is None or value.dtype != ir.DataType.FLOAT or tensor.nbytes < LEAST_BYTES:
            return False
        if value.is_graph_input() or value.is_graph_output() or value.name in self.whole:
            return False
        known = value.name in self.half or _KEY in value.meta
        return known or (self.usual and is_large(tensor))


def is_large(tensor: ir.TensorProtocol) -> bool:
    """Whether a float32 tensor is a weight of which half as many bytes are worth a Cast."""
    several = sum(size > 1 for size in tensor.shape.numpy()) >= _LEAST_AXES
    return several and tensor.nbytes >= LEAST_BYTES


def storage_of(graph: ir.Graph | None) -> HalfStorage | None:
    """How the file of a graph holds weights; `None`: as they are."""
    found = None if graph is None else graph.meta.get(_KEY)
    return found if isinstance(found, HalfStorage) else None


def note_storage(model: ir.Model, storage: HalfStorage | None) -> None:
    """Let every graph of a model say how its file holds weights, in place."""
    for graph in graphs_of(model.graph):
        graph.meta.pop(_KEY, None)
        if storage is not None:
            graph.meta[_KEY] = storage


def stored_bytes(value: ir.Value) -> int:
    """Bytes of an initializer as the file will hold it."""
    assert value.const_value is not None
    storage = storage_of(value.graph)
    half = storage is not None and storage.includes(value)
    return value.const_value.nbytes // (2 if half else 1)


def store_as(made: ir.Value, weight: ir.Value) -> None:
    """Let numbers of a weight be stored in half where that is, whatever their axes."""
    storage = storage_of(weight.graph)
    if storage is not None and storage.includes(weight):
        made.meta[_KEY] = True


def known_exact(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor, of which it is known from now on that half holds it."""
    tensor.meta[_KEY] = True
    return tensor


def round_to_storage(model: ir.Model) -> None:
    """Let weights that are stored in half be what half holds, in place."""
    storage = storage_of(model.graph)
    if storage is None:
        return
    # Functions that were written out since may have brought bodies.
    note_storage(model, storage)
    wide = standard_opset(model) >= BFLOAT16_OPSET
    for graph in graphs_of(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or _KEY in tensor.meta or not storage.includes(value):
                continue
            form = half_form(tensor.numpy(), bfloat16=wide)
            if form is not None and not form.exact:
                tensor = kept(model.graph, ir.Tensor(form.whole(), name=value.name))
            value.const_value = known_exact(tensor)


@dataclass(frozen=True, slots=True)
class HalfForm:
    """A float32 weight in half.

    Attributes:
        kind: `float16`, `scaled float16` or `bfloat16`.
        numbers: of half precision.
        exponent: of the power of two that divided them.
        exact: whether nothing was rounded.
    """

    kind: str
    numbers: npt.NDArray[np.generic]
    exponent: int = 0
    exact: bool = False

    def whole(self) -> npt.NDArray[np.float32]:
        """What it stands for, in float32."""
        array = np.ldexp(self.numbers.astype(np.float32), self.exponent)
        return array.astype(np.float32, copy=False)


def half_form(array: npt.NDArray[np.floating], *, bfloat16: bool) -> HalfForm | None:
    """The first form that keeps a weight; `None` where none does.

    Args:
        array: float32, its rows along the first axis.
        bfloat16: whether the opset can cast it.
    """
    short = ir.DataType.BFLOAT16.numpy()
    with np.errstate(over="ignore"):
        plain = array.astype(np.float16)
    if _same(array, plain.astype(np.float32)):
        return HalfForm("float16", plain, exact=True)
    if bfloat16 and _same(array, (brief := array.astype(short)).astype(np.float32)):
        return HalfForm("bfloat16", brief, exact=True)
    if _keeps(array, plain.astype(np.float32), _LEAST_DB):
        return HalfForm("float16", plain)
    largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    exponent = int(np.frexp(largest)[1]) - 1 - _TOP_EXPONENT
    scaled = np.ldexp(array, -exponent).astype(np.float16)
    back = np.ldexp(scaled.astype(np.float32), exponent)
    if np.isfinite(np.ldexp(np.float32(1), exponent)) and _keeps(array, back, _LEAST_DB):
        return HalfForm("scaled float16", scaled, exponent, exact=_same(array, back))
    if bfloat16 and _keeps(array, (brief := array.astype(short)).astype(np.float32), _BFLOAT16_DB):
        return HalfForm("bfloat16", brief)
    return None


def _same(array: npt.NDArray[np.floating], found: npt.NDArray[np.floating]) -> bool:
    return np.array_equal(array, found, equal_nan=True)


def _keeps(
    array: npt.NDArray[np.floating], found: npt.NDArray[np.floating], least_db: float
) -> bool:
    """Whether each row of the first axis is as near as that, but for rows that are nothing.

    A row that is small beside the others may be magnified behind the layer; one that training gave
    up and left at 1e-40 is not. What is not finite has to be the same.
    """
    finite = np.isfinite(array)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    rows = np.where(finite, array, 0).reshape(array.shape[0], -1)
    error = rows - np.where(finite, found, 0).reshape(rows.shape)
    noise = np.square(error, dtype=np.float64).sum(axis=1)
    power = np.square(rows, dtype=np.float64).sum(axis=1)
    nothing = power.mean() * _NOTHING**2
    return bool(np.all(noise <= np.maximum(power * 10 ** (-least_db / 10), nothing)))
