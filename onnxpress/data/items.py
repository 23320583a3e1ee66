"""Samples from a Python iterable: dictionaries, tuples or arrays, single ones or whole batches.

What a data loader of a training framework gives is taken as it is: tensors by their `__array__`,
which needs none of these frameworks. An item is one of

- a mapping of input name to array, with `labels` or `label` (or `__labels__`) where there are any;
- a tuple or list, the inputs in the model's order; one more at the end is the label;
- an array, where the model has one input.

It is read once, from the first item to the last, so that a generator will do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxpress.data.checks import from_arrays, from_feeds
from onnxpress.data.samples import GROUPS, LABELS, Samples
from onnxpress.errors import DataError
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = ["array_of", "is_array", "is_iterable", "read_items"]

_SOURCE = "the given iterable"
_MOST_BYTES = 2_000_000_000
"""Of all items: they are held in memory, and some iterables never end."""
_LABELS = ("labels", "label")
_NO_BATCH = ("seq", "time", "len", "frame", "token", "sample", "step")
"""In the name of a first axis that is not the batch."""


def is_array(data: object) -> bool:
    """Whether it is one array, of whatever library."""
    return hasattr(data, "__array__") and not isinstance(data, type)


def is_iterable(data: object) -> bool:
    """Whether it gives items: not text, a path or a mapping."""
    if isinstance(data, str | bytes | Mapping | type):
        return False
    return hasattr(data, "__iter__") or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def array_of(value: Any, dtype: str | None, where: str) -> Array:  # noqa: ANN401 - whatever the user gave
    """An array of what the user gave; numbers and lists of Python take the type of the input.

    Args:
        value: an array or tensor of any library, a number, a text, or lists of them.
        dtype: of the input; `None`: as numpy takes it.
        where: for messages.

    Raises:
        DataError: it is no array.
    """
    if value is None:
        # numpy makes it NaN.
        raise DataError(f"{where}: a NoneType cannot be made an array [D003]")
    try:
        # Of a tensor that is tracked by autograd, or lies on another device.
        for name in ("detach", "cpu"):
            value = getattr(value, name)() if callable(getattr(value, name, None)) else value
        array = np.asarray(value) if is_array(value) else np.asarray(value, dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(
            f"{where}: a {type(value).__name__} cannot be made an array ({error}); expected what "
            "numpy.asarray takes [D003]"
        ) from error
    return array


def read_items(items: Iterable[object], inputs: Sequence[InputSpec]) -> Samples:
    """Samples of an iterable, which is read once.

    Arrays without the axis of the batch get it; where the first axis of all inputs is one batch,
    items that hold several rows are divided, and rows are put together where the model's batch is
    fixed to more than one. Other items are fed whole.

    Args:
        items: see above; a dataset with `__getitem__` and `__len__` alone will do.
        inputs: of the model.

    Raises:
        DataError: an item does not fit, with its index; there is none; or the iterable raised.
    """
    batch = _batch(inputs)
    found = _Found(inputs, batch)
    note = ""
    for number, item in _numbered(items):
        found.add(item, number)
        if found.nbytes > _MOST_BYTES:
            note = (
                f"{_SOURCE}: read up to item {number}, as they take {found.nbytes / 1e9:.1f} GB of "
                "memory by then"
            )
            break
    if not found.feeds:
        few = f": {len(found.rows)} row(s), and the model takes {batch} at a time"
        raise DataError(
            f"{_SOURCE}: holds no samples{few if found.rows else ''}; a generator gives its items "
            "once: make it anew, or give a list [D005]"
        )
    notes = [note] if note else []
    if found.rows:
        notes.append(
            f"{_SOURCE}: the last {len(found.rows)} rows are left out: the model takes {batch} at "
            "a time"
        )
    samples = from_feeds(found.feeds, inputs, _SOURCE)
    return replace(samples, notes=(*notes, *sorted(found.notes)))


def _numbered(items: Any) -> Iterator[tuple[int, object]]:  # noqa: ANN401 - whatever the user gave
    """The items with their indices.

    Raises:
        DataError: the iterable raised.
    """
    number = -1
    try:
        given = items if hasattr(items, "__iter__") else (items[i] for i in range(len(items)))
        for number, item in enumerate(given):
            yield number, item
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{_SOURCE}: raised {type(error).__name__} after {number + 1} items: {error} [D016]"
        ) from error


def _batch(inputs: Sequence[InputSpec]) -> int:
    """Rows of a sample where the first axis of all inputs is the same batch; 0 where it is not."""
    firsts = {spec.shape[0] if spec.shape else None for spec in inputs}
    if len(firsts) != 1 or not all(spec.shape for spec in inputs):
        return 0
    (first,) = firsts
    if isinstance(first, int) and first > 0:
        return first
    named = isinstance(first, str) and any(part in first.lower() for part in _NO_BATCH)
    return 0 if named and "batch" not in str(first).lower() else 1


@dataclass
class _Found:
    """What was read so far.

    Attributes:
        inputs: of the model.
        batch: rows of a sample; 0: items are fed whole.
        feeds: samples, with labels beside them.
        rows: that wait for others to make a sample.
        nbytes: of all of them.
        notes: what was assumed.
    """

    inputs: Sequence[InputSpec]
    batch: int
    feeds: list[Feed] = field(default_factory=list)
    rows: list[Feed] = field(default_factory=list)
    nbytes: int = 0
    notes: set[str] = field(default_factory=set)

    def add(self, item: object, number: int) -> None:
        """Take an item.

        Raises:
            DataError: it does not fit.
        """
        where = f"{_SOURCE}, item {number}"
        feed = self._named(item, where)
        self.nbytes += sum(array.nbytes for array in feed.values())
        count = self._rows_in(feed)
        if not count:
            self._check(feed, where)
            self.feeds.append(feed)
            return
        for row in range(count):
            self.rows.append({name: array[row : row + 1] for name, array in feed.items()})
            if len(self.rows) == self.batch:
                names = self.rows[0]
                joined = {n: np.concatenate([one[n] for one in self.rows]) for n in names}
                self._check(joined, where)
                self.feeds.append(joined)
                self.rows = []

    def _check(self, feed: Feed, where: str) -> None:
        own = {n: a[np.newaxis] for n, a in feed.items() if n not in (LABELS, GROUPS)}
        from_arrays(own, self.inputs, where)

    def _named(self, item: object, where: str) -> dict[str, Array]:
        """The arrays of an item by the names of inputs; labels as `__labels__`."""
        specs = {spec.name: spec for spec in self.inputs}
        if isinstance(item, Mapping):
            given = dict(item)
            beside = [name for name in _LABELS if name in given and name not in specs]
            for name in beside:
                given.setdefault(LABELS, given.pop(name))
        elif isinstance(item, tuple | list) and self._is_row_of_inputs(item):
            given = dict(zip([*specs, LABELS], item, strict=False))
        elif len(specs) == 1:
            given = {self.inputs[0].name: item}
        else:
            raise DataError(
                f"{where}: is a {type(item).__name__}; the model has {len(specs)} inputs, so "
                f"expected a dictionary or a tuple with {', '.join(specs)} [D003]"
            )
        feed = {}
        for name, value in given.items():
            dtype = specs[name].dtype if name in specs else None
            array = array_of(value, dtype, f"{where}, {name!r}")
            if name == LABELS and array.dtype.kind not in "iu":
                self.notes.add(f"{_SOURCE}: what stands for labels is no class number: not used")
                continue
            feed[name] = array
        return feed

    def _is_row_of_inputs(self, item: Sequence[object]) -> bool:
        """Whether a tuple or list holds inputs, and not the numbers of one."""
        count = len(self.inputs)
        numbers = count == 1 and item and isinstance(item[0], int | float | bool)
        return len(item) in (count, count + 1) and not numbers

    def _rows_in(self, feed: dict[str, Array]) -> int:
        """How many rows an item holds, now with the axis of the batch; 0: it is fed whole."""
        if not self.batch:
            return 0
        own = [(spec, feed[spec.name]) for spec in self.inputs if spec.name in feed]
        if own and all(array.ndim == len(spec.shape) - 1 for spec, array in own):
            for name, array in feed.items():
                feed[name] = array[np.newaxis]
            return 1
        counts = {len(array) for _, array in own if array.ndim}
        if len(counts) != 1 or any(array.ndim != len(spec.shape) for spec, array in own):
            return 0
        (count,) = counts
        beside = [feed[name] for name in (LABELS, GROUPS) if name in feed]
        return count if all(array.ndim and len(array) == count for array in beside) else 0
