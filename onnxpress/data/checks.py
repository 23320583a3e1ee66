"""Arrays and feeds become samples once they fit a model: names, types, shapes and values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from onnxpress.data.annotations import checked_groups, checked_labels, one_per_feed
from onnxpress.data.samples import GROUPS, LABELS, Samples
from onnxpress.errors import DataError, ModelError, nearest
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = ["from_arrays", "from_feeds", "require_runnable"]


def from_arrays(arrays: Mapping[str, Array], inputs: Sequence[InputSpec], source: str) -> Samples:
    """Samples from an array per input and, optionally, `__labels__` and `__groups__`; views.

    Raises:
        DataError: they do not fit the inputs, or hold no samples.
    """
    arrays = dict(arrays)
    labels, groups = arrays.pop(LABELS, None), arrays.pop(GROUPS, None)
    wanted = {spec.name: spec for spec in inputs}
    if not arrays:
        raise DataError(f"{source}: holds no array; the model wants {_listed(inputs)} [D002]")
    missing = [name for name in wanted if name not in arrays]
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise DataError(
            f"{source}: holds {', '.join(sorted(arrays))}; the model wants {_listed(inputs)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not an input: {', '.join(unknown)}" if unknown else "")
            + (nearest(unknown[0], missing) if unknown else "")
            + " [D002]"
        )
    columns = {
        name: _split(np.asarray(arrays[name]), spec, source) for name, spec in wanted.items()
    }
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{source}: the inputs have different numbers of samples: {counts} [D004]")
    number = next(iter(counts.values()))
    if number == 0:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)} [D005]")
    feeds = tuple(
        {name: column[index] for name, column in columns.items()} for index in range(number)
    )
    # What the model declares to be empty cannot be anything else.
    meant = all(0 in spec.shape for spec in inputs)
    if not meant and not any(array.size for array in feeds[0].values()):
        raise DataError(
            f"{source}: all inputs of a sample are empty; the model wants {_listed(inputs)} [D005]"
        )
    rows = next((len(array) for array in feeds[0].values() if array.ndim), 1)
    return Samples(
        feeds,
        None if labels is None else checked_labels(labels, number, rows, source),
        source,
        None if groups is None else checked_groups(groups, number, rows, source),
    )


def from_feeds(feeds: Iterable[Feed], inputs: Sequence[InputSpec], source: str) -> Samples:
    """Samples from complete feeds, one per run, optionally with labels and a group each.

    Raises:
        DataError: one of them does not fit the inputs, or there is none.
    """
    checked: list[Feed] = []
    beside: dict[str, list[Array]] = {LABELS: [], GROUPS: []}
    for number, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            raise DataError(
                f"{source}: sample {number} is a {type(feed).__name__}; expected a dictionary "
                "of input name to array [D003]"
            )
        arrays = {name: np.asarray(value)[np.newaxis] for name, value in feed.items()}
        for name, values in beside.items():
            if name in arrays:
                values.append(arrays.pop(name).reshape(-1))
        checked.extend(from_arrays(arrays, inputs, f"{source}, sample {number}").feeds)
    if not checked:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)} [D005]")
    count = len(checked)
    labels, groups = (one_per_feed(name, each, count, source) for name, each in beside.items())
    if groups is not None and groups.shape[1] == 1:
        groups = groups[:, 0]
    return Samples(
        tuple(checked),
        None if labels is None else checked_labels(labels, count, 1, source),
        source,
        None if groups is None else checked_groups(groups, count, 1, source),
    )


class _Runner(Protocol):
    """A session, or what stands for one."""

    def run(self, feed: Feed, /) -> Mapping[str, Array]:
        """The outputs of one sample, by name."""


def require_runnable(session: _Runner, samples: Samples) -> None:
    """Run the first sample, so that data the model cannot take is refused before any work.

    Samples that hold infinity or NaN are run too: in a mask infinity is right, and in a table NaN
    is a value that is missing; in a signal they are not.

    Raises:
        DataError: onnxruntime fails on one of them, in a message of its own, or the model answers
            a sample that is not finite with what is not.
    """
    for number, feed in enumerate(samples.feeds):
        odd = [n for n, a in feed.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
        if number and not odd:
            continue
        try:
            answers = session.run(feed)
        except ModelError as error:
            which = "the first sample" if number == 0 else f"sample {number}"
            raise DataError(f"{samples.source}: {which} does not run: {error} [D007]") from error
        bad = [n for n, a in answers.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
        if odd and bad:
            what = "NaN" if np.isnan(feed[odd[0]]).any() else "infinity"
            raise DataError(
                f"{samples.source}: {odd[0]!r} holds {what} in sample {number}, and the model's "
                f"{bad[0]!r} is not finite then; remove it or mend the preprocessing [D007]"
            )


def _listed(inputs: Sequence[InputSpec]) -> str:
    return "; ".join(str(spec) for spec in inputs)


def _split(array: Array, spec: InputSpec, source: str) -> list[Array]:
    """One complete input per sample; views of `array`, but for strings."""
    if spec.dtype == "object" and array.dtype.kind == "U":
        array = array.astype(object)
    _check_values(array, spec, source)
    rank = len(spec.shape)
    if array.ndim == rank + 1:
        _check_shape(array.shape[1:], spec, source, array.shape)
        return [np.asarray(sample) for sample in array]
    if array.ndim != rank or rank == 0:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(array.shape)}; the model wants {spec}, so "
            f"expected [samples, ...] with {max(rank, 1)} or {rank + 1} axes [D003]"
        )
    batch = spec.shape[0] if isinstance(spec.shape[0], int) and spec.shape[0] > 0 else 1
    if len(array) % batch:
        raise DataError(
            f"{source}: {spec.name!r} holds {len(array)} rows; the model's batch is fixed to "
            f"{batch}, so expected a multiple of it [D003]"
        )
    _check_shape((batch, *array.shape[1:]), spec, source, array.shape)
    return [array[start : start + batch] for start in range(0, len(array), batch)]


def _check_values(array: Array, spec: InputSpec, source: str) -> None:
    if array.dtype != np.dtype(spec.dtype):
        advice = f"convert it with array.astype({spec.dtype!r})"
        if array.dtype.kind == "O":
            advice = (
                "rows of different lengths make no array; give module:function that yields a "
                "dictionary of arrays per sample"
            )
        raise DataError(
            f"{source}: {spec.name!r} is {array.dtype}; the model wants {spec}; {advice} [D003]"
        )


def _check_shape(shape: Sequence[int], spec: InputSpec, source: str, found: Sequence[int]) -> None:
    """Fixed sizes have to fit; dynamic ones may be 0, as the past is at a decoder's first step."""
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or want < 0 or want == have
        for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(found)}, so one sample is {list(shape)}; "
            f"the model wants {spec} [D003]"
        )
