"""Follow a plan in more than one way, and take what the objective weighs least.

An early pass may spend budget that the last one would use better, so the whole chain is weighed
against the last pass alone; what each stage gained in time may be lost again by all together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.conversion import convert_form
from onnxpress.original import Run
from onnxpress.result import StageResult
from onnxpress.stages import Variant, run_stages
from onnxpress.validation import Validation, check_model

__all__ = ["Attempt", "best_attempt"]

_COMPARED = 2
"""Samples on which a change of form alone is compared with the model before it."""


@dataclass(frozen=True)
class Attempt:
    """A plan carried out.

    Attributes:
        model: what it left.
        stages: what each pass did.
        validation: against the original.
    """

    model: ir.Model
    stages: tuple[StageResult, ...]
    validation: Validation


def best_attempt(run: Run) -> Attempt:
    """The best of all ways to follow the plan."""
    objective = run.options.objective
    tries = [_attempt(run, Variant())]
    skipped = _worth_skipping(run, tries[0].stages)
    if skipped:
        tries.append(_attempt(run, Variant(skipped)))

    def order(attempt: Attempt) -> tuple[bool, float]:
        # A broken budget is worse than anything.
        size = float(model_file.weight_bytes(attempt.model))
        cost = objective.cost(size, attempt.validation.latency.median_ms)
        return not attempt.validation.within_budget, cost

    best = min(tries, key=order)
    slower = not objective.accepts_slower and best.validation.latency.high < 1
    half = run.recipe.conversion.float16 != "no"
    searched = any(stage.decisions is None for stage in run.recipe.stages)
    if slower and searched and not half and _changes_kernels(best.stages):
        run.request.progress("slower than the original: only forms that keep the kernels")
        best = _attempt(run, Variant(kernel_preserving_only=True))
    return best


def _attempt(run: Run, variant: Variant) -> Attempt:
    """Run the stages and validate what comes out."""
    model, stages = run_stages(run, variant)
    feeds = run.evaluator.samples.feeds[:_COMPARED]
    current, notes = convert_form(model, run.target, run.recipe.conversion, feeds)
    run.request.progress("validating")
    known = [stage.measurement for stage in stages if stage.model is current]
    whole = [m for m in known if m is not None and m.samples == len(run.evaluator.samples)]
    session = run.original.session
    assert session is not None
    validation = check_model(
        run.evaluator,
        session,
        current,
        threads=run.request.threads,
        measurement=whole[-1] if whole else None,
        clock=run.request.clock,
    )
    warned = replace(validation, warnings=(*validation.warnings, *notes))
    return Attempt(current, tuple(stages), warned)


def _worth_skipping(run: Run, stages: Sequence[StageResult]) -> frozenset[str]:
    """All lossy passes that acted before the last stage: they may have spent what it needs."""
    searched = all(stage.decisions is None for stage in run.recipe.stages)
    lossy = [stage for stage in stages if stage.pass_.stage.loses]
    if run.request.named or not searched or not lossy:
        return frozenset()
    last = max(stage.pass_.stage for stage in lossy)
    return frozenset(s.pass_.name for s in lossy if s.decisions and s.pass_.stage != last)


def _changes_kernels(stages: Sequence[StageResult]) -> bool:
    return any(not d.candidate.keeps_kernels for stage in stages for d in stage.decisions)
