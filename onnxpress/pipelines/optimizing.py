"""Optimize a pipeline within one budget: its parts in turn, its cache, and the last judgement.

Samples are divided in three: passes look at some, parts are chosen by others, and the verdict is
from those that nothing was chosen by.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress.conversion import opened_file
from onnxpress.data import Data, Samples, load_samples
from onnxpress.errors import NoSamplesError, UsageError
from onnxpress.judge import Budget, judgement
from onnxpress.own_files import STAMP
from onnxpress.pipelines.caching import SCALE, cache_bytes, in_bytes, key_peaks, refusal
from onnxpress.pipelines.compressing import Work, compressed
from onnxpress.pipelines.description import CACHES, Part, Pipeline
from onnxpress.pipelines.fitting import Wiring, wired
from onnxpress.pipelines.judging import evaluator_of, figures_of, token_errors
from onnxpress.pipelines.layouts import read_folder
from onnxpress.pipelines.loop import Loop
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.pipelines.recording import forced
from onnxpress.pipelines.result import PartResult, PipelineResult
from onnxpress.pipelines.running import Running
from onnxpress.pipelines.selecting import OPTIONS, selected
from onnxpress.pipelines.transcripts import Integers, Transcripts, points_of, transcripts_of
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.recipe import samples_digest
from onnxpress.runtime import Session
from onnxpress.version import __version__

__all__ = ["optimize_pipeline"]

_MARGIN_WITH_CACHE = 0.9
"""Of the budget, with the cache in bytes, on the same samples: parts were chosen with less."""
_MOST_SELECTION = 64
"""Samples by which the whole is measured while parts are chosen."""
_SHARES = (0.5, 0.25, 0.25)
"""Of the calibration samples, to look at, to choose by and to judge on, where no others are."""


def optimize_pipeline(
    pipeline: str | os.PathLike[str] | Pipeline,
    *,
    calibration: Data | None,
    evaluation: Data | None = None,
    budget: Budget | None = None,
    cache: str | None = None,
    recipe: str | os.PathLike[str] | PipelineRecipe | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    progress: Tell = unheard,
    stop: Callable[[], bool] = lambda: False,
    **options: Any,  # noqa: ANN401 - as `onnxpress.optimize` takes them
) -> PipelineResult:
    """Make the models of a pipeline smaller and faster within one budget of the whole.

    Args:
        pipeline: a description, its file, or a folder in a known layout (`layouts`).
        calibration: samples of the pipeline's inputs, as `onnxpress.optimize` takes them.
        evaluation: held-out samples: a half, at most 64, to choose by, the rest for the last
            judgement. Without, half of the calibration samples. With labels, the tokens that
            should be generated, the rate of wrong ones may rise by `budget.max_drop` points too.
        budget: what the outputs of the last part may lose.
        cache: `int8` keeps keys and values in bytes, which changes the types of these inputs and
            outputs; `None`: as the description says.
        recipe: repeat these decisions.
        seed: as `onnxpress.optimize`.
        time_limit: seconds, about; each part has its share of what is left.
        progress: told how far it is.
        stop: asked again and again; once it says yes, parts to come are left as they are.
        options: others of `onnxpress.optimize` for every part: `goal`, `target`, `passes`,
            `threads`, `max_memory`; and `keep`, `only`, `exclude`, which name layers of any part,
            or of one as `PART:NAME` (`selecting`).

    Raises:
        OnnxpressError: the pipeline, its samples or the recipe cannot be used.
    """
    started = time.monotonic()
    tell = followed(progress, time_limit)
    tell(Progress("reading", fraction=0.0))
    described = pipeline if isinstance(pipeline, Pipeline) else read_folder(Path(pipeline))
    told = (
        recipe if isinstance(recipe, PipelineRecipe | None) else PipelineRecipe.load(Path(recipe))
    )
    wanted = _cache(cache, described, told)
    seed = seed if told is None else told.seed
    # One thread: sums in the same order everywhere, and a single token gains nothing by more.
    original = {p.name: opened_file(p.model, threads=1) for p in described.parts}
    wiring = wired(described, original)
    running = Running(wiring, original)
    given, selection, judged = _sets(wiring, calibration, evaluation, seed)
    if told is not None:
        told.require([p.name for p in described.parts], samples_digest(given), given.source)
    own = selected(described, {"seed": seed, **options}, told)
    others = {key: value for key, value in options.items() if key not in OPTIONS}
    tell(Progress("running the original", fraction=0.02))
    heard, transcripts = (transcripts_of(running, s) for s in (selection, judged))
    looked_at, selection, judged = (forced(running, s) for s in (given, selection, judged))
    asked = budget or Budget()
    work = Work(
        wiring,
        original,
        dict(original),
        looked_at,
        selection,
        evaluator_of(running, selection, asked),
        heard,
        {"seed": seed, "stop": stop, **others},
        own,
        asked,
        math.inf if time_limit is None else started + time_limit,
    )
    found = compressed(work, told, part(tell, 0.05, 0.9), stop)
    final = _with_cache(work, found, wanted, measured=told is None)
    tell(Progress("judging", fraction=0.92))
    judge = evaluator_of(running, judged, asked)
    result = Running(final, work.sessions)
    measurement = judge.measure(result)
    figures = figures_of(running, result, judged)
    broken: list[str | None] = [judge.broken(measurement)]
    if transcripts is not None:
        wrong = transcripts.wrong(result)
        figures += token_errors(transcripts, wrong, asked.confidence)
        broken.append(_too_wrong(transcripts, wrong, asked))
    problems = tuple(f"the budget does not hold: {why}" for why in broken if why)
    digest = samples_digest(given)
    recipes = {one.name: one.result.recipe if one.result else None for one in found}
    tell(Progress("done", fraction=1.0))
    return PipelineResult(
        replace(final.pipeline, cache="float"),
        tuple(replace(one, model=_model(work, one)) for one in _in_order(found, described)),
        PipelineRecipe(recipes, "float" if final is wiring else wanted, digest, seed),
        judge.described,
        measurement,
        judgement(judge, measurement),
        figures,
        (_cache_bytes(wiring, original), _cache_bytes(final, work.sessions)),
        not problems,
        problems,
        (*dict.fromkeys([*given.notes, *judge.notes, *work.notes]),),
        time.monotonic() - started,
    )


def _too_wrong(transcripts: Transcripts, wrong: Integers, budget: Budget) -> str | None:
    """Why what is generated is wrong more often than it may be."""
    rise, allowed = transcripts.rise(wrong), points_of(budget)
    if rise <= allowed:
        return None
    return (
        f"{transcripts.rate(wrong):.2f}% of tokens are wrong by the labels, of the original "
        f"{transcripts.rate(transcripts.original):.2f}%; allowed are {allowed:g} points more"
    )


def _cache(asked: str | None, pipeline: Pipeline, told: PipelineRecipe | None) -> str:
    if asked is not None and asked not in CACHES:
        raise UsageError(f"cache is {asked!r}; expected one of {', '.join(CACHES)} [U009]")
    return told.cache if told is not None else asked or pipeline.cache


def _sets(
    wiring: Wiring, calibration: Data | None, evaluation: Data | None, seed: int
) -> tuple[Samples, Samples, Samples]:
    """Samples to look at, to choose by and to judge on."""
    if calibration is None:
        names = ", ".join(str(spec) for spec in wiring.inputs)
        raise NoSamplesError(
            f"{wiring.pipeline.source}: a pipeline is compressed on what it really computes: give "
            f"samples with --calibration, of {names} [D012]"
        )
    given = load_samples(calibration, wiring.inputs)
    if evaluation is None:
        looked_at, selection, judged = given.parts(_SHARES, seed)
    else:
        looked_at = given
        others = load_samples(evaluation, wiring.inputs)
        share = min(0.5, _MOST_SELECTION / len(others))
        selection, judged = others.parts((share, 1 - share), seed)
    few = selection.take(range(min(len(selection), _MOST_SELECTION)))
    return looked_at, few, judged


def _with_cache(work: Work, found: list[PartResult], wanted: str, *, measured: bool) -> Wiring:
    """The pipeline with its cache in bytes where that is wanted and the budget holds with it."""
    looping = [p for p in work.wiring.pipeline.parts if p.loop is not None and p.loop.cache]
    if wanted == "float" or not looping:
        if wanted != "float":
            work.notes.append("no part carries a cache from step to step: none is changed [N006]")
        return work.wiring
    before = dict(work.sessions)
    wiring = work.wiring
    for described in looping:
        assert described.loop is not None
        wiring = _in_bytes(work, wiring, described, described.loop, found)
    if wiring is work.wiring or not measured:
        return wiring
    spent = work.spent(work.sessions, wiring)
    if spent > _MARGIN_WITH_CACHE:
        work.notes.append(
            f"the cache is left as it is: in bytes the pipeline would spend {spent:.2g} of the "
            "budget [N006]"
        )
        work.sessions = before
        return work.wiring
    return wiring


def _in_bytes(
    work: Work, wiring: Wiring, described: Part, loop: Loop, found: list[PartResult]
) -> Wiring:
    """The cache of one loop in bytes; what cannot be is told."""
    specs = {spec.name: spec for spec in work.sessions[described.name].inputs}
    reasons = {name: refusal(specs[name]) for name in loop.cache}
    work.notes.extend(f"cache left as it is: {why}" for why in reasons.values() if why)
    caches = {name: loop.cache[name] for name, why in reasons.items() if why is None}
    if not caches:
        return wiring
    peaks = key_peaks(wiring, work.sessions, work.calibration, described.name)
    names = [described.name] if loop.first is None else [described.name, loop.first]
    carried = dict(loop.cache)
    for one in found:
        if one.name in names:
            model, scales = in_bytes(one.model, caches, peaks)
            work.sessions[one.name] = Session(model, threads=1, name=one.name)
            carried.update(scales)
    once = (*loop.once, *(name for name in carried if name.removesuffix(SCALE) in loop.once))
    changed = replace(described, loop=replace(loop, cache=carried, once=tuple(dict.fromkeys(once))))
    parts = tuple(changed if p.name == described.name else p for p in wiring.pipeline.parts)
    return wired(replace(wiring.pipeline, parts=parts), work.sessions)


def _model(work: Work, one: PartResult) -> ir.Model:
    """What the session of a part was opened from; it says that it is ours."""
    opened = work.sessions[one.name].model
    model = opened if isinstance(opened, ir.Model) else one.model
    model.metadata_props[STAMP] = __version__
    return model


def _in_order(found: list[PartResult], pipeline: Pipeline) -> list[PartResult]:
    return [one for p in pipeline.parts for one in found if one.name == p.name]


def _cache_bytes(wiring: Wiring, sessions: Mapping[str, Session]) -> int:
    return sum(
        cache_bytes(sessions[p.name], p.loop.cache, p.loop.once)
        for p in wiring.pipeline.parts
        if p.loop is not None
    )
