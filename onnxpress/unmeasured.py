"""What is done to a model that cannot be run: what changes no answer, and nothing is claimed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.contract import Stage
from onnxpress.conversion import Conversion, stored_again
from onnxpress.errors import ModelError
from onnxpress.lossless import lossless
from onnxpress.original import Original, custom_operators
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.result import Result, stamp
from onnxpress.runtime import Session
from onnxpress.shedding import kept_small
from onnxpress.stage_result import StageResult
from onnxpress.targets import load_target
from onnxpress.untreated import IN_ATTRIBUTES, nothing_to_compress, odd_numbers

__all__ = ["result_of", "stamped", "unchanged", "without_runtime", "without_samples"]

_HEAVY_BYTES = 1_000_000
"""Of attributes: what onnxruntime takes seconds and ten times the memory to load."""


def unchanged(original: Original, recipe: Recipe, started: float) -> Result | None:
    """A large model of `ai.onnx.ml` as it was: it is not even run, as nothing can become of it.

    `None` for any other model, and where a conversion was asked for.
    """
    if original.nbytes < _HEAVY_BYTES or recipe.conversion != Conversion():
        return None
    reason = nothing_to_compress(original.model)
    if not reason:
        return None
    stages = tuple(StageResult(s.pass_, original.model, note=IN_ATTRIBUTES) for s in recipe.stages)
    model = original.model.clone()
    final = stamped(original, model, recipe, stages)
    warning = f"{reason}; it is written as it was, and was not run"
    return result_of(original, model, final, stages, started, (warning,))


def without_runtime(original: Original, recipe: Recipe, started: float) -> Result:
    """Custom operators: only what needs no run is done, and nothing is claimed."""
    names = ", ".join(custom_operators(original.model))
    problem = (
        f"onnxruntime does not know the custom operator {names}: it was kept, the graph around it "
        "was simplified, and nothing could be run or validated [V008]"
    )
    note = "onnxruntime cannot run the model, so nothing could be measured [L024]"
    result = _unmeasured(original, recipe, started, note)
    return replace(result, within_budget=False, problems=(problem,))


def without_samples(original: Original, recipe: Recipe, started: float, reason: str) -> Result:
    """No inputs can be made up: what changes no answer needs none, the rest is left out."""

    def refusal(rewritten: ir.Model) -> str | None:
        try:
            Session(rewritten, threads=1)
        except ModelError as error:
            return str(error)
        return None

    note = "nothing to measure by: no samples were given, and none can be made up [L025]"
    result = _unmeasured(original, recipe, started, note, refusal)
    warning = (
        f"nothing was run and compared: {reason}; only rewrites that are exact by their rules were "
        "made, and onnxruntime loads the result [W008]"
    )
    return replace(result, warnings=(*result.warnings, warning))


def _unmeasured(
    original: Original,
    recipe: Recipe,
    started: float,
    note: str,
    difference: Callable[[ir.Model], str | None] = lambda _: None,
) -> Result:
    """Passes that change no answer, without a run; the others are left out, with a note."""
    model = original.model.clone()
    target = load_target(recipe.target)
    stages = []
    for stage in recipe.stages:
        if stage.pass_.stage == Stage.LOSSLESS:
            stages.append(lossless(stage.pass_, model, target, recipe.seed, difference))
            model = stages[-1].model
        else:
            stages.append(StageResult(stage.pass_, model, note=note))
    model = stored_again(model)
    final = stamped(original, model, recipe, stages)
    grown = kept_small(model, original.model, original.nbytes)
    said = (original.note, odd_numbers(original.model), grown)
    return result_of(original, model, final, stages, started, [reason for reason in said if reason])


def stamped(
    original: Original, model: ir.Model, recipe: Recipe, stages: Sequence[StageResult]
) -> Recipe:
    """What was decided, which `model` says that it follows from."""
    decided = tuple(RecipeStage(stage.pass_, stage.decisions) for stage in stages)
    final = replace(recipe, stages=decided)
    stamp(model, final, original.digest)
    return final


def result_of(
    original: Original,
    model: ir.Model,
    recipe: Recipe,
    stages: Sequence[StageResult],
    started: float,
    warnings: Sequence[str],
) -> Result:
    """A result without a measurement."""
    return Result(
        model,
        recipe,
        tuple(stages),
        None,
        within_budget=True,
        problems=(),
        original_bytes=original.nbytes,
        source=original.source,
        seconds=time.monotonic() - started,
        warnings=tuple(warnings),
    )
