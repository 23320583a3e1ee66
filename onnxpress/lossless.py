"""Passes that change no answer, carried out as thoroughly as a comparison allows."""

import logging
from collections.abc import Callable, Iterable

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Decision, Pass, Stage
from onnxpress.errors import PassError
from onnxpress.pool import Pool
from onnxpress.stage_result import StageResult
from onnxpress.targets import Target

__all__ = ["lossless", "simplified"]

logger = logging.getLogger(__name__)

_MOST_GROWTH = 1.01
_SMALL_BYTES = 16_384
"""Weights may grow by what folded shapes and masks take."""


def lossless(
    pass_: Pass,
    model: ir.Model,
    target: Target,
    seed: int,
    difference: Callable[[ir.Model], str | None] = lambda _: None,
) -> StageResult:
    """The most thorough way in which a pass changes nothing that the model computes.

    Args:
        pass_: whose candidates are tried in turn, the most thorough first.
        model: not changed.
        target: what the provider accepts.
        seed: of the context.
        difference: how a rewritten model differs from the original, in words, or `None`.
    """
    pool = Pool((pass_,))
    reason = ""
    try:
        context = pool.context(model, target, seed=seed)
        offer = pool.offer(context)
        if offer.failures:
            raise offer.failures[0]
        for proposal in offer.proposals:
            for candidate in proposal.candidates:
                decisions = (Decision(proposal.site, candidate),)
                rewritten = pool.rewrite(context, decisions)
                found = _growth(model, rewritten) or difference(rewritten)
                if found is None:
                    note = f"only in part: {reason}" if reason else ""
                    return StageResult(pass_, rewritten, decisions, note=note)
                reason = found
                logger.warning("%s is undone: %s", pass_.name, reason)
    except PassError as error:
        return StageResult(pass_, model, note=str(error), failed=True)
    return StageResult(pass_, model, note=f"undone: {reason or 'it proposed nothing'}")


def _growth(model: ir.Model, rewritten: ir.Model) -> str | None:
    """By how much the weights take more of a file than before, in words, or `None`."""
    before, after = model_file.weight_bytes(model), model_file.weight_bytes(rewritten)
    if after <= before * _MOST_GROWTH + _SMALL_BYTES:
        return None
    return f"its weights would take {after:,} bytes, {before:,} before"


def simplified(model: ir.Model, passes: Iterable[Pass], target: Target, seed: int = 0) -> ir.Model:
    """What the passes among them that change no answer make of a model, without a comparison."""
    for pass_ in passes:
        if pass_.stage == Stage.LOSSLESS:
            model = lossless(pass_, model, target, seed).model
    return model
