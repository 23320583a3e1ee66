"""optimize(): the whole way of a model.

file → simplify → statistics → candidates → plan → rewrite → validate → save → report
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

import onnxpress
from onnxpress import model_file, registry
from onnxpress.adapter import observe
from onnxpress.contract import Context, Decision, Pass, Proposal, Stage
from onnxpress.conversion import Fit, fit_form, fit_interface, fit_shapes, write_ort
from onnxpress.conversion.opset import raise_opset
from onnxpress.data import Samples, load_samples, random_samples, require_runnable
from onnxpress.errors import DataError, ModelError, RecipeError, UsageError
from onnxpress.judge import Budget, Evaluator
from onnxpress.providers import NO_PROVIDERS, ProviderOptions
from onnxpress.recipe import CalibrationSource, Recipe, RecipeStage, samples_digest
from onnxpress.runtime import Array, Session
from onnxpress.search import StageResult, apply, apply_refined, search_stage
from onnxpress.targets import Target, load_target
from onnxpress.validation import Validation, check_model, on_providers

__all__ = ["Result", "optimize"]

logger = logging.getLogger(__name__)

GOALS = ("balanced", "latency", "size")
HELD_OUT_SHARE = 1 / 3
_LOSSLESS_DB = 60.0
"""Folding changes the order of float32 operations; anything worse is a wrong rewrite."""
_ROUNDING_DB = 6.0
_COMPARED = 2
"""Samples on which a change of form alone is compared with the model before it."""
_HARMLESS = (Stage.LOSSLESS, Stage.STORAGE)
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training")

DataArgument = str | Path | Mapping[str, Array] | Samples


@dataclass(frozen=True)
class Result:
    """What `optimize` gives back.

    Attributes:
        model: the optimized model.
        recipe: reproduces it without a search.
        stages: what each pass did and left, in order.
        validation: against the original; `None` when onnxruntime cannot run the model.
        within_budget: whether the model may be used in place of the original.
        problems: why not, or what the user must know, in sentences.
        original_bytes: size of the original.
        source: where the original came from.
        seconds: how long it took.
    """

    model: ir.Model
    recipe: Recipe
    stages: tuple[StageResult, ...]
    validation: Validation | None
    within_budget: bool
    problems: tuple[str, ...]
    original_bytes: int
    source: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """Everything as plain data, as `--json` writes it."""
        from onnxpress.report.document import document  # noqa: PLC0415 - report is above

        return document(self)

    def save(self, path: str | os.PathLike[str], *, external_data: bool = False) -> list[Path]:
        """Write the model and, beside it, its recipe; each whole or not at all.

        For a target that prefers `.ort`, that form and its list of operators too.

        Returns:
            What was written.
        """
        target = Path(path)
        model_file.save(self.model, target, external_data=external_data)
        with model_file.replace_file(recipe_path(target)) as temporary:
            temporary.write_text(self.recipe.to_toml(), encoding="utf-8")
        written = [target, recipe_path(target)]
        aim = load_target(self.recipe.target)
        if aim.file_forms[0] == "ort" and self.validation is not None:
            written += write_ort(target, aim)
        return written


def recipe_path(model_path: Path) -> Path:
    """Where the recipe of a model file lies."""
    return model_path.with_suffix(".recipe.toml")


@dataclass(frozen=True)
class _Work:
    """What every stage needs."""

    target: Target
    calibration: Samples | None
    evaluator: Evaluator
    original: Session
    original_model: ir.Model
    goal: str
    seed: int
    threads: int
    deadline: float
    progress: Callable[[str], None] = field(default=lambda _: None)


def optimize(
    model: str | os.PathLike[str] | ir.Model,
    *,
    calibration: DataArgument | None = None,
    evaluation: DataArgument | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    metric: str = "auto",
    goal: str = "balanced",
    target: str | Sequence[str] = "cpu",
    passes: Sequence[str | Pass] | None = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    fix_shapes: Sequence[str] = (),
    float16: str = "no",
    opset: int = 0,
    seed: int = 0,
    threads: int = 0,
    time_limit: float | None = None,
    providers: ProviderOptions = NO_PROVIDERS,
    progress: Callable[[str], None] = lambda _: None,
) -> Result:
    """Make a model smaller and faster within a budget, and prove it.

    Args:
        model: a file or an onnx-ir model; neither is changed.
        calibration: samples the passes may look at; without, only what needs none is done.
        evaluation: samples the budget is judged on; without, a third of the calibration
            samples is held out, and without those random inputs show fidelity.
        max_drop: points of the task metric that may be lost.
        min_sqnr: dB that the worst output must keep.
        metric: see `Budget`.
        goal: `balanced` and `latency` never accept a slower model, `size` does.
        target: name of a target; of several, the model is good for all of them.
        passes: names or passes, instead of all; one that is named counts although it saves
            nothing.
        recipe: repeat these decisions; a pass without decisions is searched.
        fix_shapes: `NAME=1x3x224x224` for an input, `DIM=4` for a symbolic dimension; done first.
        float16: `keep-io` for half precision with the inputs and outputs as they are, `all` for
            half inputs and outputs too; `no` leaves float32. Takes the place of integers.
        opset: to convert to; 0: only where the target knows no newer one.
        seed: of the held-out split, of rows drawn for statistics, of random inputs.
        threads: of onnxruntime; 0: all cores.
        time_limit: seconds after which the search takes the best it has.
        providers: where else the result is run before it is given back.
        progress: told in a few words what is being done.

    Raises:
        OnnxpressError: the input cannot be used; its subclasses say which and what to do.
    """
    started = time.monotonic()
    if goal not in GOALS:
        raise UsageError(f"goal is {goal!r}; expected one of {', '.join(GOALS)}")
    providers.check()
    source, original_model, digest, size = _open(model)
    names = target if isinstance(target, str) else "+".join(target)
    plan = _planned(recipe, passes, names, seed, digest, Fit(tuple(fix_shapes), float16, opset))
    chosen_target = load_target(plan.target)
    progress("simplifying")
    fixed = fit_shapes(original_model, plan.fit)
    original = _session_or_none(fixed, fixed if plan.fit.shapes else model, threads, source)
    original_model = fixed
    if original is None:
        return _without_runtime(original_model, plan, source, digest, size, started)
    samples, judged = _samples(original, calibration, evaluation, plan, source)
    evaluator = Evaluator(original, judged, Budget(max_drop, min_sqnr, metric))
    work = _Work(
        chosen_target,
        samples,
        evaluator,
        original,
        original_model,
        goal if chosen_target.timed_here else "size",
        plan.seed,
        threads,
        started + time_limit if time_limit is not None else float("inf"),
        progress,
    )
    named = passes is not None
    tries = [_attempt(original_model, plan, work, named=named)]
    skipped = _worth_skipping(plan, tries[0][1], named=named)
    if skipped:
        tries.append(_attempt(original_model, plan, work, named=named, skipped=skipped))
    current, stages, validation = min(tries, key=lambda tried: _cost(tried, work.goal))
    half = plan.fit.float16 != "no"
    if (
        work.goal != "size"
        and not half
        and validation.latency.high < 1
        and _changes_kernels(stages)
    ):
        # What each stage gained may be lost again by all of them together.
        progress("slower than the original: only forms that leave the kernels alone")
        current, stages, validation = _attempt(
            original_model, plan, work, named=named, kernel_preserving_only=True
        )
    validation = on_providers(
        validation,
        current,
        original_model,
        evaluator,
        providers,
        threads=threads,
        progress=progress,
    )
    current, notes = fit_interface(current, plan.fit, judged.feeds[:_COMPARED])
    validation = replace(validation, warnings=(*validation.warnings, *notes))
    problems = list(validation.problems)
    if not validation.within_budget and not validation.problems:
        problems.append(f"the budget does not hold: {evaluator.described}")
    problems += _without_effect(stages, named=named)
    final = replace(
        plan,
        stages=tuple(RecipeStage(stage.pass_, stage.decisions) for stage in stages),
        calibration=_calibration_source(samples, held_out=evaluation is None),
    )
    _stamp(current, final, digest)
    if not named and recipe is None:
        stages += _by_name_only(current)
    return Result(
        current,
        final,
        tuple(stages),
        validation,
        within_budget=validation.within_budget and not problems,
        problems=tuple(problems),
        original_bytes=size,
        source=source,
        seconds=time.monotonic() - started,
    )


def _open(model: str | os.PathLike[str] | ir.Model) -> tuple[str, ir.Model, str, int]:
    if isinstance(model, ir.Model):
        content = model_file.to_bytes(model)
        import hashlib  # noqa: PLC0415 - only for models in memory

        return "a model in memory", model, hashlib.sha256(content).hexdigest(), len(content)
    path = Path(model)
    loaded = model_file.load(path)
    return str(path), loaded, model_file.digest(path), model_file.size_bytes(path)


def _planned(
    recipe: str | os.PathLike[str] | Recipe | None,
    passes: Sequence[str | Pass] | None,
    target: str,
    seed: int,
    digest: str,
    fit: Fit,
) -> Recipe:
    """The recipe to follow: a given one, or all passes with their decisions open."""
    if recipe is not None:
        if passes is not None:
            raise UsageError("give either passes or a recipe: a recipe names its passes")
        if fit != Fit():
            raise UsageError(
                "give either a recipe or shapes, half precision and opset: it has its own"
            )
        found = recipe if isinstance(recipe, Recipe) else Recipe.load(Path(recipe))
        if found.model_sha256 not in (None, digest):
            raise RecipeError(
                "the recipe was made for another model (its SHA-256 begins with "
                f"{(found.model_sha256 or '')[:12]}, this model's with {digest[:12]}); remove "
                "model_sha256 from the recipe to use it all the same"
            )
        return replace(found, model_sha256=digest)
    chosen = [
        registry.create(item) if isinstance(item, str) else item
        for item in (registry.names() if passes is None else passes)
    ]
    if passes is None:
        chosen = [pass_ for pass_ in chosen if not pass_.by_name_only]
    if fit.float16 != "no":
        integers = [pass_.name for pass_ in chosen if pass_.stage == Stage.QUANTIZATION]
        if passes is not None and integers:
            raise UsageError(
                f"half precision takes the place of {integers[0]}: ask for one of them"
            )
        chosen = [pass_ for pass_ in chosen if pass_.stage != Stage.QUANTIZATION]
    installed = [registry.create(name) for name in registry.names()]
    for stage in _HARMLESS:
        if not any(pass_.stage == stage for pass_ in chosen):
            chosen += [pass_ for pass_ in installed if pass_.stage == stage]
    chosen.sort(key=lambda pass_: (pass_.stage, pass_.name))
    stages = tuple(RecipeStage(pass_, None) for pass_ in chosen)
    return Recipe(stages, target, seed, digest, None, fit)


def _session_or_none(loaded: ir.Model, model: object, threads: int, source: str) -> Session | None:
    """A session of the original; `None` where only a custom operator stands in the way."""
    place = Path(source) if not isinstance(model, ir.Model) else loaded
    try:
        return Session(place, threads=threads, name=source)
    except ModelError:
        if _custom_operators(loaded):
            return None
        raise


def _custom_operators(model: ir.Model) -> list[str]:
    functions = {(key[0], key[1]) for key in model.functions}
    return sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in model.graph.all_nodes()
            if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in functions
        }
    )


def _samples(
    original: Session,
    calibration: DataArgument | None,
    evaluation: DataArgument | None,
    plan: Recipe,
    source: str,
) -> tuple[Samples | None, Samples]:
    """(calibration, evaluation) samples, checked and run once."""
    if calibration is None and plan.calibration is not None:
        calibration = plan.calibration.source
    looked_at = None if calibration is None else load_samples(calibration, original.inputs)
    if evaluation is not None:
        judged = load_samples(evaluation, original.inputs)
    elif looked_at is not None:
        looked_at, judged = looked_at.hold_out(HELD_OUT_SHARE, plan.seed)
    else:
        judged = _random(original, plan.seed, source)
    for samples in (looked_at, judged):
        if samples is not None:
            require_runnable(original, samples)
    if plan.calibration is not None and looked_at is not None:
        found = samples_digest(looked_at)
        if found != plan.calibration.digest:
            raise RecipeError(
                f"the recipe was made with other calibration data ({plan.calibration.source}, "
                f"digest {plan.calibration.digest[:12]}; given: {looked_at.source}, digest "
                f"{found[:12]}); give the same with --calibration"
                + ("" if plan.calibration.held_out else " and the evaluation data of its own")
            )
    return looked_at, judged


def _random(original: Session, seed: int, source: str) -> Samples:
    try:
        return random_samples(original, 4, seed)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


_Attempt = tuple[ir.Model, list[StageResult], Validation]


def _by_name_only(model: ir.Model) -> list[StageResult]:
    """Installed passes that take no part by default, with the reason, for the report."""
    passes = [registry.create(name) for name in registry.names()]
    return [StageResult(p, model, (), (), p.by_name_only) for p in passes if p.by_name_only]


def _worth_skipping(plan: Recipe, stages: Sequence[StageResult], *, named: bool) -> frozenset[str]:
    """All lossy passes that acted but the last: they may have spent what it would use better."""
    lossy = _lossy_stages(plan)
    searched = all(stage.decisions is None for stage in plan.stages)
    if named or not searched:
        return frozenset()
    acted = {stage.pass_.name for stage in stages if stage.decisions}
    return frozenset(stage.pass_.name for stage in lossy[:-1]) & acted


def _cost(attempt: _Attempt, goal: str) -> tuple[bool, float]:
    """What the goal weighs; a broken budget is worse than anything."""
    model, _, validation = attempt
    size, time_ms = float(model_file.weight_bytes(model)), validation.latency.median_ms
    weighed = {"size": size, "latency": time_ms, "balanced": size * time_ms}
    return not validation.within_budget, weighed[goal]


def _attempt(
    original_model: ir.Model,
    plan: Recipe,
    work: _Work,
    *,
    named: bool,
    skipped: frozenset[str] = frozenset(),
    kernel_preserving_only: bool = False,
) -> _Attempt:
    """Run the stages and validate what comes out."""
    current, stages = _run_stages(
        original_model,
        plan,
        work,
        named=named,
        skipped=skipped,
        kernel_preserving_only=kernel_preserving_only,
    )
    feeds = work.evaluator.samples.feeds[:_COMPARED]
    current, notes = fit_form(current, work.target, plan.fit, feeds)
    work.progress("validating")
    known = [stage.measurement for stage in stages if stage.model is current]
    whole = [m for m in known if m is not None and m.samples == len(work.evaluator.samples)]
    validation = check_model(
        work.evaluator,
        work.original,
        current,
        threads=work.threads,
        measurement=whole[-1] if whole else None,
    )
    return current, stages, replace(validation, warnings=(*validation.warnings, *notes))


def _lossy_stages(plan: Recipe) -> list[RecipeStage]:
    """The stages that share the budget."""
    return [stage for stage in plan.stages if stage.pass_.stage not in _HARMLESS]


def _run_stages(
    original_model: ir.Model,
    plan: Recipe,
    work: _Work,
    *,
    named: bool,
    skipped: frozenset[str],
    kernel_preserving_only: bool,
) -> tuple[ir.Model, list[StageResult]]:
    """Every pass of the plan, but the skipped, on the model the earlier one left."""
    current = original_model
    stages: list[StageResult] = []
    lossy = _lossy_stages(plan)
    opset = max((stage.pass_.needed_opset for stage in lossy), default=1)
    for stage in plan.stages:
        pass_ = stage.pass_
        if pass_.name in skipped:
            note = "left out: with it, the later stages had less to gain from the budget"
            result = StageResult(pass_, current, (), (), note)
            lossy = [kept for kept in lossy if kept is not stage]
        elif pass_.stage == Stage.LOSSLESS:
            result = _lossless(pass_, current, work)
        else:
            if lossy and stage is lossy[0]:
                # Later the model differs from the original for other reasons too.
                current = _raised(current, opset, work)
            share = (lossy.index(stage) + 1) / len(lossy) if stage in lossy else 1.0
            result = _lossy(
                stage,
                current,
                work,
                share,
                named=named,
                kernel_preserving_only=kernel_preserving_only,
            )
        stages.append(result)
        current = result.model
    return (current.clone() if current is original_model else current), stages


def _context(model: ir.Model, work: _Work) -> Context:
    return Context(model, work.target, seed=work.seed)


def _lossless(pass_: Pass, model: ir.Model, work: _Work) -> StageResult:
    """Carry out a pass that must not change what the model computes, and check that."""
    context = _context(model, work)
    reason = "it proposed nothing"
    for decisions in _choices(pass_, context):
        rewritten = apply(pass_, context, decisions)
        difference = _difference(rewritten, work)
        if difference is None:
            note = "" if reason == "it proposed nothing" else f"only in part: {reason}"
            return StageResult(pass_, rewritten, decisions, (), note)
        reason = difference
        logger.warning(
            "%s changed what the model computes, so it is undone: %s", pass_.name, reason
        )
    return StageResult(pass_, model, (), (), note=f"undone: {reason}")


def _choices(pass_: Pass, context: Context) -> list[tuple[Decision, ...]]:
    """A lossless pass's ways to act, the most thorough first."""
    proposals = [item for item in pass_.propose(context) if isinstance(item, Proposal)]
    return [
        (Decision(proposal.site, candidate),)
        for proposal in proposals
        for candidate in proposal.candidates
    ]


