"""Whether a model keeps what a team has agreed on: size, budget, speed; for their own checks."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxpress import model_file
from onnxpress.constraints import Constraints, Requirement
from onnxpress.errors import UsageError
from onnxpress.judge import Budget
from onnxpress.pipeline import optimize
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.recipe import Recipe
from onnxpress.request import DataArgument
from onnxpress.runtime import Clock, compare_latency
from onnxpress.temporary import temporary_folder
from onnxpress.validation import Validation, validate

__all__ = ["check"]

_MADE = 0.7
"""Of the time, usually: until a recipe was followed."""


def check(
    original: str | Path,
    *,
    optimized: str | Path | None = None,
    recipe: str | Path | None = None,
    calibration: DataArgument | None = None,
    evaluation: DataArgument | None = None,
    budget: Budget | None = None,
    max_size: str | int | None = None,
    min_speedup: float | None = None,
    threads: int = 0,
    clock: Clock = compare_latency,
    progress: Tell = unheard,
) -> list[Requirement]:
    """Check an optimized file, or what a recipe makes of the original, against what was agreed on.

    Args:
        original: the file that is optimized.
        optimized: what was made of it earlier.
        recipe: what makes it; one of both.
        calibration: for a recipe that needs samples and does not find those it names.
        evaluation: samples to judge on; without, random inputs show fidelity alone.
        budget: what may be lost; `None`: the default.
        max_size: bytes, or with a unit as `4MB`, of the file with its external data.
        min_speedup: how many times as fast as the original it has to be, by the median of
            interleaved rounds on this machine.
        threads: of onnxruntime; 0: all cores.
        clock: compares latencies; in tests a table.
        progress: told how far it is, see `Progress`.

    Raises:
        UsageError: neither or both of `optimized` and `recipe`, or a size that is none.
        OnnxpressError: a file cannot be read, or samples do not fit.
    """
    if (optimized is None) == (recipe is None):
        raise UsageError(
            "give either --recipe, to make the model anew, or --optimized, a file [U008]"
        )
    constraints = Constraints.of(max_size, min_speedup, None)
    budget = budget or Budget()
    progress = followed(progress)
    preparation: Mapping[str, Any] = {}
    with temporary_folder() as folder:
        made = Path(optimized) if optimized is not None else folder / "model.onnx"
        if recipe is not None:
            progress(Progress("making the model by its recipe", fraction=0.0))
            told = Recipe.load(recipe)
            preparation = told.preparation
            apart = told.calibration is not None and not told.calibration.held_out
            result = optimize(
                original,
                recipe=told,
                calibration=calibration,
                # Where there was none, a part of the calibration samples was held out.
                evaluation=evaluation if apart else None,
                threads=threads,
                clock=clock,
                progress=part(progress, 0.0, _MADE),
            )
            result.save(made)
        progress(Progress("judging it", fraction=_MADE if recipe else 0.0))
        found = validate(
            made,
            original,
            evaluation=evaluation,
            preparation=preparation,
            budget=budget,
            threads=threads,
            clock=clock,
            progress=part(progress, _MADE if recipe else 0.0, 1.0),
        )
        size = model_file.size_bytes(made)
    budget_held = Requirement("budget", found.budget, _judged(found), found.within_budget)
    return [budget_held, *constraints.requirements(size, found.latency)]


def _judged(found: Validation) -> str:
    if found.problems:
        return "; ".join(found.problems)
    measured = found.measurement
    parts = []
    if measured.metric is not None:
        parts.append(f"{measured.metric} drop {measured.drop:.2f}")
        worst = measured.worst_metric
        if worst is not None and math.isfinite(worst.interval[1]):
            share = f"{100 * worst.confidence:.3g}%"
            parts[0] += f" (at most {worst.interval[1]:.2f} with {share})"
    if math.isfinite(measured.worst_sqnr_db):
        parts.append(f"SQNR {measured.worst_sqnr_db:.1f} dB")
    return f"{', '.join(parts) or 'identical'}, {measured.samples} samples"
