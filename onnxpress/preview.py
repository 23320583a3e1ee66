"""What `optimize` would try on a model, without a search: for `--dry-run`.

The model is simplified and asked for its sites by the rules of the passes; of the samples a few are
run, to read the outputs and to time the original. What only a search can say is not guessed.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from onnxpress.constraints import Constraints
from onnxpress.contract import Pass
from onnxpress.conversion import convert_shapes, with_float_weights
from onnxpress.data import random_samples
from onnxpress.errors import DataError, UsageError
from onnxpress.gains import predicted_times
from onnxpress.judge import promised, read_outputs
from onnxpress.lossless import simplified
from onnxpress.lossless_stage import require_selected
from onnxpress.memory import collected_rarely, memory_budget
from onnxpress.needed_memory import needed_bytes
from onnxpress.original import Original, SampleSets, load_sets_unrun, opened, read, settled
from onnxpress.pinning import Pins
from onnxpress.potential import Potential, potentials, predicted_bytes, timed_document
from onnxpress.report.reading import reading_document
from onnxpress.request import Request, planned
from onnxpress.runtime import Feed, Session
from onnxpress.selectable import selectable_sites
from onnxpress.targets import load_target

__all__ = ["preview"]

_FEW = 4
"""Samples that are run."""


@collected_rarely()
def preview(request: Request) -> dict[str, Any]:
    """What would be tried, and what is known of it, as JSON-ready data.

    Args:
        request: as for `optimize`.

    Raises:
        OnnxpressError: the input cannot be used, as `optimize` would say it.
    """
    if request.recipe is not None:
        raise UsageError(
            "a recipe repeats decisions that are made, and --dry-run says what would be tried: "
            "leave one of them out [U008]"
        )
    given = read(request)
    plan = planned(request, given.digest)
    given = settled(given, plan.recipe.overridable)
    target = load_target(plan.recipe.target)
    large = needed_bytes(given.model) > memory_budget(request.max_memory)
    if not large:
        given = replace(given, model=with_float_weights(given.model))
    require_selected(plan.recipe, given.model, target)
    given = replace(given, model=convert_shapes(given.model, plan.recipe.conversion))
    sets = load_sets_unrun(request, given.model, plan.recipe, choosing=True)
    session = None if large else opened(given, plan.recipe, request.threads).session
    feeds = [] if session is None else _feeds(session, sets, given, request.seed)
    answers = [session.run(feed) for feed in feeds] if session is not None else []
    known = answers if sets is not None else []
    budget = request.budget
    readings = read_outputs(given.model, session, known, task=budget.task, kinds=budget.outputs)
    passes = [stage.pass_ for stage in plan.recipe.stages]
    model = simplified(given.model, passes, target, request.seed)
    pins = Pins.of(plan.recipe.selection, selectable_sites(model, given.model))
    found = [
        replace(potential, by_name_only="")
        for potential in potentials(
            [pass_ for pass_ in passes if pass_.stage.loses],
            model,
            target,
            shapes_only=large,
            pins=pins,
        )
    ]
    feed = feeds[0] if feeds else None
    took = _time(session, feeds)
    shapes = None if feed is None else {name: array.shape for name, array in feed.items()}
    times = None
    if target.timed_here:
        times = predicted_times(model, threads=request.threads, given=shapes, clocked=took)
    size = predicted_bytes(given.nbytes, found)
    latency = _latency(took, timed_document(found, times))
    return {
        "dry_run": True,
        "source": given.source,
        "target": target.name,
        "goal": request.goal,
        "order": _order(passes),
        "samples": _sizes(sets),
        "readings": [reading_document(reading) for reading in readings.values()],
        "judged": promised(readings, budget),
        "passes": [potential.document(times) for potential in found],
        "size": {
            "original_bytes": given.nbytes,
            "predicted_bytes": size,
        },
        "latency": latency,
        "constraints": _constraints(plan.recipe.constraints, size, latency, found),
        "loss": None,
        "warnings": [given.note] * bool(given.note) + list(plan.problems),
    }


def _feeds(session: Session, sets: SampleSets | None, given: Original, seed: int) -> Sequence[Feed]:
    """A few samples, or one that is made up, or none where none can be."""
    if sets is not None:
        return sets.selection.feeds[:_FEW]
    try:
        return random_samples(session, 1, seed, given.model).feeds
    except DataError:
        return []


def _time(session: Session | None, feeds: Sequence[Feed]) -> float | None:
    """The median of a few runs of the first sample, in milliseconds."""
    if session is None or not feeds:
        return None
    took = []
    for _ in range(_FEW + 1):
        started = time.perf_counter()
        session.run(feeds[0])
        took.append(time.perf_counter() - started)
    return 1000 * statistics.median(took[1:])


def _latency(took: float | None, told: dict[str, Any] | None) -> dict[str, Any]:
    """What the original takes by the clock, and what is predicted of the result."""
    return {
        "original_ms": took,
        "predicted_ms": None if told is None else told["predicted_ms"],
        "speedup": None,
        "prediction": told,
    }


def _constraints(
    wanted: Constraints, nbytes: int, latency: Mapping[str, Any], found: Sequence[Potential]
) -> list[dict[str, Any]]:
    """What the predictions say of each; what samples open is in none of them."""
    told = latency["prediction"]
    before = latency["original_ms"] or (None if told is None else told["original_ms"])
    whole = not any(potential.opened for potential in found)
    after = latency["predicted_ms"]
    return [asdict(one) for one in wanted.expectations(nbytes, before, after, whole=whole)]


def _order(passes: Sequence[Pass]) -> list[dict[str, Any]]:
    """The passes as they act, and whether they may lose something."""
    return [
        {"pass": pass_.name, "loses": pass_.stage.loses}
        for pass_ in sorted(passes, key=lambda pass_: pass_.stage)
    ]


def _sizes(sets: SampleSets | None) -> dict[str, Any] | None:
    """How many samples are there for what."""
    if sets is None:
        return None
    return {
        "observed": 0 if sets.calibration is None else len(sets.calibration),
        "choosing": len(sets.selection),
        "judging": len(sets.evaluation),
        "apart": sets.apart,
    }
