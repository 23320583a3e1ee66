"""What the outputs will have to keep, in words, before anything was run."""

from collections.abc import Mapping

from onnxpress.judge.budget import DEFAULT_MAX_DROP, Budget, least_sqnr
from onnxpress.judge.kinds import Reading
from onnxpress.judge.metrics import metrics_of

__all__ = ["promised"]


def promised(readings: Mapping[str, Reading], budget: Budget) -> dict[str, str]:
    """How each output is judged on real samples without labels, by name.

    Args:
        readings: of every output.
        budget: what was asked for.
    """
    if ":" in budget.metric:
        return dict.fromkeys(readings, f"judged by {budget.metric}")
    metrics = [] if budget.metric == "none" else metrics_of(readings, None, [])
    most = DEFAULT_MAX_DROP if budget.max_drop is None else budget.max_drop
    found = {}
    for name, reading in readings.items():
        names = [metric.name for metric in metrics if name in metric.outputs]
        least = least_sqnr(reading, budget, measured=bool(names))
        parts = (
            [f"{' and '.join(names)} may drop by {most:g} point{'' if most == 1 else 's'}"]
            if names
            else []
        )
        parts += [] if least is None else [f"SQNR of at least {least:.3g} dB"]
        found[name] = ", ".join(parts) or "finite"
    return found
