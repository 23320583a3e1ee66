"""The model as it was given: read, opened, and judged by from then on."""

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.conversion import (
    convert_shapes,
    settle_weights,
    with_own_names,
)
from onnxpress.data import (
    MOST_SECONDS,
    Samples,
    load_prepared,
    random_samples,
    require_runnable,
)
from onnxpress.data.copies import noting_shared, without_copies
from onnxpress.errors import DataError, ModelError, NoSamplesError, RecipeError
from onnxpress.judge import Evaluator
from onnxpress.recipe import CalibrationSource, Recipe, samples_digest
from onnxpress.request import Request
from onnxpress.runtime import InputSpec, Session
from onnxpress.search import Findings, Magnifications, SearchOptions
from onnxpress.shared_statistics import SharedStatistics
from onnxpress.stage_result import StageResult
from onnxpress.targets import Target

__all__ = [
    "Latest",
    "Original",
    "Run",
    "SampleSets",
    "custom_operators",
    "load_sets",
    "load_sets_unrun",
    "opened",
    "read",
    "settled",
]

_SELECTION_MOST = 256
"""Samples: more make the search slower and choose hardly better."""
_SELECTION_MOST_FOR_BOUNDS = 1024
"""Where the search has to keep bounds: 299 samples without a failure prove one point."""
_HELD_OUT_SHARE = 1 / 2
_FEW = 4
"""Below, nothing is left to judge on where a part chooses."""
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training")


@dataclass(frozen=True)
class Original:
    """What was given.

    Attributes:
        model: with its shapes fixed as asked for.
        source: where it came from, for people.
        digest: SHA-256 of what was given.
        nbytes: of what was given.
        session: `None` where custom operators keep onnxruntime from running it.
        note: what was decided about weights that are inputs too, and about names that repeat;
            empty where there are none.
    """

    model: ir.Model
    source: str
    digest: str
    nbytes: int
    session: Session | None = None
    note: str = ""


@dataclass(frozen=True)
class SampleSets:
    """Samples by what they are for.

    Attributes:
        calibration: what passes may look at, or `None`.
        selection: what the search chooses by.
        evaluation: what the budget is judged on in the end; no choice has seen them.
        held_out: whether the latter are a part of what was given for calibration.
    """

    calibration: Samples | None
    selection: Samples
    evaluation: Samples
    held_out: bool

    @property
    def apart(self) -> bool:
        """Whether what judges has not chosen."""
        return self.selection is not self.evaluation

    @property
    def preparation(self) -> Mapping[str, Any]:
        """How files were prepared, for the recipe; empty where none were."""
        known = () if self.calibration is None else (self.calibration,)
        return next((s.preparation for s in (*known, self.evaluation) if s.preparation), {})

    @property
    def calibration_source(self) -> CalibrationSource | None:
        """For the recipe."""
        if self.calibration is None:
            return None
        digest = samples_digest(self.calibration)
        return CalibrationSource(self.calibration.source, digest, self.held_out)


def read(request: Request) -> Original:
    """Read and check the model.

    Raises:
        ModelError: it is missing, broken or no model.
    """
    given = request.model
    if isinstance(given, ir.Model):
        content = model_file.to_bytes(given)
        digest = hashlib.sha256(content).hexdigest()
        return Original(given, "a model in memory", digest, len(content))
    path = Path(given)
    loaded = model_file.load(path)
    return Original(loaded, str(path), model_file.digest(path), model_file.file_bytes(loaded))


def settled(original: Original, overridable: bool | None) -> Original:  # noqa: FBT001 - of a recipe
    """As onnxruntime can load it, and with weights that are inputs too as what they are.

    Constants, or what callers may override.
    """
    model, note = settle_weights(original.model, overridable)
    model, renamed = with_own_names(model)
    return replace(original, model=model, note="; ".join(said for said in (note, renamed) if said))


def opened(original: Original, recipe: Recipe, threads: int) -> Original:
    """With its shapes fixed and a session; without one where only a custom operator is in the way.

    Raises:
        ModelError: onnxruntime cannot load it.
        UsageError: the shapes asked for do not fit it.
    """
    fixed = convert_shapes(original.model, recipe.conversion)
    same = fixed is original.model and not original.note
    from_file = same and Path(original.source).is_file()
    place = Path(original.source) if from_file else fixed
    session = None
    try:
        session = Session(place, threads=threads, name=original.source)
    except ModelError:
        if not custom_operators(original.model):
            raise
    return replace(original, model=fixed, session=session)


