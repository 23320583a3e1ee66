"""What is done to fit a target, before and after the passes, each step checked by a run."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.conversion.half import strip_casts
from onnxpress.conversion.half_range import Magnitudes
from onnxpress.conversion.half_weights import chosen_again
from onnxpress.conversion.halving import halved, stored
from onnxpress.conversion.opset import change_opset
from onnxpress.conversion.rewrites import drop_performed_activations, pool_by_window
from onnxpress.conversion.shapes import fix_shapes
from onnxpress.enumeration import few
from onnxpress.errors import ModelError, UsageError, nearest
from onnxpress.graph import standard_opset
from onnxpress.runtime import Feed, Session, seen_by_providers
from onnxpress.storage import note_storage, storage_of
from onnxpress.targets import Target, load_target

__all__ = [
    "FLOAT16",
    "Conversion",
    "convert_form",
    "convert_interface",
    "convert_shapes",
    "dynamic_inputs",
    "require_half",
]

logger = logging.getLogger(__name__)

FLOAT16 = ("no", "storage", "keep-io", "all")
_COMPARED = 2
"""Samples on which a change of form is compared with the model before it."""
_LEAST_DB = 60.0
"""Another opset or another way to write the same may change the order of sums, no more."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What the user asks for besides what the target needs.

    Attributes:
        shapes: `NAME=1x3x224x224` for an input, `DIM=4` for a symbolic dimension.
        float16: `no`, `storage` (weights behind a Cast that is done at load), `keep-io` (half
            inside, inputs and outputs as they were) or `all`.
        opset: to convert to; 0: only where the target knows no newer one.
    """

    shapes: tuple[str, ...] = ()
    float16: str = "no"
    opset: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if self.float16 not in FLOAT16:
            raise UsageError(
                f"float16 is {self.float16!r}{nearest(self.float16, FLOAT16)} (there are: "
                f"{', '.join(FLOAT16)}) [U009]"
            )
        if self.opset < 0:
            raise UsageError(f"opset is {self.opset}; expected the number of an opset [U009]")


def require_half(asked: Conversion, target: Target) -> None:
    """Refuse half tensors for a target that does not take them.

    Raises:
        UsageError: the target takes no half types.
    """
    if asked.float16 in ("keep-io", "all") and target.float16 == "none":
        types = [load_target(name).types for name in target.members]
        common = [kind for kind in types[0] if all(kind in other for other in types)]
        raise UsageError(
            f"--float16 {asked.float16}: {target.name} takes no half tensors, it has "
            f"{', '.join(common)}; --float16 storage halves the file for every target [U009]"
        )


def convert_shapes(model: ir.Model, asked: Conversion) -> ir.Model:
    """The model with its shapes fixed as asked for; the same model where nothing was.

    Raises:
        UsageError: a name is unknown, two sizes contradict each other, or the model does not
            load with them.
    """
    if not asked.shapes:
        return model
    fixed = fix_shapes(model, asked.shapes)
    try:
        seen = seen_by_providers(fixed)
    except ModelError as error:
        raise UsageError(f"--fix-shape {' '.join(asked.shapes)}: {error} [U004]") from error
    # onnxruntime folds what computes shapes, so it knows more of them.
    for value, known in zip(fixed.graph.outputs, seen.graph.outputs, strict=True):
        if known.shape is not None and known.shape.is_static():
            value.shape = known.shape
    return fixed


def convert_form(
    model: ir.Model,
    target: Target,
    asked: Conversion,
    feeds: Sequence[Feed],
    observe: Callable[[ir.Model], Magnitudes] = lambda _: Magnitudes(),
) -> tuple[ir.Model, list[str]]:
    """The model in the form the target wants, and what its user should know, in sentences.

    A step that onnxruntime cannot repeat on `feeds` is undone and reported.

    Args:
        model: it is not changed.
        target: whose needs are met.
        asked: what was asked for besides.
        feeds: inputs to compare the answers before and after each step on, and by which half
            precision is chosen.
        observe: how far the tensors of a model reach on samples; asked for half precision.
    """
    notes: list[str] = []
    current = model
    wanted = asked.opset or min(standard_opset(model), target.maximum_opset)
    for what, step in _steps(target, wanted):
        changed, reason = step(current)
        if reason is None and changed is not current:
            reason = _difference(current, changed, feeds[:_COMPARED])
        if reason is None:
            current = changed
        else:
            notes.append(f"{what}: not done: {reason} [C001]")
    if wanted > target.maximum_opset:
        notes.append(
            f"opset {wanted} is newer than the {target.maximum_opset} of {target.name} [C002]"
        )
    if asked.float16 == "no":
        current, found = _stored_again(current, feeds)
        notes += found
    elif asked.float16 == "storage":
        current, found = stored(current, target, feeds)
        notes += found
    else:
        current, found = halved(current, target, feeds, observe)
        notes += found
    if storage_of(current.graph) is not None:
        current = current.clone()
        note_storage(current, None)
    dynamic = dynamic_inputs(current)
    if target.static_shapes and dynamic:
        notes.append(
            f"{target.name} needs every shape when the model is loaded, and the sizes of "
            f"{', '.join(dynamic)} are not fixed: give them with "
            f"{' '.join(_options(current, dynamic))} (1 stands for what is not known) [C003]"
        )
    return current, notes


def _stored_again(model: ir.Model, feeds: Sequence[Feed]) -> tuple[ir.Model, list[str]]:
    """A model that came with weights in half in that form again, and what its user should know."""
    try:
        made, costly = chosen_again(model, feeds)
    except ModelError as error:
        return model, [f"storing weights in half again: not done: {error} [C001]"]
    if not costly:
        return made, []
    note = (
        f"{len(costly):,} of the weights that came in half kept in float32, as rounding again what "
        f"was folded in would lose too much: {few(costly)} [C001]"
    )
    return made, [note]


_Step = Callable[[ir.Model], tuple[ir.Model, str | None]]


def _steps(target: Target, opset: int) -> list[tuple[str, _Step]]:
    steps: list[tuple[str, _Step]] = []
    if any(load_target(member).partitioning != "all" for member in target.members):
        steps.append(("leaving out activation functions", _without_performed))
    if any(_pools_by_window(load_target(member)) for member in target.members):
        steps.append(("pooling by a window", _pooled_by_window))
    return [*steps, (f"converting to opset {opset}", lambda model: change_opset(model, opset))]


def convert_interface(
    model: ir.Model, asked: Conversion, feeds: Sequence[Feed]
) -> tuple[ir.Model, list[str]]:
    """The model with half inputs and outputs where that was asked for, and why not otherwise.

    Args:
        model: as it was judged, with float32 inputs and outputs.
        asked: what was asked for.
        feeds: float32 inputs; rounded to half they must give the same answers.
    """
    if asked.float16 != "all":
        return model, []
    stripped = strip_casts(model)
    try:
        first, second = Session(model), Session(stripped)
        half = {spec.name for spec in second.inputs if spec.dtype == "float16"}
        for feed in feeds:
            rounded = {
                name: array.astype(np.float16) if name in half else array
                for name, array in feed.items()
            }
            wanted, found = first.run(feed), second.run(rounded)
            if not all(_same(array, found[name]) for name, array in wanted.items()):
                return model, ["half inputs and outputs: not done: the answers change [H002]"]
    except ModelError as error:
        return model, [f"half inputs and outputs: not done: {error} [H002]"]
    return stripped, []


def dynamic_inputs(model: ir.Model) -> list[str]:
    """Names of the inputs with a dimension that is not fixed."""
    return [
        value.name or ""
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
        and (value.shape is None or not value.shape.is_static())
    ]


def _options(model: ir.Model, names: Sequence[str]) -> list[str]:
    shapes = {value.name: value.shape for value in model.graph.inputs}
    return [
        f"--fix-shape {name}="
        + "x".join(str(dim) if isinstance(dim, int) else "1" for dim in shapes[name] or ())
        for name in names
    ]


def _pools_by_window(target: Target) -> bool:
    return target.takes("AveragePool") and not target.takes("GlobalAveragePool")


def _without_performed(model: ir.Model) -> tuple[ir.Model, str | None]:
    changed = model.clone()
    return (changed if drop_performed_activations(changed) else model), None


def _pooled_by_window(model: ir.Model) -> tuple[ir.Model, str | None]:
    changed = model.clone()
    return (changed if pool_by_window(changed) else model), None


def _difference(before: ir.Model, after: ir.Model, feeds: Sequence[Feed]) -> str | None:
    """Why `after` may not stand for `before`, or `None`."""
    try:
        first, second = Session(before), Session(after)
        for feed in feeds:
            wanted, found = first.run(feed), second.run(feed)
            for name, array in wanted.items():
                if not _same(array, found[name]):
                    return f"output {name} changes"
    except ModelError as error:
        return str(error)
    return None


def _same(
    wanted: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    found: object,
    least_db: float = _LEAST_DB,
) -> bool:
    if not np.issubdtype(wanted.dtype, np.floating):
        return bool(np.array_equal(wanted, np.asarray(found)))
    reference = np.asarray(wanted, np.float64)
    known = np.isfinite(reference)
    error = np.where(known, np.asarray(found, np.float64), 0) - np.where(known, reference, 0)
    power, noise = float(np.sum(reference[known] ** 2)), float(np.sum(error**2))
    return bool(noise <= power * 10 ** (-least_db / 10))
