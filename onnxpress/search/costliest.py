"""Which decisions cost most fidelity: leave one out, and measure what is left.

error(all) − error(all but one), as power over the signal's power on the worst output. The decisions
with the largest predicted errors are tried, so that a few runs are enough. It is time on top of the
search, and worth only a little of it: `Allowance` bounds what is spent in a whole run.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxpress.contract import Context, Decision
from onnxpress.errors import PassError
from onnxpress.pool import Pool
from onnxpress.search.allowance import Allowance
from onnxpress.search.measured import MeasuredTrials
from onnxpress.search.trial import Trials

__all__ = ["Cost", "costliest", "named_costs"]

logger = logging.getLogger(__name__)

_TRIED = 3
_LEAST_GAIN_DB = 0.1
"""Less is within what another set of samples would change."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one decision costs of the fidelity of the model that its stage left.

    Attributes:
        site: of the decision.
        pass_name: whose it is.
        sqnr_db: of the model, on the output that loses most by its budget; `min_sqnr` of the
            search is all of the budget, whatever that output itself has to keep.
        restored_sqnr_db: of the same without the decision.
        keep: what restores it, for `--keep`.
    """

    site: str
    pass_name: str
    sqnr_db: float
    restored_sqnr_db: float
    keep: str = ""


def named_costs(
    trials: MeasuredTrials,
    pool: Pool,
    context: Context,
    decisions: Sequence[Decision],
    samples: int,
) -> tuple[Cost, ...]:
    """As `costliest` within the allowance of a search, each with what `--keep` restores it by."""
    allowance = trials.options.explaining
    if allowance is None:
        return ()
    found = costliest(trials, decisions, samples, allowance, trials.quickest_s)
    by_site = {decision.site: decision for decision in decisions}
    return tuple(replace(cost, keep=pool.keeping(context, by_site[cost.site])) for cost in found)


def costliest(
    trials: Trials,
    decisions: Sequence[Decision],
    samples: int,
    allowance: Allowance,
    expected_s: float,
) -> tuple[Cost, ...]:
    """The costs of the decisions that are predicted to err most, the highest first.

    As many as the allowance has seconds for, which may be none.

    Args:
        trials: measure.
        decisions: all of the stage.
        samples: to measure on.
        allowance: is charged.
        expected_s: seconds that a measurement is thought to take at most.
    """
    suspects = sorted(
        (d for d in decisions if d.candidate.predicted_error > 0 and not d.candidate.carried),
        key=lambda d: -d.candidate.predicted_error,
    )[:_TRIED]
    found: list[Cost] = []
    whole: float | None = None
    for suspect in (None, *suspects):
        # Less than two measurements say nothing.
        needed = expected_s if whole is not None else 2 * expected_s
        if not suspects or trials.options.out_of_time() or allowance.left < needed:
            break
        started = time.monotonic()
        try:
            noise = trials.noise([d for d in decisions if d is not suspect], samples)
        except PassError as error:
            logger.warning("what a decision costs is not known: %s", error)
            break
        finally:
            expected_s = time.monotonic() - started
            allowance.spent += expected_s
        if suspect is None:
            whole = noise
        elif whole is not None:
            name = suspect.candidate.pass_name
            found.append(Cost(suspect.site, name, _decibels(whole), _decibels(noise)))
    worth = [
        cost
        for cost in found
        if math.isfinite(cost.sqnr_db) and cost.restored_sqnr_db - cost.sqnr_db >= _LEAST_GAIN_DB
    ]
    return tuple(sorted(worth, key=lambda cost: -cost.restored_sqnr_db))


def _decibels(noise: float) -> float:
    return -10 * math.log10(noise) if noise > 0 else math.inf
