"""Train what the lossy passes left towards the original, where that serves samples it never saw.

Calibration samples train and choose the best state. Whether it is taken is told by the samples that
the search chooses by, and the untouched ones judge as they judge everything.
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.contract import Decision
from onnxpress.distillation.distilling import figures_of, is_worse
from onnxpress.errors import PassError
from onnxpress.judge import Measurement
from onnxpress.original import Run
from onnxpress.pool import Pool
from onnxpress.pooled import context_of, replayed
from onnxpress.progress import Progress
from onnxpress.runtime import Session
from onnxpress.stage_result import StageResult

__all__ = ["recovered"]

_NOTHING = "nothing was lost that could be brought back [T005]"
_NO_SAMPLES = "there are no calibration samples to train with [T003]"
_STOPPED = "it was interrupted, and what is half trained cannot be repeated [L019]"


def recovered(
    run: Run,
    pool: Pool,
    model: ir.Model,
    decisions: tuple[Decision, ...] | None,
    before: Sequence[StageResult],
) -> list[StageResult]:
    """What passes of the stage that recovers make of a model.

    Args:
        run: the plan.
        pool: the passes.
        model: that the earlier stages left; not changed.
        decisions: of a recipe, which are carried out; `None`: to be tried.
        before: what the earlier stages did.
    """
    if decisions is not None:
        return replayed(run, pool, model, decisions, ())
    note = ""
    if not any(stage.lost for stage in before):
        note = _NOTHING
    elif run.calibration is None:
        note = _NO_SAMPLES
    if note:
        return [StageResult(pass_, model, note=note) for pass_ in pool.passes]
    known = [s.measurement for s in before if s.model is model and s.measurement is not None]
    whole = [m for m in known if m.samples == len(run.evaluator.samples)]
    was = whole[-1] if whole else _measured(run, model)
    found: list[StageResult] = []
    for pass_ in pool.passes:
        found.append(_by(run, Pool((pass_,), pool.pins), model, was))
        model, was = found[-1].model, found[-1].measurement or was
    return found


def _by(run: Run, pool: Pool, model: ir.Model, was: Measurement) -> StageResult:
    """What one pass makes of a model of a known measurement."""
    pass_ = pool.passes[0]
    run.options.progress(Progress(f"{pass_.name}: what can be trained"))
    try:
        context = context_of(run, pool, model, None, left_s=lambda: run.options.left_s)
        offer = pool.offer(context)
        if offer.failures:
            raise offer.failures[0]
        left = offer.left_by(pass_.name)
        if not offer.proposals:
            note = left[0].reason if left else _NOTHING
            return StageResult(pass_, model, left=left, note=note)
        decisions = tuple(Decision(one.site, one.candidates[0]) for one in offer.proposals)
        run.options.progress(Progress(f"{pass_.name}: training"))
        trained = pool.rewrite(context, decisions)
    except PassError as error:
        return StageResult(pass_, model, note=str(error), failed=True)
    if run.request.stop() or run.options.left_s <= 0:
        return StageResult(pass_, model, left=left, note=_STOPPED)
    now = _measured(run, trained)
    broken = run.evaluator.holds(was) and not run.evaluator.holds(now)
    if broken or is_worse(was, now) or not _differs(was, now):
        note = (
            "on samples that it had not seen it was no better: "
            f"{figures_of(now)}, before {figures_of(was)} [T006]"
        )
        return StageResult(pass_, model, left=left, note=note, tried=1)
    return StageResult(pass_, trained, decisions, left, measurement=now, tried=1)


def _measured(run: Run, model: ir.Model) -> Measurement:
    run.options.progress(Progress("measuring"))
    return run.evaluator.measure(Session(model, threads=run.request.threads))


def _differs(was: Measurement, now: Measurement) -> bool:
    return was.worst_sqnr_db != now.worst_sqnr_db
