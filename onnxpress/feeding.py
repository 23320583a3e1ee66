"""What a model would be fed, and what looks wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress import model_file
from onnxpress.conversion import opened_file
from onnxpress.data import Data, Samples, load_prepared, require_runnable
from onnxpress.data.copies import contents, shared
from onnxpress.data.files import spread
from onnxpress.data.pictures import geometry_of
from onnxpress.errors import ModelError
from onnxpress.judge import Kind, Reading, read_outputs
from onnxpress.report.pictures import fed_document
from onnxpress.report.reading import reading_document
from onnxpress.runtime import Array, InputSpec, Session

__all__ = ["look_at_samples"]

_RUN = 32
"""Samples that are run: enough to tell a large difference, and seconds on any model."""
_SHOWN = 3
"""Samples, spread over all."""
_SHAPES = 4
_CLEARLY = 0.1
"""Of the share of right answers, or of the mean confidence, that one way of feeding beats another
by, and which it has on three quarters of the samples."""
_MOSTLY = 0.75
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

_IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
"""Mean and deviation of the pictures that most classifiers were trained on."""


def look_at_samples(
    model: str | Path,
    data: Data,
    *,
    evaluation: Data | None = None,
    preparation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Names, types, shapes and ranges of what is fed, three samples, and what looks wrong.

    How outputs are read is among it; the samples are pictures, sounds and texts where they can be.

    Args:
        model: the file.
        data: samples.
        evaluation: other samples, which must have none in common with them.
        preparation: how a recipe says that files are prepared (`Recipe.preparation`).

    Raises:
        ModelError: the file is no model, or onnxruntime cannot run it.
        DataError: samples that do not fit the model.
    """
    file = Path(model)
    graph = model_file.load(file)
    session = opened_file(file)
    samples = load_prepared(data, session.inputs, preparation or {})
    require_runnable(session, samples)
    few = samples.take(spread(len(samples), _RUN))
    answers = [session.run(feed) for feed in few.feeds]
    readings = read_outputs(graph, session, answers)
    problems = [
        *_odd_values(samples, session.inputs),
        *_repeated(samples),
        *_odd_labels(few, readings, answers),
        *_fed_otherwise(session, few, readings, answers),
    ]
    notes = list(samples.notes)
    if evaluation is not None:
        others = load_prepared(evaluation, session.inputs, preparation or {})
        require_runnable(session, others)
        notes += others.assumed_beside(samples)
        said = shared(others, samples)
        problems += [said] if said else []
    return {
        "model": str(file),
        "source": samples.source,
        "samples": len(samples),
        "inputs": [_input(spec, samples) for spec in session.inputs],
        "labels": _labels(samples),
        "shown": [_shown(samples, index) for index in spread(len(samples), _SHOWN)],
        "readings": [reading_document(reading) for reading in readings.values()],
        "notes": notes,
        "problems": problems,
    }


def _shown(samples: Samples, index: int) -> dict[str, Any]:
    return {
        "sample": samples.place(index),
        "text": samples.texts[index] if samples.texts else "",
        "fed": fed_document(samples.feeds[index], samples.rates),
    }


def _input(spec: InputSpec, samples: Samples) -> dict[str, Any]:
    """What one input is fed; ranges of numbers, a first text of strings."""
    arrays = [feed[spec.name] for feed in samples.feeds]
    shapes = Counter(tuple(array.shape) for array in arrays)
    found: dict[str, Any] = {
        "name": spec.name,
        "type": spec.dtype,
        "wanted": [dim if isinstance(dim, int | str) else None for dim in spec.shape],
        "shapes": [list(shape) for shape, _ in shapes.most_common(_SHAPES)],
        "more_shapes": max(0, len(shapes) - _SHAPES),
    }
    if spec.dtype == "object":
        return {**found, "first": str(arrays[0].reshape(-1)[0]) if arrays[0].size else ""}
    finite = [values for array in arrays if (values := _finite(array)).size]
    names = ("low", "high", "mean", "deviation")
    if not finite:
        return {**found, **dict.fromkeys(names)}
    count = sum(values.size for values in finite)
    mean = sum(float(values.sum(dtype=np.float64)) for values in finite) / count
    square = sum(float(np.square(values.astype(np.float64) - mean).sum()) for values in finite)
    low, high = (min(float(v.min()) for v in finite), max(float(v.max()) for v in finite))
    figures = (low, high, mean, (square / count) ** 0.5)
    return {**found, **dict(zip(names, figures, strict=True))}


def _labels(samples: Samples) -> dict[str, Any] | None:
    if samples.labels is None:
        return None
    counts = Counter(samples.labels.reshape(-1).tolist())
    return {
        "classes": len(counts),
        "fewest": min(counts.values()),
        "most": max(counts.values()),
    }


def _odd_values(samples: Samples, inputs: Sequence[InputSpec]) -> Iterator[str]:
    """Inputs that never change, and samples that hold one value throughout."""
    for spec in inputs:
        if spec.dtype in ("object", "bool"):
            continue
        arrays = [feed[spec.name] for feed in samples.feeds]
        flat = [index for index, a in enumerate(arrays) if a.size > 1 and _flat(_finite(a))]
        floats = spec.dtype.startswith("float")
        if floats and 0 < len(flat) < len(arrays):
            yield (
                f"{spec.name!r} has one value throughout in {len(flat)} of {len(arrays)} samples "
                f"(sample {flat[0]}): silence, or an empty picture? [A004]"
            )
        same = all(np.array_equal(arrays[0], other, equal_nan=floats) for other in arrays[1:])
        # Zeros are the state before the first step.
        if floats and len(arrays) > 1 and same and arrays[0].any():
            yield f"{spec.name!r} is the same in all {len(arrays)} samples [A004]"