def custom_operators(model: ir.Model) -> list[str]:
    """Operators that onnxruntime cannot know."""
    functions = {(key[0], key[1]) for key in model.functions}
    return sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in model.graph.all_nodes()
            if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in functions
        }
    )


def load_sets(request: Request, original: Original, recipe: Recipe) -> SampleSets:
    """Calibration and evaluation samples, checked and run once.

    Args:
        request: what was given.
        original: with a session.
        recipe: the plan.

    Raises:
        DataError: samples that do not fit the model.
        NoSamplesError: none were given, and none can be made up; or the outputs are no tensors.
        RecipeError: the recipe was made with other samples.
    """
    session = original.session
    assert session is not None
    _require_tensors(session, original.source)
    looked_at = _calibration(request, recipe, session.inputs)
    if looked_at is not None:
        require_runnable(session, looked_at)
    told = recipe.calibration
    held_out = request.evaluation is None or (told is not None and told.held_out)
    bounded = request.budget.confidence is not None
    most = _SELECTION_MOST_FOR_BOUNDS if bounded else _SELECTION_MOST
    if request.evaluation is not None:
        given = load_prepared(request.evaluation, session.inputs, recipe.preparation)
        require_runnable(session, given)
        if held_out and looked_at is not None:
            # What the recipe was made with is the rest of what is given.
            looked_at, _ = without_copies(looked_at).hold_out(_HELD_OUT_SHARE, recipe.seed)
        given = _judging(given, looked_at)
        selection, judged = _selection(given, recipe.seed, most)
    elif looked_at is not None:
        looked_at, given = without_copies(looked_at).hold_out(_HELD_OUT_SHARE, recipe.seed)
        selection, judged = _selection(given, recipe.seed, most)
    else:
        selection = _made_up(session, recipe.seed, original)
        judged = _made_up(session, recipe.seed + 1, original)
    _require_known(recipe, looked_at)
    return SampleSets(looked_at, selection, judged, held_out)


def load_sets_unrun(
    request: Request, model: ir.Model, recipe: Recipe, *, choosing: bool
) -> SampleSets | None:
    """As `load_sets`, of a model that is not opened; `None` where nothing was given.

    Without `choosing` all samples that no pass looks at are there to judge on.

    Raises:
        DataError: samples that do not fit the model.
        RecipeError: the recipe was made with other samples.
    """
    inputs = _inputs(model)
    looked_at = _calibration(request, recipe, inputs)
    if request.evaluation is not None:
        judged = load_prepared(request.evaluation, inputs, recipe.preparation)
        judged = _judging(judged, looked_at)
    elif looked_at is not None:
        looked_at, judged = without_copies(looked_at).hold_out(_HELD_OUT_SHARE, recipe.seed)
    else:
        return None
    _require_known(recipe, looked_at)
    chosen = judged
    if choosing:
        bounded = request.budget.confidence is not None
        most = _SELECTION_MOST_FOR_BOUNDS if bounded else _SELECTION_MOST
        chosen, judged = _selection(judged, recipe.seed, most)
    return SampleSets(looked_at, chosen, judged, request.evaluation is None)


def _inputs(model: ir.Model) -> list[InputSpec]:
    """What a model takes, by its graph."""
    found = []
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        dims = () if value.shape is None else tuple(value.shape)
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in dims)
        dtype = "" if value.dtype is None else np.dtype(value.dtype.numpy()).name
        found.append(InputSpec(value.name or "", dtype, shape))
    return found


def _calibration(request: Request, recipe: Recipe, inputs: Sequence[InputSpec]) -> Samples | None:
    """What passes may look at, before a part is held out: given, or named by the recipe."""
    if request.calibration is not None:
        return load_prepared(request.calibration, inputs, recipe.preparation)
    if recipe.calibration is not None:
        name, source = _name_of(request.recipe), recipe.calibration.source
        return load_prepared(source, inputs, recipe.preparation, named_in=name)
    return None