def _difference(model: ir.Model, work: _Work) -> str | None:
    """How a rewritten model differs from the original beyond rounding, or `None`.

    Some outputs magnify rounding (a sigmoid near 0): the original run with and without
    onnxruntime's own optimizations shows by how much, and as much is allowed here.
    """
    try:
        session = Session(model, threads=work.threads)
        for evaluator in _judges(work):
            measured = evaluator.measure(session, evaluator.screening)
            wanted = dict.fromkeys(measured.outputs, _LOSSLESS_DB)
            if measured.worst_sqnr_db < _LOSSLESS_DB:
                plain = Session(work.original_model, threads=work.threads, optimize=False)
                floor = evaluator.measure(plain, evaluator.screening).outputs
                wanted = {n: min(_LOSSLESS_DB, floor[n].sqnr_db - _ROUNDING_DB) for n in wanted}
            for name, output in measured.outputs.items():
                if output.is_float and output.sqnr_db < wanted[name]:
                    return (
                        f"output {name} differs on {measured.source} ({output.sqnr_db:.0f} dB, "
                        f"expected {wanted[name]:.0f})"
                    )
                if not output.is_float and output.equal_share < 1:
                    return f"output {name} differs on {measured.source}"
    except ModelError as error:
        return str(error)
    return None


def _judges(work: _Work) -> list[Evaluator]:
    """The evaluation samples and random inputs; where nothing random fits, only the former."""
    if work.evaluator.samples.source == "random inputs":
        return [work.evaluator]
    try:
        drawn = random_samples(work.original, 2, work.seed)
    except DataError:
        logger.info("no random inputs fit the model: only the given samples are compared")
        return [work.evaluator]
    return [work.evaluator, Evaluator(work.original, drawn, Budget(metric="none"))]


