"""What breaks a budget: in sentences for people, and whether a few samples show it already."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxpress.judge.measurement import Measurement, ProbeFigure

__all__ = ["ROUNDING_DB", "Limits", "clearly_fails", "faults", "same"]

ROUNDING_DB = 90.0
"""Of what is no nearer to its original, more differs than rounding."""
_CLEAR_DB = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be lost.

    Attributes:
        max_drop: points of each metric.
        least: SQNR in dB that each float output has to keep; `None`: a metric alone counts.
        bounded: whether bounds have to lie within the budget, not only what was measured.
        confidence: of each bound.
    """

    max_drop: float
    least: Mapping[str, float | None]
    bounded: bool
    confidence: float


def faults(limits: Limits, measurement: Measurement, share: float) -> Iterator[str]:
    """What breaks the budget, in sentences.

    Args:
        limits: what may be lost.
        measurement: of the model.
        share: of the budget that may be spent.
    """
    bounded = limits.bounded and not same(measurement)
    for name, output in measurement.outputs.items():
        if output.is_float and not math.isfinite(output.max_error):
            yield f"output {name} has another shape or values that are not finite [V001]"
    for figure in measurement.metrics:
        allowed = limits.max_drop * share
        where = f" of output {figure.outputs[0]}" if len(figure.outputs) == 1 else ""
        if not figure.drop <= allowed + 1e-9:
            yield (
                f"{figure.name}{where} drops by {figure.drop:.2f} points; the budget is "
                f"{allowed:.3g} [V002]"
            )
        elif bounded and figure.interval[1] > allowed + 1e-9:
            yield (
                f"{figure.name}{where} may drop by up to {figure.interval[1]:.2f} points "
                f"({limits.confidence:.0%} confidence); the budget is {allowed:.3g} [V003]"
            )
    stricter = _stricter_db(share)
    for name, least in limits.least.items():
        found = measurement.outputs[name]
        if least is not None and found.is_float and found.sqnr_db < least + stricter:
            part = f" ({found.worst})" if found.worst else ""
            yield (
                f"output {name}{part} keeps {found.sqnr_db:.1f} dB; the budget is "
                f"{least + stricter:.1f} [V004]"
            )
    yield from _probe_faults(measurement.probes, stricter)


def clearly_fails(limits: Limits, measurement: Measurement, share: float) -> bool:
    """Whether a measurement on some samples already shows that the budget will not hold.

    Half the fidelity that is asked for, a drop whose bound lies beyond the budget, or a fault on
    inputs besides the samples.

    Args:
        limits: what may be lost.
        measurement: on some samples.
        share: of the budget that may be spent.
    """
    allowed = limits.max_drop * share
    # A bound takes long to find, and lies beyond only where the drop does.
    if any(f.drop > allowed and f.interval[0] > allowed for f in measurement.metrics):
        return True
    stricter = _stricter_db(share)
    if any(_probe_faults(measurement.probes, stricter)):
        return True
    return any(
        least is not None
        and measurement.outputs[name].is_float
        and measurement.outputs[name].sqnr_db < least + stricter - _CLEAR_DB
        for name, least in limits.least.items()
    )


def _stricter_db(share: float) -> float:
    """A share of the noise power is so many decibels more."""
    return -10 * math.log10(share) if share > 0 else math.inf


def _probe_faults(probes: Sequence[ProbeFigure], stricter: float) -> Iterator[str]:
    for probe in probes:
        if probe.sqnr_db == -math.inf:
            yield f"on {probe.name} the model does not run, or answers in another shape [V001]"
        elif probe.sqnr_db < probe.least_db + stricter and probe.metric:
            lost, allowed = (
                100 * 10 ** (-level / 10) for level in (probe.sqnr_db, probe.least_db + stricter)
            )
            yield (
                f"{probe.metric} drops by {lost:.1f} points on {probe.name}; the budget is "
                f"{allowed:.3g} [V002]"
            )
        elif probe.sqnr_db < probe.least_db + stricter:
            yield (
                f"output {probe.output} keeps {probe.sqnr_db:.1f} dB on {probe.name}; the "
                f"budget is {probe.least_db + stricter:.1f} [V004]"
            )


def same(measurement: Measurement) -> bool:
    """Whether outputs differ by rounding at most, so that nothing can have been lost."""
    return all(
        output.whole_db >= ROUNDING_DB if output.is_float else output.equal_share == 1
        for output in measurement.outputs.values()
    )
