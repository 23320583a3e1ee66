"""The samples on which two models answer most differently, with both answers in words.

First by the metric of each kind of output (`metrics`: another class, other objects), then by the
relative error of the output that lost most, ‖reference − found‖² / ‖reference‖².
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxpress.data import Samples
from onnxpress.enumeration import few
from onnxpress.judge.detections import decoded
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.metrics import Metric, metrics_of
from onnxpress.judge.slices import softmax
from onnxpress.runtime import Array, Feed, Session

__all__ = ["Answer", "Disagreement", "Heard", "most_different"]

MOST_SAMPLES = 256
"""That are run."""
_KEPT = 6
_OUTPUTS = 3
"""Of a sample, whose answers are told."""
_NAMED = 5
_SHOWN = 4
"""Numbers of an output that means nothing more."""
_POSITIVE = 0.5
_ALIKE = 0.1
"""By how much of its length a sound that is given may differ from the one that was fed."""

Answers = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Answer:
    """What both models say in one output, in words.

    Attributes:
        output: its name.
        original: what the original answers.
        optimized: what the other one answers.
    """

    output: str
    original: str
    optimized: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What both models give as sound.

    Attributes:
        output: its name.
        rate: values a second, those of the recording that was fed.
        original: the original's.
        optimized: the other one's.
    """

    output: str
    rate: int
    original: Array
    optimized: Array


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One sample.

    Attributes:
        place: where it stands in the data that was given, from 0.
        lost: share of the metric that lost most on it, 0 to 1; 0 where no answer changed.
        error: power of the error over that of the output, of the output that lost most.
        label: the right class, where it is known.
        answers: of the outputs that differ most, at most three.
        feed: what the models were fed.
        rates: values a second of inputs that are recordings, by name.
        heard: outputs that are as long as such an input, and so sound themselves.
    """

    place: int
    lost: float
    error: float
    label: int | None
    answers: tuple[Answer, ...]
    feed: Feed
    rates: Mapping[str, int] = field(default_factory=dict)
    heard: tuple[Heard, ...] = ()


def most_different(
    original: Session,
    optimized: Session,
    samples: Samples,
    readings: Mapping[str, Reading],
    *,
    seconds: float,
) -> tuple[tuple[Disagreement, ...], int]:
    """The samples that differ most, the worst first, and how many were looked at.

    Args:
        original: the first model.
        optimized: the other, with the same outputs.
        samples: in which they are looked for, at most 256 of them.
        readings: of the outputs, by name.
        seconds: that may be spent; what is looked at by then counts.
    """
    started = time.monotonic()
    metrics: list[Metric] | None = None
    found: list[Disagreement] = []
    looked = 0
    for index, feed in enumerate(samples.feeds[:MOST_SAMPLES]):
        reference, answers = original.run(feed), optimized.run(feed)
        if metrics is None:
            every = metrics_of(readings, None, [reference])
            metrics = [metric for metric in every if isinstance(metric, Metric)]
        looked += 1
        errors = {name: _error(reference[name], answers[name]) for name in readings}
        lost = max((_lost(metric, reference, answers) for metric in metrics), default=0.0)
        if lost > 0 or any(errors.values()):
            worst = sorted(filter(errors.get, errors), key=lambda name: -errors[name])[:_OUTPUTS]
            said = tuple(_answer(readings, name, reference, answers) for name in worst)
            label = _label(samples, index)
            error = max(errors.values(), default=0.0)
            heard = tuple(_heard(samples.rates, feed, reference, answers))
            place, rates = samples.place(index), samples.rates
            found.append(Disagreement(place, lost, error, label, said, feed, rates, heard))
            found.sort(key=lambda one: (-one.lost, -one.error, one.place))
            del found[_KEPT:]
        took = (time.monotonic() - started) / looked
        if time.monotonic() - started + took > seconds:
            break
    return tuple(found), looked


def _heard(
    rates: Mapping[str, int], feed: Feed, reference: Answers, found: Answers
) -> Iterator[Heard]:
    """Outputs of one axis that are about as long as a recording that was fed."""
    for name, rate in rates.items():
        length = feed[name].size
        for output, before in reference.items():
            after = found[output]
            alone = np.squeeze(before).ndim == 1 and before.shape == after.shape
            if alone and before.dtype.kind == "f" and abs(before.size - length) <= _ALIKE * length:
                yield Heard(output, rate, before, after)


def _label(samples: Samples, index: int) -> int | None:
    """The label of a sample that has one."""
    labels = samples.labels
    return int(labels[index]) if labels is not None and labels.ndim == 1 else None


def _error(reference: Array, found: Array) -> float:
    """Relative power of the error; infinite where shapes, or values that are not finite, differ."""
    if reference.shape != found.shape:
        return math.inf
    if reference.dtype.kind not in "fiub":
        return float(not np.array_equal(reference, found))
    ref, new = (array.astype(np.float64).reshape(-1) for array in (reference, found))
    # What the original forbids (-inf), or does not know (NaN), is right where it is the same.
    other = ~((ref == new) | (np.isnan(ref) & np.isnan(new)))
    difference, known = ref[other] - new[other], ref[np.isfinite(ref)]
    noise = float(np.einsum("i,i", difference, difference))
    signal = float(np.einsum("i,i", known, known))
    if not math.isfinite(noise):
        return math.inf
    if noise == 0:
        return 0.0
    return noise / signal if signal else math.inf


def _lost(metric: Metric, reference: Answers, found: Answers) -> float:
    """What a sample loses of a metric, as a share of what there is to lose."""
    rows = metric.rows(found, reference, None)
    new, old, weight = rows[:, :3].sum(axis=0)
    return float(max(0.0, old - new) / weight) if weight else 0.0


def _answer(
    readings: Mapping[str, Reading], name: str, reference: Answers, found: Answers
) -> Answer:
    reading = readings[name]
    if reading.kind == Kind.DETECTION:
        group = [r for r in readings.values() if r.kind == Kind.DETECTION]
        return Answer(name, *(_objects(group, answers) for answers in (reference, found)))
    one, other = reference[name], found[name]
    if one.shape != other.shape:
        return Answer(name, f"shape {list(one.shape)}", f"shape {list(other.shape)}")
    return Answer(name, _in_words(reading, one, one), _in_words(reading, other, one))


def _objects(readings: Sequence[Reading], answers: Answers) -> str:
    """How many objects, and the best of them."""
    objects = decoded(readings, answers)
    if not len(objects):
        return "no object"
    best = [
        f"class {label} ({score:.0%})"
        for label, score in zip(objects.labels.tolist(), objects.scores.tolist(), strict=True)
    ]
    return f"{len(objects)} object{'s' if len(objects) != 1 else ''}: {few(best, _NAMED)}"


def _in_words(reading: Reading, output: Array, reference: Array) -> str:
    """An output as its user reads it, beside what the original gives."""
    if output.dtype.kind not in "fiub":
        return ", ".join(str(value) for value in output.reshape(-1)[:_SHOWN].tolist())
    values = output.astype(np.float64)
    classes = reading.kind in (Kind.CLASSIFICATION, Kind.SEQUENCE, Kind.SEGMENTATION)
    if classes and reading.axis is not None and output.dtype.kind == "f":
        return _classes(reading, values, reference)
    if reading.kind == Kind.MULTI_LABEL:
        limit = _POSITIVE if reading.form == "sigmoid" else 0.0
        return _listed("label", np.flatnonzero(values.reshape(-1) > limit).tolist())
    numbers = ", ".join(f"{value:.4g}" for value in values.reshape(-1)[:_SHOWN].tolist())
    return f"{numbers}, … ({output.size:,} numbers)" if output.size > _SHOWN else numbers


def _classes(reading: Reading, values: npt.NDArray[np.float64], reference: Array) -> str:
    """The class and how sure it is; of many steps or pixels, how many are as in the original."""
    assert reading.axis is not None
    decided = _decided(reading, values)
    if decided.size == 1:
        line = values.reshape(-1)
        shares = softmax(line, 0) if reading.form == "logits" else line
        return f"class {int(decided.reshape(-1)[0])} ({float(shares.max()):.0%})"
    what = "steps" if reading.kind == Kind.SEQUENCE else "places"
    kinds = len(np.unique(decided))
    text = f"{kinds} class{'es' if kinds != 1 else ''} in {decided.size:,} {what}"
    if not _exclusive(reading, values):
        text = f"{int(decided.sum()):,} of {decided.size:,} {what} marked"
    others = int((decided != _decided(reading, reference)).sum())
    return f"{text}, {others:,} other than before" if others else text


def _decided(reading: Reading, values: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """The class of each step or pixel; of masks whether it is above the threshold."""
    if _exclusive(reading, values):
        return np.asarray(values.argmax(axis=reading.axis))
    # As the metric tells scores from logits.
    limit = _POSITIVE if values.min(initial=0) >= 0 and values.max(initial=0) <= 1 + 1e-6 else 0.0
    return np.asarray(values.astype(np.float64) > limit, np.intp)


def _exclusive(reading: Reading, values: npt.NDArray[np.generic]) -> bool:
    """Whether a place has one class."""
    assert reading.axis is not None
    return values.shape[reading.axis] > 1 and reading.form != "sigmoid"


def _listed(noun: str, numbers: Sequence[int]) -> str:
    if not numbers:
        return f"no {noun}"
    return f"{noun}{'s' if len(numbers) > 1 else ''} {few(numbers, _NAMED)}"
