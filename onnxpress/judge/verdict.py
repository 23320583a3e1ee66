"""Held, held on the samples seen, or broken: how far a judgement carries.

A budget is *held* where the bounds that the samples carry lie within it, and *held on the samples
seen* where what was measured does and the bounds do not: then it is said how many samples would
decide, if what is lost stays what it is.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from onnxpress.judge.bounds import samples_to_decide
from onnxpress.judge.evaluator import Evaluator
from onnxpress.judge.faults import same
from onnxpress.judge.measurement import Measurement, MetricFigure

__all__ = ["Judgement", "Verdict", "judgement"]


class Verdict(StrEnum):
    """What became of a budget."""

    HELD = "held"
    SEEN = "held on the samples seen"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reason.

    Attributes:
        verdict: which.
        reason: what breaks the budget, or which bound lies outside; empty where it is held.
        samples_needed: about how many would decide; `None` where that is not known or decided.
    """

    verdict: Verdict
    reason: str = ""
    samples_needed: int | None = None

    def __str__(self) -> str:
        more = ""
        if self.samples_needed is not None:
            more = f"; about {self.samples_needed:,} samples would decide"
        return f"{self.verdict}: {self.reason}{more}" if self.reason else str(self.verdict)


def judgement(evaluator: Evaluator, measurement: Measurement) -> Judgement:
    """What a measurement on untouched samples says of the budget."""
    broken = evaluator.broken(measurement)
    if broken:
        return Judgement(Verdict.BROKEN, broken)
    if evaluator.made_up:
        reason = "random inputs show that numbers agree, and carry no bound for real ones"
        return Judgement(Verdict.SEEN, reason)
    blind = [f for f in measurement.metrics if set(f.outputs) & set(evaluator.alike)]
    if blind:
        name = next(name for name in blind[0].outputs if name in evaluator.alike)
        reason = f"output {name} is decided alike in all {measurement.samples} samples"
        return Judgement(Verdict.SEEN, f"{reason}; give samples of each decision")
    if evaluator.one_answer and not same(measurement):
        alike = measurement.samples
        what = "one sample carries" if alike == 1 else f"{alike} samples of one answer carry"
        return Judgement(Verdict.SEEN, f"{what} no bound; give others")
    sure = f"{100 * evaluator.confidence:.4g}% confidence"
    for figure in measurement.metrics:
        high = figure.interval[1]
        if high > evaluator.max_drop + 1e-9 and figure.counted == 0:
            return Judgement(
                Verdict.SEEN,
                f"none of the {figure.samples} samples holds what {figure.name} counts, in either "
                "model; give samples that do",
            )
        if high > evaluator.max_drop + 1e-9:
            number = _needed(figure, evaluator)
            return Judgement(
                Verdict.SEEN,
                f"{figure.name} may have dropped by up to {high:.2g} points "
                f"({sure}, {figure.samples} samples); the budget is "
                f"{evaluator.max_drop:g}",
                number,
            )
    for name, least in evaluator.least.items():
        output = measurement.outputs[name]
        if least is None or not output.is_float or math.isinf(output.sqnr_db):
            continue
        bound = output.bound_db(evaluator.confidence)
        if bound < least:
            return Judgement(
                Verdict.SEEN,
                f"output {name} may keep no more than {bound:.1f} dB ({sure}, "
                f"{measurement.samples} samples); the budget is {least:g}",
            )
    return Judgement(Verdict.HELD)


def _needed(figure: MetricFigure, evaluator: Evaluator) -> int | None:
    """About how many samples would decide, if the drop stays what it is.

    At least as many as a share of failures needs; more where gains and losses make the drop
    uncertain, whose bound comes nearer with the square root of the number.
    """
    counted = figure.counted
    number = samples_to_decide(figure.drop, evaluator.max_drop, counted, evaluator.confidence)
    room = evaluator.max_drop - figure.drop
    if number is None or room <= 0 or counted == 0:
        return number
    distance = (figure.interval[1] - figure.drop) / room
    if figure.drop:
        number = max(number, math.ceil(counted * distance**2))
    return math.ceil(number * figure.samples / counted)
