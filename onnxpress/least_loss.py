"""Meet constraints with as little lost as can be: the least share of the budget that reaches them.

The plan is followed with shares of the budget, s, and a share that meets the constraints takes the
place of a larger one. What a model takes, over what is allowed, falls about as a power of the share
that it spends, so that the next share is where the line through the nearest two known, in
logarithms, crosses 1 (regula falsi, kept to the inner part of the bracket). A share that was not
spent whole is known to be more than needed: the next one is below what was spent. What searches of
one model found out is remembered, so that later shares take less time than the first.

Where nothing within the budget meets them, and the budget is the default one, more of it is spent
and said; a budget that was asked for is a limit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxpress import model_file
from onnxpress.attempts import (
    Attempt,
    attempt_of,
    best_attempt,
    explained,
    fitted_again,
    followed_ways,
    judged,
    judged_attempt,
    part_of_run,
    too_slow,
)
from onnxpress.constraints import Constraints
from onnxpress.judge import Evaluator
from onnxpress.original import Run
from onnxpress.progress import Progress
from onnxpress.stages import Variant
from onnxpress.validation import Validation

__all__ = ["constrained_attempt"]

_LOOSEST = 32.0
"""Times the default budget, 15 dB: 5 dB are left of 20, and 32 points may go."""
_SHARES = 8
"""That are tried between one that is too much and one that is too little."""
_LEAST_SHARE = 1e-6
"""Of the budget, 60 dB: below it nothing is lost that anybody could use."""
_NEAR = 0.97
"""Of what is allowed: nearer is not looked for."""
_STEP = 8.0
"""Between shares, until one is too little."""
_INNER = 0.15
"""Of a bracket, at both ends, that a guess keeps away from."""
_FIRST, _NEXT, _SEARCHED = 0.4, 0.2, 0.9
"""Of the time, usually: the first share; of what is left, each further one; until it fits again."""
_STILL_TRUE = ("[W006]", "[L029]")
"""What was said of the samples and of the time, whatever is written."""
_STAMP_BYTES = 512
"""That the metadata of a result takes."""


@dataclass(frozen=True)
class _Look:
    """What came of following the plan in one way, with one share.

    Attributes:
        variant: the way.
        attempt: what it left.
        excess: times what is allowed.
        whole: the attempt with all passes of the same look, which says why some were left out.
    """

    variant: Variant
    attempt: Attempt
    excess: float
    whole: Attempt


@dataclass
class _Bracket:
    """Shares of the budget between which the least one lies.

    Attributes:
        high: the least that is known to be enough, and its excess.
        low: the largest that is known to be too little, and its excess; 0: none is.
    """

    high: tuple[float, float]
    low: tuple[float, float] = (0.0, math.inf)
    _tried: int = 0

    def next(self) -> float | None:
        """The share to try; `None`: there is nothing left to find."""
        (high, enough), (low, short) = self.high, self.low
        if self._tried >= _SHARES or enough > _NEAR or high <= max(_LEAST_SHARE, 1.1 * low):
            return None
        self._tried += 1
        if not low:
            return max(high / _STEP, _LEAST_SHARE / 2)
        part = 0.5
        if math.isfinite(short) and short > 1 > enough > 0:
            part = math.log(short) / (math.log(short) - math.log(enough))
        part = min(max(part, _INNER), 1 - _INNER)
        return float(low * (high / low) ** part)


def constrained_attempt(
    run: Run, judge: Evaluator, again: float = math.inf
) -> tuple[Attempt, Validation]:
    """What meets the constraints of a plan with least lost, and what untouched samples say of it.

    Where nothing does within the budget: what is nearest, or with the default budget what spends
    more of it and meets them.

    Args:
        run: the plan.
        judge: on samples that no choice has seen.
        again: see `judged_attempt`.
    """
    wanted, budget = run.recipe.constraints, run.request.budget
    attempt, validation = judged_attempt(
        run, judge, again, lambda run, share, _: _least_loss(run, wanted, share)
    )
    asked = budget.max_drop is not None or budget.min_sqnr is not None
    searched = any(stage.decisions is None for stage in run.recipe.stages)
    if not searched or _excess(wanted, attempt) <= 1 or run.options.out_of_time():
        return attempt, validation
    if asked:
        said = (
            "nothing within the budget that was asked for meets the constraints: what is written "
            f"is nearest to them; allow more with --max-drop or --min-sqnr{_smaller(run)} [W018]"
        )
        return attempt, replace(validation, warnings=(*validation.warnings, said))
    run.options.progress(Progress("beyond the default budget, which does not meet the constraints"))
    looks = _first_looks(run, wanted, _LOOSEST)
    nearest = min(looks, key=lambda look: look.excess)
    if nearest.excess > 1:
        said = (
            "nothing meets the constraints, whatever is lost: what is written is nearest to them "
            f"within the default budget; with {_LOOSEST:g} times of it, "
            f"{_in_words(wanted, nearest.attempt)} is left{_smaller(run)} [W018]"
        )
        return attempt, replace(validation, warnings=(*validation.warnings, said))
    attempt = _least(run, wanted, looks, 1.0, _LOOSEST)
    judge.looks += 1
    earlier, validation = validation, judged(run, judge, attempt)
    said = (
        f"nothing within the default budget meets the constraints: what is written spends "
        f"{judge.spent_anywhere(validation.measurement):.1f} times of it; if that is acceptable, "
        f"say so with --max-drop or --min-sqnr{_smaller(run)} [W018]"
    )
    told = (one for one in earlier.warnings if one.endswith(_STILL_TRUE))
    warnings = (*validation.warnings, *attempt.notes, *told, said)
    return attempt, replace(validation, warnings=warnings)


def _least_loss(run: Run, wanted: Constraints, share: float) -> Attempt:
    """What meets the constraints with least lost; the nearest where nothing does.

    Args:
        run: the plan.
        wanted: the constraints.
        share: of the budget that may be spent at most.
    """
    if not run.request.named:
        lossless = best_attempt(run, 0)
        if _excess(wanted, lossless) <= 1:
            return lossless
    looks = _first_looks(part_of_run(run, 0.0, _FIRST), wanted, share)
    return _least(run, wanted, looks, 0.0, share)


def _least(run: Run, wanted: Constraints, looks: list[_Look], low: float, share: float) -> Attempt:
    """The least of the shares that reach as far, fitted again.

    Args:
        run: the plan.
        wanted: the constraints.
        looks: with `share`; those with others are added.
        low: a share that is too little, or 0.
        share: of the budget.
    """
    met = [look for look in looks if look.excess <= 1]
    if met:
        bracket, done = _Bracket(_enough(run, met, share), (low, math.inf)), _FIRST
        while not run.options.out_of_time() and (less := bracket.next()) is not None:
            until = done + _NEXT * (_SEARCHED - done)
            now = part_of_run(run, done, until)
            found = _looks(now, wanted, less, _least_spent(run, met).variant.splits)
            done = until
            reached = [look for look in found if look.excess <= 1]
            if reached:
                bracket.high = _enough(run, reached, less)
                met += reached
            else:
                bracket.low = less, min(look.excess for look in found)
        best = _least_spent(run, met)
    else:
        best = min(looks, key=lambda look: (not _holds(run, look, share), look.excess))
    fitted = fitted_again(part_of_run(run, _SEARCHED, 1.0), best.variant, best.attempt)
    return explained(run, fitted, best.whole) if best.variant.skipped else fitted


def _enough(run: Run, met: list[_Look], share: float) -> tuple[float, float]:
    """The share that is really spent by what meets the constraints, and its excess."""
    best = _least_spent(run, met)
    spent = run.evaluator.spent_anywhere(best.attempt.measurement)
    return min(share, max(spent, _LEAST_SHARE)), best.excess


def _least_spent(run: Run, met: list[_Look]) -> _Look:
    """Of looks that meet the constraints the one that loses least."""
    spent = run.evaluator.spent_anywhere
    return min(met, key=lambda look: (spent(look.attempt.measurement), look.excess))


def _holds(run: Run, look: _Look, share: float) -> bool:
    return run.evaluator.holds(look.attempt.measurement, max(share, 1.0))


def _first_looks(run: Run, wanted: Constraints, share: float) -> list[_Look]:
    """All ways to follow the plan with a share, with other divisions of it where none is enough."""
    looks = _looks(run, wanted, share, {})
    if min(look.excess for look in looks) <= 1:
        return looks
    return [*looks, *_looks(run, wanted, share, None)]


def _looks(
    run: Run, wanted: Constraints, share: float, splits: Mapping[str, float] | None
) -> list[_Look]:
    """All ways to follow the plan with a share; each takes half of the time that is left.

    Args:
        run: the plan.
        wanted: the constraints.
        share: of the budget.
        splits: how it is divided among pools; `None`: that is searched.
    """
    run = replace(run, options=run.options.with_part_of_time(2))

    def excess(attempt: Attempt) -> float:
        # A goal of a look is reached only by what keeps within its share.
        holds = run.evaluator.holds(attempt.measurement, share)
        return _excess(wanted, attempt) if holds else math.inf

    ways = followed_ways(run, share, splits, excess, rough=True)
    whole = ways[0][1]
    found = [_Look(way, attempt, excess(attempt), whole) for way, attempt in ways]
    quick = [look for look in found if not too_slow(run, look.attempt)]
    if quick:
        return quick
    way = Variant(kernel_preserving_only=True, share=share, rough=True)
    attempt = attempt_of(run, way)
    return [_Look(way, attempt, excess(attempt), attempt)]


def _excess(wanted: Constraints, attempt: Attempt) -> float:
    """How many times as large or slow as allowed."""
    if wanted.max_size is None:
        return wanted.excess(0, attempt.latency)
    return wanted.excess(model_file.whole_size(attempt.model) + _STAMP_BYTES, attempt.latency)


def _in_words(wanted: Constraints, attempt: Attempt) -> str:
    """What a model has of what is asked for."""
    size = model_file.whole_size(attempt.model)
    found = wanted.requirements(size, attempt.latency)
    return " and ".join(requirement.found for requirement in found)


def _smaller(run: Run) -> str:
    """What else could be asked for, where only a size is wanted."""
    wanted = run.recipe.constraints
    if wanted.max_size is None or wanted.timed or run.request.goal == "size":
        return ""
    return "; --goal size gets smaller, and may be slower"