def _raised(model: ir.Model, opset: int, work: _Work) -> ir.Model:
    """The model at the opset the passes need, where that is possible and changes nothing."""
    raised, reason = raise_opset(model, opset)
    if reason is not None:
        logger.info("%s", reason)
    if raised is model:
        return model
    difference = _difference(raised, work)
    if difference is not None:
        logger.warning("a higher opset changed what the model computes: %s", difference)
        return model
    return raised


def _lossy(
    stage: RecipeStage,
    model: ir.Model,
    work: _Work,
    share: float,
    *,
    named: bool,
    kernel_preserving_only: bool,
) -> StageResult:
    pass_ = stage.pass_
    context = _context(pass_.prepare(model), work)
    model = context.model
    if stage.decisions is not None and not kernel_preserving_only:
        if pass_.rewrites_from_statistics and stage.decisions:
            statistics = observe(pass_, context, work.calibration, threads=work.threads)
            context = replace(context, statistics=statistics)
        rewritten = model
        if stage.decisions:
            rewritten = apply_refined(
                pass_, context, stage.decisions, work.calibration, threads=work.threads
            )
        return StageResult(pass_, rewritten, stage.decisions, ())
    work.progress(f"{pass_.name}: statistics")
    statistics = observe(pass_, context, work.calibration, threads=work.threads)
    return search_stage(
        pass_,
        replace(context, statistics=statistics),
        work.evaluator,
        share=share,
        goal=work.goal,
        named=named,
        threads=work.threads,
        deadline=work.deadline,
        kernel_preserving_only=kernel_preserving_only,
        calibration=work.calibration,
        progress=work.progress,
    )


