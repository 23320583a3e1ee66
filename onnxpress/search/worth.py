"""Whether what a choice gains is worth any fidelity."""

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Context
from onnxpress.judge import Evaluator
from onnxpress.pool import Pool
from onnxpress.search.trial import SearchOptions, Trial
from onnxpress.settings import settings_of

__all__ = ["hardly_gains", "noise_in_words", "told_how"]

_HARDLY = 0.01
"""Of bytes, time or budget: what hardly counts."""
_HARDLY_PERCENT = 0.001
"""Of an output's power: below this a figure would be read wrong."""


def told_how(pool: Pool, goal: str = "balanced") -> bool:
    """Whether a pass was told how to act, which is done however little it gains.

    Args:
        pool: the passes.
        goal: what it means to a pass (`Pass.aimed_at`) is no word of the user's.
    """
    return any(
        getattr(pass_, setting.name) not in (setting.default, getattr(aimed, setting.name))
        for pass_, aimed in ((pass_, type(pass_)().aimed_at(goal)) for pass_ in pool.passes)
        for setting in settings_of(type(pass_))
    )


def hardly_gains(
    context: Context, chosen: Trial, evaluator: Evaluator, options: SearchOptions
) -> bool:
    """Whether a choice is for what nobody would notice: at some of the budget, or a larger file."""
    if any(d.candidate.zeroed_weights for d in chosen.decisions):
        return False
    assert chosen.model is not None
    before = model_file.weight_bytes(context.model)
    gained = 1 - model_file.weight_bytes(chosen.model) / max(before, 1)
    faster = chosen.latency is not None and chosen.latency.low > 1 + _HARDLY
    # Other kernels may be what a target is for, and no clock here can tell.
    stored = all(d.candidate.keeps_kernels for d in chosen.decisions)
    if stored and not faster and _grows(context.model, chosen.model):
        return True
    if options.objective.accepts_slower:
        return False
    return gained < _HARDLY and not faster and evaluator.spent(chosen.measurement) > _HARDLY


def _grows(before: ir.Model, after: ir.Model) -> bool:
    """Nodes and names beside small weights may take more than the weights lose."""
    return model_file.whole_size(after) >= model_file.whole_size(before)


def noise_in_words(predicted_error: float) -> str:
    """The power of an error over that of the output, in words."""
    if predicted_error >= 1:
        return "more noise to its output than there is signal"
    percents = 100 * predicted_error
    if percents < _HARDLY_PERCENT:
        return "hardly any noise to its output"
    return f"{percents:.2g}% of noise to its output"
