"""Validate a model against its original: interface, fidelity, task metric, speed, saturation.

On x86-64 a quantized model is run three ways: as onnxruntime runs it by default, exactly
(`session.disable_quant_qdq`, float arithmetic between Q and DQ), and with
`session.x64quantprecision`. Where the default is more than 1 dB worse than exact, 16-bit sums
saturate in its integer kernels, and a warning says so.
"""

import logging
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.conversion import opened_file, with_own_names
from onnxpress.data import Data, load_prepared, random_samples, require_runnable
from onnxpress.errors import ModelError
from onnxpress.judge import (
    ROUNDING_DB,
    Budget,
    Evaluator,
    Judgement,
    Measurement,
    Reading,
    interface_problems,
    judgement,
    measured_in_half,
)
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.providers import (
    NO_PROVIDERS,
    ProviderOptions,
    ProviderVerdict,
    check_providers,
    unmet,
)
from onnxpress.runtime import (
    EXACT,
    X64_PRECISE,
    Clock,
    Latency,
    Session,
    compare_latency,
    executed_operators,
)

__all__ = ["Validation", "check_model", "in_half_arithmetic", "on_providers", "validate"]

logger = logging.getLogger(__name__)

SATURATION_DB = 1.0
_SPECIALIZED = 10.0
"""Times the error power: what disturbed inputs lose in a model that was not fitted to any."""


@dataclass(frozen=True)
class Validation:
    """What was found.

    Attributes:
        within_budget: the budget holds and the interface is the same.
        budget: in words.
        measurement: with onnxruntime's default options.
        modes: on some of the samples, for `exact` and `x64quantprecision`; quantized models on
            x86-64.
        latency: against the original, from interleaved rounds.
        integer_kernels: how many nodes onnxruntime runs in integers, by operator.
        problems: what breaks the model's promise, in sentences.
        warnings: what its user should know, in sentences.
        providers: what each execution provider that was asked for did with it.
        readings: how the outputs were read.
        judgement: how far the figures carry; `None` where nothing was measured.
        by_blocks: it was run block by block on the samples alone, as the whole does not fit into
            memory: neither latency nor kernels are known.
        timed_on_target: the latency is that of the target; else of this machine's CPU, which says
            nothing of it.
    """

    within_budget: bool
    budget: str
    measurement: Measurement
    modes: Mapping[str, Measurement]
    latency: Latency
    integer_kernels: Mapping[str, int]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    providers: tuple[ProviderVerdict, ...] = ()
    readings: tuple[Reading, ...] = ()
    judgement: Judgement | None = None
    by_blocks: bool = False
    timed_on_target: bool = True


def check_model(
    evaluator: Evaluator,
    original: Session,
    model: Session | ir.Model | Path,
    *,
    threads: int,
    latency: Latency | None = None,
    clock: Clock = compare_latency,
    timed_on_target: bool = True,
) -> Validation:
    """Measure `model` in every way against an evaluator's original.

    Args:
        evaluator: judges.
        original: what it judges by.
        model: what is judged, or an open session of it.
        threads: of onnxruntime.
        latency: of this very model, where it was taken already.
        clock: compares latencies.
        timed_on_target: whether latencies here are those of the target.
    """
    session = model if isinstance(model, Session) else Session(model, threads=threads)
    model = session.model
    measurement = evaluator.measure(session)
    problems = interface_problems(original, session)
    kernels = executed_operators(model, integer_only=True)
    modes: dict[str, Measurement] = {}
    warnings: list[str] = []
    if kernels and platform.machine() in ("x86_64", "AMD64"):
        for name, config in (("exact", EXACT), ("x64quantprecision", X64_PRECISE)):
            try:
                precise = Session(model, threads=threads, config=config)
                modes[name] = evaluator.measure(precise, evaluator.screening)
            except ModelError as error:
                # Such options rewrite zero points, which fails where weights share one.
                logger.info("not measured in the mode %s: %s", name, error)
                warnings.append(
                    f"not measured in the mode {name}: onnxruntime cannot run the model with that "
                    "setting [W013]"
                )
        lost = 0.0
        if "exact" in modes:
            default = evaluator.measure(session, evaluator.screening)
            lost = modes["exact"].worst_sqnr_db - default.worst_sqnr_db
        if lost > SATURATION_DB:
            warnings.append(
                f"integer kernels lose {lost:.1f} dB against exact arithmetic on this processor "
                "(saturation); set session.x64quantprecision=1, or use 7-bit weights [W002]"
            )
    warnings += _about(evaluator, measurement)
    if latency is None:
        latency = clock(original, session, evaluator.samples.feeds[0])
    if timed_on_target and latency.high < 1:
        warnings.append(f"slower than the original: {latency.speedup:.2f} times its speed [W001]")
    return Validation(
        within_budget=evaluator.holds(measurement) and not problems,
        budget=evaluator.described,
        measurement=measurement,
        modes=modes,
        latency=latency,
        integer_kernels=kernels,
        problems=tuple(problems),
        warnings=tuple(warnings),
        readings=tuple(evaluator.readings.values()),
        judgement=judgement(evaluator, measurement),
        timed_on_target=timed_on_target,
    )