def _flat(values: Array) -> bool:
    return bool(values.size) and bool((values == values[0]).all())


def _finite(array: Array) -> Array:
    """The numbers of an array that are neither NaN nor infinite; it is flat then."""
    return array[np.isfinite(array)] if array.dtype.kind == "f" else array.reshape(-1)


def _repeated(samples: Samples) -> Iterator[str]:
    found = contents(samples)
    twice = len(samples) - len(set(found))
    if twice:
        at = next(i for i, content in enumerate(found) if content in found[:i])
        yield (
            f"copies of other samples: {twice} of {len(samples)}, the first is sample {at}; they "
            "say nothing new [A002]"
        )


def _scores(reading: Reading, answers: Sequence[Mapping[str, Array]]) -> Floats | None:
    """Probabilities of classes, a row a sample, where an output is one classification a sample."""
    if reading.kind != Kind.CLASSIFICATION or reading.form not in ("probabilities", "logits"):
        return None
    rows = [np.asarray(answer[reading.output], np.float64) for answer in answers]
    if not rows or any(row.size != row.shape[-1] or row.size != rows[0].size for row in rows):
        return None
    table = np.stack([row.reshape(-1) for row in rows])
    if reading.form == "logits":
        table = np.exp(table - table.max(axis=1, keepdims=True))
        table /= table.sum(axis=1, keepdims=True)
    return table


def _odd_labels(
    few: Samples, readings: Mapping[str, Reading], answers: Sequence[Mapping[str, Array]]
) -> Iterator[str]:
    if few.labels is None:
        return
    if few.labels.size > 1 and np.ptp(few.labels) == 0:
        yield f"all labels are {few.labels.flat[0]}: a metric of one class shows nothing [A003]"
        return
    for reading in readings.values():
        scores = _scores(reading, answers)
        known = None if scores is None else _known(few, scores)
        if scores is None or known is None:
            continue
        right = float((scores.argmax(axis=1) == known).mean())
        constant = float(np.bincount(known).max() / len(known))
        if right <= constant:
            yield (
                f"the model's {reading.output!r} is right on {right:.0%} of {len(known)} labels, "
                f"no more than one class for all ({constant:.0%}): the order of the classes, or "
                "how samples are prepared, may not be the model's [A005]"
            )


def _known(few: Samples, scores: Floats) -> Integers | None:
    """The labels, where they are classes of these scores."""
    labels = few.labels
    if labels is None or labels.ndim != 1:
        return None
    return labels if labels.min() >= 0 and labels.max() < scores.shape[1] else None


def _fed_otherwise(
    session: Session,
    few: Samples,
    readings: Mapping[str, Reading],
    answers: Sequence[Mapping[str, Array]],
) -> Iterator[str]:
    """Ways to feed pictures that the model answers with clearly more confidence or more rightly."""
    scored = [(r, s) for r in readings.values() if (s := _scores(r, answers)) is not None]
    if len(session.inputs) != 1 or not scored:
        return
    spec, (reading, usual) = session.inputs[0], scored[0]
    known = _known(few, usual)
    for words, change in _changes(spec, few.feeds[0][spec.name]):
        try:
            changed_answers = [session.run({spec.name: change(f[spec.name])}) for f in few.feeds]
        except ModelError:
            continue
        changed = _scores(reading, changed_answers)
        if changed is None or not np.isfinite(changed).all():
            continue
        if known is None:
            what, before, after = "sure of its answers by", usual.max(axis=1), changed.max(axis=1)
        else:
            what = "right on"
            before, after = ((t.argmax(axis=1) == known).astype(float) for t in (usual, changed))
        better, worse = int((after > before).sum()), int((after < before).sum())
        gained = float(after.mean() - before.mean())
        if gained >= _CLEARLY and better >= _MOSTLY * (better + worse):
            yield (
                f"fed {words}, the model is {what} {after.mean():.0%} instead of "
                f"{before.mean():.0%} ({len(few)} samples): is that how it was trained? [A006]"
            )


def _changes(spec: InputSpec, first: Array) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Other ways to feed what may be pictures of floats, in words and as functions."""
    geometry = geometry_of(spec)
    if geometry is None or not spec.dtype.startswith("float"):
        return
    axis = first.ndim - 1 if geometry.last else first.ndim - 3
    colored = first.shape[axis] == 3
    if colored:
        yield "with red and blue exchanged", lambda a: np.ascontiguousarray(np.flip(a, axis))
    low, high = float(first.min()), float(first.max())
    if low >= 0 and high <= 1:
        yield "0 to 255 in place of 0 to 1", _affine(255, 0)
        yield "-1 to 1 in place of 0 to 1", _affine(2, -1)
        if colored:
            shape = [3 if place == axis else 1 for place in range(first.ndim)]
            mean, deviation = (np.reshape(values, shape) for values in _IMAGENET)
            yield (
                "less ImageNet's mean, over its deviation",
                _affine(1 / deviation, -mean / deviation),
            )
    elif low >= 0 and high > 2:
        yield "0 to 1 in place of 0 to 255", _affine(1 / 255, 0)


def _affine(factor: Floats | float, added: Floats | float) -> Callable[[Array], Array]:
    return lambda array: (array.astype(np.float64) * factor + added).astype(array.dtype)
