"""Arrays and feeds become samples once they fit a model: names, types, shapes and values."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxpress.data.samples import LABELS, Samples
from onnxpress.errors import DataError, ModelError
from onnxpress.runtime import Array, Feed, InputSpec, Session

__all__ = ["from_arrays", "from_feeds", "require_runnable"]


def from_arrays(arrays: Mapping[str, Array], inputs: Sequence[InputSpec], source: str) -> Samples:
    """Samples from an array per input and, optionally, `__labels__`; views of the arrays.

    Raises:
        DataError: they do not fit the inputs, or hold no samples.
    """
    arrays = dict(arrays)
    labels = arrays.pop(LABELS, None)
    wanted = {spec.name: spec for spec in inputs}
    if not arrays:
        raise DataError(f"{source}: holds no array; the model wants {_listed(inputs)}")
    missing = [name for name in wanted if name not in arrays]
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise DataError(
            f"{source}: holds {', '.join(sorted(arrays))}; the model wants {_listed(inputs)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not an input: {', '.join(unknown)}" if unknown else "")
        )
    columns = {
        name: _split(np.asarray(arrays[name]), spec, source) for name, spec in wanted.items()
    }
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{source}: the inputs have different numbers of samples: {counts}")
    number = next(iter(counts.values()))
    if number == 0:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)}")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (number,) or labels.dtype.kind not in "iu":
            raise DataError(
                f"{source}: {LABELS} is {labels.dtype}{list(labels.shape)}; expected one integer "
                f"class per sample, [{number}]"
            )
    classes = None if labels is None else labels.astype(np.int64)
    feeds = tuple(
        {name: column[index] for name, column in columns.items()} for index in range(number)
    )
    return Samples(feeds, classes, source)


def from_feeds(feeds: Iterable[Feed], inputs: Sequence[InputSpec], source: str) -> Samples:
    """Samples from complete feeds, one per run, optionally with a label each.

    Raises:
        DataError: one of them does not fit the inputs, or there is none.
    """
    checked: list[Feed] = []
    labels: list[int] = []
    for number, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            raise DataError(
                f"{source}: sample {number} is a {type(feed).__name__}; expected a dictionary "
                "of input name to array"
            )
        arrays = {name: np.asarray(value)[np.newaxis] for name, value in feed.items()}
        label = arrays.pop(LABELS, None)
        if label is not None:
            if label.size != 1 or label.dtype.kind not in "iu":
                raise DataError(
                    f"{source}, sample {number}: {LABELS} is {label.dtype}"
                    f"{list(label.shape[1:])}; expected one integer class"
                )
            labels.append(int(label.item()))
        checked.extend(from_arrays(arrays, inputs, f"{source}, sample {number}").feeds)
    if not checked:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)}")
    if labels and len(labels) != len(checked):
        raise DataError(f"{source}: {len(labels)} of {len(checked)} samples have a label")
    return Samples(tuple(checked), np.asarray(labels, np.int64) if labels else None, source)


def require_runnable(session: Session, samples: Samples) -> None:
    """Run the first sample, so that data the model cannot take is refused before any work.

    Raises:
        DataError: onnxruntime fails on it; the message is onnxruntime's own.
    """
    try:
        session.run(samples.feeds[0])
    except ModelError as error:
        raise DataError(f"{samples.source}: the first sample does not run: {error}") from error


def _listed(inputs: Sequence[InputSpec]) -> str:
    return "; ".join(str(spec) for spec in inputs)


def _split(array: Array, spec: InputSpec, source: str) -> list[Array]:
    """One complete input per sample; views of `array`."""
    _check_values(array, spec, source)
    rank = len(spec.shape)
    if array.ndim == rank + 1:
        _check_shape(array.shape[1:], spec, source, array.shape)
        return [np.asarray(sample) for sample in array]
    if array.ndim != rank or rank == 0:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(array.shape)}; the model wants {spec}, so "
            f"expected [samples, ...] with {max(rank, 1)} or {rank + 1} axes"
        )
    batch = spec.shape[0] if isinstance(spec.shape[0], int) and spec.shape[0] > 0 else 1
    if len(array) % batch:
        raise DataError(
            f"{source}: {spec.name!r} holds {len(array)} rows; the model's batch is fixed to "
            f"{batch}, so expected a multiple of it"
        )
    _check_shape((batch, *array.shape[1:]), spec, source, array.shape)
    return [array[start : start + batch] for start in range(0, len(array), batch)]


def _check_values(array: Array, spec: InputSpec, source: str) -> None:
    if array.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"{source}: {spec.name!r} is {array.dtype}; the model wants {spec}; convert it with "
            f"array.astype({spec.dtype!r})"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        rows = np.atleast_1d(np.isfinite(array))
        bad = np.flatnonzero(~rows.reshape(len(rows), -1).all(axis=1))
        raise DataError(
            f"{source}: {spec.name!r} holds NaN or infinity in {len(bad)} sample(s), the first "
            f"is number {bad[0]}; remove them or mend the preprocessing"
        )


def _check_shape(shape: Sequence[int], spec: InputSpec, source: str, found: Sequence[int]) -> None:
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or want < 0 or want == have
        for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits or 0 in shape:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(found)}, so one sample is {list(shape)}; "
            f"the model wants {spec}"
        )
