"""Judge a pipeline by what it gives in the end, and put in figures what its user would see.

The logits of every step, on the same tokens (`running`), are read as scores of steps by
`onnxpress.judge`: agreement of the best token, exp(−KL), SQNR, each with its bound. What is
generated freely is only counted: one other token changes all that follow, in any direction.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.errors import UsageError
from onnxpress.judge import Budget, Evaluator, Kind, Reading
from onnxpress.pipelines.fitting import Wiring
from onnxpress.pipelines.running import FORCED, Running
from onnxpress.pipelines.transcripts import Integers, Transcripts

__all__ = ["Figure", "Figures", "evaluator_of", "figures_of", "token_errors"]

_FREE = 32
"""Samples for which tokens are generated freely."""
_ROUNDS = 5
_CONFIDENCE = 0.95


def evaluator_of(running: Running, samples: Samples, budget: Budget) -> Evaluator:
    """Judges pipelines against the original on samples with the tokens to follow.

    Raises:
        UsageError: the task asked for is another than to generate.
    """
    wiring = running.wiring
    last = wiring.pipeline.part(running.last)
    if last.loop is None:
        model = model_file.load(last.model)
        # States that are carried show in all answers behind them.
        carried = set() if last.stream is None else set(last.stream.states.values())
        judged = [value for value in model.graph.outputs if value.name not in carried]
        model.graph.outputs[:] = judged or list(model.graph.outputs)
        return Evaluator(running, samples, budget, model=model, steps=last.stream is not None)
    if budget.task not in (None, Kind.SEQUENCE):
        raise UsageError(
            f"--task is {budget.task!r}, and the logits of a loop are judged as {Kind.SEQUENCE}; "
            "leave it out [U005]"
        )
    name = last.loop.logits
    reading = Reading(
        name, Kind.SEQUENCE, "logits of every step", "the loop reads tokens of it", "logits", 2
    )
    return Evaluator(running, samples, budget, readings={name: reading})


@dataclass(frozen=True, slots=True)
class Figure:
    """Something counted of both pipelines.

    Attributes:
        name: in words, with its unit.
        original: of the original.
        result: of the result.
        level: whether it is dB of signal to noise, infinite where there is no noise.
    """

    name: str
    original: float
    result: float
    level: bool = field(default=False, kw_only=True)


Figures = tuple[Figure, ...]


def figures_of(original: Running, result: Running, samples: Samples) -> Figures:
    """What its user would see besides: of tokens or of a recording, and time a step."""
    last = original.wiring.pipeline.part(original.last)
    if last.stream is not None:
        return _of_recordings(original, result, samples, last.name)
    if last.loop is None:
        return ()
    found = []
    if known_tokens(original.wiring):
        values = [perplexity(running, samples) for running in (original, result)]
        found.append(Figure("perplexity of a token", *values))
    few = samples.feeds[:_FREE]
    pairs = [(original.tokens(feed), result.tokens(feed)) for feed in few]
    exact = float(np.mean([np.array_equal(one, other) for one, other in pairs]))
    found.append(Figure("texts generated the same, %", 100.0, 100 * exact))
    found.append(Figure("tokens before the first other one", *_before_other(pairs)))
    speeds = _a_second(original, result, few[0], few[0][FORCED].shape[1])
    found.append(Figure("tokens a second", *speeds))
    return tuple(found)


def token_errors(transcripts: Transcripts, wrong: Integers, confidence: float | None) -> Figures:
    """Wrong tokens by the labels, and how many more there may be on other samples.

    Args:
        transcripts: what is right.
        wrong: tokens of the result, `[n]`.
        confidence: of the bound; `None`: 95%.
    """
    sure = _CONFIDENCE if confidence is None else confidence
    rates = [transcripts.rate(x) for x in (transcripts.original, wrong)]
    exact = [100 * float(np.mean(x == 0)) for x in (transcripts.original, wrong)]
    most = transcripts.most(wrong, sure)
    return (
        Figure("wrong tokens by the labels, %", *rates),
        Figure(f"points more at most, with {sure:.0%}", 0.0, most),
        Figure("texts without a wrong token, %", *exact),
    )


def _of_recordings(original: Running, result: Running, samples: Samples, part: str) -> Figures:
    """How near the answers stay as states are carried on, and pieces a second."""
    signal: np.ndarray | float = 0.0
    noise: np.ndarray | float = 0.0
    for feed in samples.feeds[:_FREE]:
        pairs = [running.run(feed) for running in (original, result)]
        floats = [name for name, x in pairs[0].items() if x.dtype.kind == "f" and x.ndim]
        axes = original.step_axes
        sums = [_first_and_last(pairs[0][n], pairs[1][n], axes[n]) for n in floats]
        own = np.asarray(sums, np.float64).reshape(-1, 2, 2).transpose(1, 2, 0)
        signal, noise = signal + own[:, 0], noise + own[:, 1]
    found = []
    if np.size(signal):
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = np.where(noise == 0, math.inf, 10 * np.log10(signal / noise))
        for words, level in zip(("first", "last"), levels.min(axis=1), strict=True):
            name = f"dB in the {words} quarter of recordings"
            found.append(Figure(name, math.inf, float(level), level=True))
    calls: list[str] = []
    counted = Running(original.wiring, original.sessions, lambda call: calls.append(call.part))
    counted.run(samples.feeds[0])
    speeds = _a_second(original, result, samples.feeds[0], calls.count(part))
    return (*found, Figure("pieces a second", *speeds))


def _first_and_last(
    reference: np.ndarray, found: np.ndarray, axis: int
) -> list[tuple[float, float]]:
    """Signal and noise in the first and the last quarter along an axis."""
    number = reference.shape[axis]
    size = max(number // 4, 1)
    sums = []
    for places in (range(size), range(number - size, number)):
        one, other = (x.take(places, axis).astype(np.float64) for x in (reference, found))
        sums.append((float(((one - one.mean()) ** 2).sum()), float(((one - other) ** 2).sum())))
    return sums


def known_tokens(wiring: Wiring) -> bool:
    """Whether samples hold what should follow a prompt."""
    loop = wiring.pipeline.loop
    return loop is not None and loop.start is None and loop.prompt > 0


def perplexity(running: Running, samples: Samples) -> float:
    """Exp of the mean −log p of the tokens to follow."""
    loss, number = 0.0, 0
    for feed in samples.feeds:
        (logits,) = running.run(feed).values()
        wide = logits.astype(np.float64)
        wide -= wide.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(wide, feed[FORCED][..., np.newaxis].astype(np.int64), axis=-1)
        loss += float((np.log(np.exp(wide).sum(axis=-1)) - chosen[..., 0]).sum())
        number += chosen.size
    return math.exp(loss / max(number, 1))


def _before_other(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Mean lengths of what the original generates, and of the part that is the same."""
    lengths, same = [], []
    for one, other in pairs:
        size = min(one.shape[1], other.shape[1])
        differ = (one[:, :size] != other[:, :size]).any(axis=0)
        lengths.append(one.shape[1])
        same.append(int(differ.argmax()) if differ.any() else size)
    return float(np.mean(lengths)), float(np.mean(same))


def _a_second(
    original: Running, result: Running, feed: Mapping[str, np.ndarray], steps: int
) -> tuple[float, float]:
    """Medians of interleaved rounds, a sample alone, on the same tokens or pieces."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(_ROUNDS):
        for place, running in enumerate((original, result)):
            started = time.perf_counter()
            running.run(feed)
            times[place].append(time.perf_counter() - started)
    return steps / median(times[0]), steps / median(times[1])