def _about(evaluator: Evaluator, measurement: Measurement) -> Iterator[str]:
    """What its user should know of how the outputs were judged."""
    if evaluator.random:
        yield evaluator.random
    yield from evaluator.notes
    for probe in measurement.probes:
        if not probe.output or not math.isfinite(probe.sqnr_db) or probe.carried:
            continue
        usual = measurement.outputs[probe.output].sqnr_db
        times = 10 ** ((usual - probe.sqnr_db) / 10)
        if times > _SPECIALIZED and probe.sqnr_db < ROUNDING_DB:
            yield (
                f"specialized to the data: {times:.0f} times the error on {probe.name} "
                f"({probe.sqnr_db:.1f} dB there, {usual:.1f} dB on the samples; output "
                f"{probe.output}) [W003]"
            )


def validate(
    model: str | Path,
    reference: str | Path,
    *,
    evaluation: Data | None = None,
    preparation: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    threads: int = 0,
    seed: int = 0,
    providers: ProviderOptions = NO_PROVIDERS,
    clock: Clock = compare_latency,
    progress: Tell = unheard,
) -> Validation:
    """Compare a model file with its original.

    Args:
        model: the file to judge.
        reference: the original.
        evaluation: samples; without, random inputs are used, which show fidelity but no task.
        preparation: how a recipe says that files are prepared (`Recipe.preparation`).
        budget: what may be lost.
        threads: of onnxruntime; 0: all cores.
        seed: of random inputs.
        providers: where else to run it; a required one that does not run breaks the promise.
        clock: compares latencies; in tests a table.
        progress: told how far it is, see `Progress`.

    Raises:
        ModelError: one of the files is no model, or onnxruntime cannot load or run it.
        DataError: the samples do not fit.
        BudgetError: the budget cannot be judged with these samples.
    """
    providers.check()
    progress = followed(progress)
    progress(Progress("reading", fraction=0.0))
    loaded, loaded_original = (model_file.load(file) for file in (model, reference))
    loaded_original, _ = with_own_names(loaded_original)
    original = opened_file(Path(reference), threads=threads)
    candidate = Session(Path(model), threads=threads, name=str(model))
    samples = (
        random_samples(original, 4, seed, loaded_original)
        if evaluation is None
        else load_prepared(evaluation, original.inputs, preparation or {})
    )
    require_runnable(original, samples)
    problems = interface_problems(original, candidate)
    if problems:
        return _broken(problems)
    progress(Progress("running the original", fraction=0.1))
    evaluator = Evaluator(original, samples, budget or Budget(), model=loaded_original)
    progress(Progress("judging", fraction=0.3))
    found = check_model(evaluator, original, Path(model), threads=threads, clock=clock)
    found = in_half_arithmetic(found, loaded, evaluator, counts=False, threads=threads)
    return on_providers(
        found,
        loaded,
        loaded_original,
        evaluator,
        providers,
        threads=threads,
        progress=part(progress, 0.5, 1.0),
    )


def in_half_arithmetic(
    found: Validation, model: ir.Model, evaluator: Evaluator, *, counts: bool, threads: int
) -> Validation:
    """Add what a half model keeps where half is computed in half, emulated.

    Args:
        found: on the CPU, which may compute half types in float32.
        model: what was judged.
        evaluator: judges.
        counts: whether the target computes in half, so that the budget has to hold there too.
        threads: of onnxruntime.
    """
    try:
        measurement = measured_in_half(evaluator, model, threads=threads)
    except ModelError as error:
        said = f"half arithmetic could not be emulated: {error} [H003]"
        return replace(found, warnings=(*found.warnings, said))
    if measurement is None:
        return found
    lost = f", {measurement.metric} loses {measurement.drop:.2f}" if measurement.metric else ""
    said = (
        "half arithmetic, emulated (each operator rounds to half): the worst output keeps "
        f"{measurement.worst_whole_db:.1f} dB as a whole, {measurement.worst_sqnr_db:.1f} dB in "
        f"its worst slices{lost}, on {measurement.samples} samples"
    )
    broken = evaluator.broken(measurement)
    problems = found.problems
    if broken and counts:
        problems = (*problems, f"the budget does not hold in half arithmetic: {broken}")
    return replace(
        found,
        warnings=(*found.warnings, said),
        problems=problems,
        within_budget=found.within_budget and problems == found.problems,
    )


def on_providers(
    found: Validation,
    model: ir.Model,
    original: ir.Model,
    evaluator: Evaluator,
    providers: ProviderOptions,
    *,
    threads: int,
    progress: Tell,
) -> Validation:
    """Add what the providers say to a validation on the CPU."""
    if not providers.names:
        return found
    verdicts = check_providers(
        providers, model, original, evaluator, threads=threads, progress=progress
    )
    problems = unmet(verdicts, providers.required)
    return replace(
        found,
        providers=verdicts,
        problems=(*found.problems, *problems),
        within_budget=found.within_budget and not problems,
    )


def _broken(problems: list[str]) -> Validation:
    nan = float("nan")
    return Validation(
        within_budget=False,
        budget="the same inputs and outputs",
        measurement=Measurement({}, (), 0, "nothing was run"),
        modes={},
        latency=Latency(nan, nan, nan, nan, nan),
        integer_kernels={},
        problems=tuple(problems),
    )