def _changes_kernels(stages: Sequence[StageResult]) -> bool:
    return any(not d.candidate.keeps_kernels for stage in stages for d in stage.decisions)


def _without_effect(stages: Sequence[StageResult], *, named: bool) -> list[str]:
    """A pass that was asked for by name and changed nothing is a failure."""
    return [
        f"{stage.pass_.name} was asked for and changed nothing: {stage.note or 'no site fits'}"
        for stage in stages
        if named and not stage.decisions and stage.pass_.stage not in _HARMLESS
    ]


def _calibration_source(samples: Samples | None, *, held_out: bool) -> CalibrationSource | None:
    if samples is None:
        return None
    return CalibrationSource(samples.source, samples_digest(samples), held_out)


def _stamp(model: ir.Model, recipe: Recipe, digest: str) -> None:
    """Say in the model where it came from."""
    model.metadata_props["onnxpress.version"] = onnxpress.__version__
    model.metadata_props["onnxpress.recipe_sha256"] = recipe.digest
    model.metadata_props["onnxpress.original_sha256"] = digest


def _without_runtime(
    loaded: ir.Model, plan: Recipe, source: str, digest: str, size: int, started: float
) -> Result:
    """Custom operators: only what needs no run is done, and nothing is claimed."""
    model = loaded.clone()
    context = Context(model, load_target(plan.target), seed=plan.seed)
    stages = []
    for stage in plan.stages:
        if stage.pass_.stage == Stage.LOSSLESS:
            decisions = _choices(stage.pass_, context)[0]
            stage.pass_.rewrite(context, decisions)
            stages.append(StageResult(stage.pass_, model, decisions, ()))
        else:
            note = "onnxruntime cannot run the model, so nothing could be measured"
            stages.append(StageResult(stage.pass_, model, (), (), note))
    final = replace(
        plan, stages=tuple(RecipeStage(stage.pass_, stage.decisions) for stage in stages)
    )
    _stamp(model, final, digest)
    names = ", ".join(_custom_operators(loaded))
    problem = (
        f"onnxruntime does not know the custom operator {names}: it was kept, the graph around it "
        "was simplified, and nothing could be run or validated"
    )
    return Result(
        model,
        final,
        tuple(stages),
        None,
        within_budget=False,
        problems=(problem,),
        original_bytes=size,
        source=source,
        seconds=time.monotonic() - started,
    )