def _require_known(recipe: Recipe, looked_at: Samples | None) -> None:
    """Refuse samples that the recipe was not made with."""
    if recipe.calibration is None or looked_at is None:
        return
    found = samples_digest(looked_at)
    if found != recipe.calibration.digest:
        source = recipe.calibration.source
        given = "" if looked_at.source == source else f"{looked_at.source}, "
        raise RecipeError(
            "the recipe was made with other calibration data"
            + ("" if given else " or another part of it")
            + f" ({source}, digest {recipe.calibration.digest[:12]}; given: {given}digest "
            f"{found[:12]}); give the same with --calibration"
            + ("" if recipe.calibration.held_out else " and the evaluation data of its own")
            + " [R002]"
        )


def _require_tensors(session: Session, source: str) -> None:
    """Refuse to compare what is neither tensor nor map, with samples or without."""
    for name, kind in zip(session.output_names, session.output_types, strict=True):
        if kind.startswith(("seq(", "optional(")) and not kind.startswith("seq(map("):
            raise NoSamplesError(
                f"{source}: the output {name!r} is a {kind}, which has no figure [D012]"
            )


def _judging(given: Samples, looked_at: Samples | None) -> Samples:
    """Samples to choose by and to judge on, each once; said where passes look at them too."""
    given = without_copies(given)
    return given if looked_at is None else noting_shared(given, looked_at)


def _name_of(recipe: object) -> str:
    return str(recipe) if isinstance(recipe, str | os.PathLike) else "the recipe"


def _selection(given: Samples, seed: int, most: int) -> tuple[Samples, Samples]:
    """Samples to choose by, and others to judge on: a half each, or what is more to judge on.

    Very few are not divided: then what chooses judges, and it is said.
    """
    if len(given) < _FEW or (given.groups is not None and len(set(given.groups.tolist())) < 2):
        return given, given
    share = min(0.5, most / len(given))
    chosen, judged = given.parts((share, 1 - share), seed)
    return (
        replace(chosen, source=f"{given.source} (to choose by)"),
        replace(judged, source=f"{given.source} (untouched)"),
    )


def _made_up(session: Session, seed: int, original: Original) -> Samples:
    try:
        samples = random_samples(session, 4, seed, original.model)
        for feed in samples.feeds:
            # Some models divide by what another draw has as zero.
            session.run(feed, most_s=MOST_SECONDS)
    except (DataError, ModelError) as error:
        raise NoSamplesError(f"{original.source}: {error}") from error
    return samples


@dataclass(frozen=True, slots=True)
class Latest:
    """What the latest search of a changed model found out.

    Attributes:
        model: held, so that it is known when it comes again.
        findings: about it.
    """

    model: ir.Model
    findings: Findings


@dataclass(frozen=True)
class Run:
    """What every stage needs.

    Attributes:
        request: what was asked for.
        recipe: the plan.
        original: the model, with a session.
        target: what the provider accepts.
        calibration: samples that passes may look at, or `None`.
        evaluator: judges what the search tries.
        options: of the search, for the whole budget.
        statistics: of the calibration samples.
        lossless: what passes that lose nothing made of the original, by the identities of the pass
            and of the model it was given, which all live as long as the run.
        raised: likewise, by opset and model.
        findings: what searches found out about a raised model that is small, by pool and model.
        latest: and about the last one that each pool met changed: it is fitted again, or met again
            with another part of the budget.
        reached: what pools made of small models, by all that it hangs on; the models that were
            given are held beside, so that their identities last.
        magnifications: of errors at the outputs, by pool, for all models that it meets.
    """

    request: Request
    recipe: Recipe
    original: Original
    target: Target
    calibration: Samples | None
    evaluator: Evaluator
    options: SearchOptions
    statistics: SharedStatistics
    lossless: dict[tuple[int, int], StageResult] = field(default_factory=dict)
    raised: dict[tuple[int, int], ir.Model] = field(default_factory=dict)
    findings: dict[tuple[str, int], Findings] = field(default_factory=dict)
    latest: dict[str, Latest] = field(default_factory=dict)
    reached: dict[tuple[Hashable, ...], tuple[ir.Model, list[StageResult]]] = field(
        default_factory=dict
    )
    magnifications: dict[str, Magnifications] = field(default_factory=dict)
