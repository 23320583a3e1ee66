"""What can be had: models from nothing lost to all of the budget, none beaten by another.

The plan is followed with shares of the budget, each a quarter of what the one before really spent,
until nothing is lost any more; what comes of each is judged on untouched samples. As several are
judged on the same samples, every bound is as wide as all of them together need (Bonferroni).

A model is beaten where another one is no larger, loses no more, and is not slower as far as the
clock can tell (the quartiles of their speedups overlap). Of two drops whose bounds overlap, which
a few answers decide, the samples say nothing: there one loses no more whose worst output is as
near. Where the goal accepts a slower model, or the target runs elsewhere, time does not count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress import model_file
from onnxpress.attempts import best_attempt, judged, part_of_run
from onnxpress.constraints import Constraints
from onnxpress.errors import UsageError
from onnxpress.finishing import finished
from onnxpress.judge import Evaluator
from onnxpress.original import Run
from onnxpress.prepared import Prepared, prepared
from onnxpress.progress import Progress
from onnxpress.request import Request
from onnxpress.result import Result
from onnxpress.runtime import numpy_threads
from onnxpress.stages import NO_TIME, NOT_NEEDED

__all__ = ["MOST_MODELS", "Frontier", "explore", "undominated"]

MOST_MODELS = 8
_QUARTER = 0.25
"""Of what was spent: 6 dB apart."""
_LEAST_SHARE = 1e-4
"""Of the budget, 40 dB: what loses less is for people as good as the original."""
_MARGIN = 0.8
"""Of what would just have held, where a model broke the budget on untouched samples."""


@dataclass(frozen=True)
class Frontier:
    """Models of which none is beaten by another, from the smallest on.

    Attributes:
        models: each with its recipe and its verdict.
        judged: how many were judged on the untouched samples, those that are left out among them.
        notes: what was left out and why, in sentences.
    """

    models: tuple[Result, ...]
    judged: int
    notes: tuple[str, ...] = ()


def explore(request: Request) -> Frontier:
    """Models between nothing lost and all of the budget: 3 to 8 where the passes have as many.

    Args:
        request: as for `optimize`; its budget is where the frontier ends.

    Raises:
        UsageError: sizes and speeds are asked for, or a recipe has decided already.
        OnnxpressError: the input cannot be used.
    """
    with numpy_threads(request.threads):
        found = _explored(request)
        request.progress(Progress("done", fraction=1.0))
    return found


def _explored(request: Request) -> Frontier:
    _require_unconstrained(request.constraints)
    ready = prepared(request)
    if isinstance(ready, Result):
        return Frontier((ready,), 0, ("nothing could be searched, so that there is one model",))
    recipe = ready.work.recipe
    _require_unconstrained(recipe.constraints)
    if not any(s.decisions is None and s.pass_.stage.loses for s in recipe.stages):
        raise UsageError(
            "none of the passes has anything to decide that loses something (a recipe decides "
            "all), so that there is nothing to explore [U008]"
        )
    # The bounds of each hold together with those of all the others.
    ready.judge.looks = MOST_MODELS
    found: list[Result] = []
    notes: list[str] = []
    judged_models = 0
    share: float | None = 0.0 if ready.late else 1.0
    if ready.late:
        notes.append("there is no time for a search: what is written loses nothing [L010]")
    splits: Mapping[str, float] | None = None
    while share is not None and judged_models < MOST_MODELS:
        if found and (request.stop() or ready.work.options.out_of_time()):
            notes.append("ended before all shares of the budget were tried [L010]")
            break
        result, spent, splits = _one(ready, share, judged_models, splits)
        judged_models += 1
        if result.validation is not None and result.validation.within_budget:
            found.append(result)
        else:
            notes.append(
                f"what was chosen with {share:.2%} of the budget broke it on untouched samples"
            )
        share = _next_share(share, spent, result, ready.judge)
        if share == 0 and request.named:
            break
    timed = ready.work.target.timed_here and not request.objective.accepts_slower
    kept = undominated(found, timed=timed)
    beaten = len(found) - len(kept)
    if beaten:
        notes.append(f"left out: {beaten} that another is no larger, no worse and no slower than")
    return Frontier(tuple(kept), judged_models, tuple(notes))


def _require_unconstrained(constraints: Constraints) -> None:
    """Refuse what a frontier is no answer to.

    Raises:
        UsageError: a size or speed is asked for, by the user or a recipe.
    """
    if constraints:
        raise UsageError(
            "a frontier shows what every size and speed costs: leave max size, min speedup and "
            "max latency out, also of a recipe [U008]"
        )


def _one(
    ready: Prepared, share: float, number: int, splits: Mapping[str, float] | None
) -> tuple[Result, float, Mapping[str, float]]:
    """The model of a share, judged, what it spent on the samples that choose, and on which pools.

    The first one searches how a budget is divided among pools; those after it keep to that.
    """
    run = part_of_run(ready.work, number / MOST_MODELS, (number + 1) / MOST_MODELS)
    run = _with_time(run, MOST_MODELS - number)
    attempt = best_attempt(run, share, splits, why=NO_TIME if ready.late else NOT_NEEDED)
    validation = judged(run, ready.judge, attempt)
    said = (*validation.warnings, *attempt.notes)
    result = finished(ready, attempt, replace(validation, warnings=said), looked_into=False)
    spent = 0.0 if not attempt.lossy else run.evaluator.spent_anywhere(attempt.measurement)
    return result, min(spent, share), attempt.splits if splits is None else splits


def _with_time(run: Run, left: int) -> Run:
    """The first model has half of the time, as the others know what it found out."""
    parts = min(2, left)
    return replace(run, options=run.options.with_part_of_time(parts))


def _next_share(share: float, spent: float, result: Result, judge: Evaluator) -> float | None:
    """The share to try next; `None` after the model that loses nothing."""
    if share == 0:
        return None
    found = result.validation
    less = _QUARTER * spent
    if found is not None and not found.within_budget:
        over = judge.spent_anywhere(found.measurement)
        less = share * min(0.5, _MARGIN / over if math.isfinite(over) and over > 1 else 0.5)
    return less if less >= _LEAST_SHARE else 0.0


def undominated(results: Sequence[Result], *, timed: bool) -> list[Result]:
    """Those that no other one beats, from the smallest on; of two alike the first.

    Args:
        results: models of one original.
        timed: whether a faster one may be larger or lose more.
    """
    rows = [(_bytes(result), _spent(result), result) for result in results]
    kept: list[_Row] = []
    # What beats another one stands before it; of two alike the first.
    for row in sorted(rows, key=lambda row: (*row[:2], -_speedup(row[2]) * timed)):
        if not any(_beats(other, row, timed=timed) for other in kept):
            kept.append(row)
    return [result for _, _, result in kept]


_Row = tuple[int, float, Result]


def _beats(one: _Row, other: _Row, *, timed: bool) -> bool:
    """Whether one that is as small loses no more and is not clearly slower."""
    loses_more = one[1] > other[1] and not _as_near(one[2], other[2])
    return not loses_more and not (timed and _clearly_slower(one[2], other[2]))


def _as_near(one: Result, other: Result) -> bool:
    """Whether the samples do not tell the drops apart, and by the worst output one is as near."""
    if one.validation is None or other.validation is None:
        return False
    found, held = one.validation.measurement, other.validation.measurement
    first, second = found.worst_metric, held.worst_metric
    if first is None or second is None or first.interval[0] > second.interval[1]:
        return False
    return found.worst_sqnr_db >= held.worst_sqnr_db


def _clearly_slower(one: Result, other: Result) -> bool:
    """Whether the quartiles of both speedups lie apart."""
    if one.validation is None or other.validation is None:
        return False
    return one.validation.latency.high < other.validation.latency.low


def _speedup(result: Result) -> float:
    return 0.0 if result.validation is None else result.validation.latency.speedup


def _bytes(result: Result) -> int:
    return model_file.whole_size(result.model)


def _spent(result: Result) -> float:
    return 0.0 if result.spent is None else result.spent
