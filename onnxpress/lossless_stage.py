"""The comparison with the original that holds passes which change no answer to it."""

import logging
from dataclasses import replace

import onnx_ir as ir

from onnxpress import registry
from onnxpress.contract import Pass
from onnxpress.conversion import change_opset, newest_opset
from onnxpress.data import random_samples
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.graph import standard_opset
from onnxpress.judge import Budget, Evaluator
from onnxpress.lossless import lossless, simplified
from onnxpress.original import Run
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session, structural_refusal
from onnxpress.selectable import selectable_sites
from onnxpress.stage_result import StageResult
from onnxpress.targets import Target

__all__ = ["difference_of", "lossless_stage", "require_opset", "require_selected"]

logger = logging.getLogger(__name__)

_LOSSLESS_DB = 60.0
"""Folding changes the order of float32 operations; anything worse is a wrong rewrite."""
_ROUNDING_DB = 6.0


def lossless_stage(run: Run, pass_: Pass, model: ir.Model) -> StageResult:
    """Carry out a pass that must not change what the model computes, and check that."""
    opened: list[Session] = []

    def difference(rewritten: ir.Model) -> str | None:
        try:
            opened.append(Session(rewritten, threads=run.request.threads))
        except ModelError as error:
            return str(error)
        return _difference(run, opened[-1])

    result = lossless(pass_, model, run.target, run.recipe.seed, difference)
    known = [session for session in opened[-1:] if session.model is result.model]
    return replace(result, session=known[0]) if known else result


def require_selected(recipe: Recipe, model: ir.Model, target: Target) -> None:
    """Refuse before any work a selection of layers that neither the model nor its simple form has.

    Args:
        recipe: whose selection it is.
        model: as it was given.
        target: what the provider accepts.

    Raises:
        UsageError: a selector matches nothing.
    """
    if not recipe.selection:
        return
    sites = selectable_sites(model)
    if all(selector.matches(sites) for selector in recipe.selection.selectors):
        return
    passes = [stage.pass_ for stage in recipe.stages]
    sites += selectable_sites(simplified(model, passes, target, recipe.seed))
    recipe.selection.require_matches(sites, registry.lossy_names(passes))


def require_opset(recipe: Recipe, model: ir.Model, target: Target) -> None:
    """Refuse before any work an opset that neither the model nor its simple form can be changed to.

    Args:
        recipe: whose opset it is.
        model: as it was given.
        target: what the provider accepts.

    Raises:
        UsageError: the opset is newer than onnx or onnxruntime knows, or onnx has no way there.
    """
    wanted = recipe.conversion.opset
    if not wanted or _unreached(model, wanted) is None:
        return
    passes = [stage.pass_ for stage in recipe.stages]
    simple = simplified(model, passes, target, recipe.seed)
    reason = _unreached(simple, wanted)
    if reason is None:
        return
    current = standard_opset(model)
    known = range(min(wanted, newest_opset()), current, -1) if wanted > current else ()
    older = range(wanted + 1, current) if wanted < current else ()
    near = next((n for n in (*known, *older) if _unreached(simple, n) is None), current)
    which = "newest" if wanted > current else "oldest"
    raise UsageError(
        f"{reason}; the {which} that this model can be changed to is {near}: "
        + (f"--opset {near}" if near != current else "leave --opset out")
        + " [U009]"
    )


def _unreached(model: ir.Model, opset: int) -> str | None:
    """Why a model cannot be had at an opset, in words, or `None`."""
    changed, reason = change_opset(model, opset)
    if reason is not None or changed is model:
        return reason
    refusal = structural_refusal(changed)
    return refusal and f"opset {standard_opset(model)} cannot be changed to {opset}: {refusal}"


def difference_of(run: Run, model: ir.Model) -> str | None:
    """How a rewritten model differs from the original beyond rounding, or `None`.

    Some outputs magnify rounding (a sigmoid near 0): the original run with and without
    onnxruntime's own optimizations shows by how much, and as much is allowed here.
    """
    try:
        return _difference(run, Session(model, threads=run.request.threads))
    except ModelError as error:
        return str(error)


def _difference(run: Run, session: Session) -> str | None:
    try:
        for evaluator in _judges(run):
            measured = evaluator.measure(session, evaluator.screening)
            wanted = dict.fromkeys(measured.outputs, _LOSSLESS_DB)
            if measured.worst_whole_db < _LOSSLESS_DB:
                plain = Session(run.original.model, threads=run.request.threads, optimize=False)
                floor = evaluator.measure(plain, evaluator.screening).outputs
                wanted = {n: min(_LOSSLESS_DB, floor[n].whole_db - _ROUNDING_DB) for n in wanted}
            for name, output in measured.outputs.items():
                if output.is_float and output.whole_db < wanted[name]:
                    return (
                        f"output {name} differs on {measured.source} ({output.whole_db:.0f} dB, "
                        f"expected {wanted[name]:.0f})"
                    )
                if not output.is_float and output.equal_share < 1:
                    return f"output {name} differs on {measured.source}"
    except ModelError as error:
        return str(error)
    return None


def _judges(run: Run) -> list[Evaluator]:
    """The evaluation samples and random inputs; where nothing random fits, only the former."""
    if run.evaluator.made_up:
        return [run.evaluator]
    session = run.original.session
    assert session is not None
    try:
        drawn = random_samples(session, 2, run.recipe.seed, run.original.model)
    except DataError:
        logger.info("no random inputs fit the model: only the given samples are compared")
        return [run.evaluator]
    return [run.evaluator, Evaluator(session, drawn, Budget(metric="none"))]
