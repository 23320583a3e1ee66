"""Read from a model what its outputs mean, before anything is spent on it.

The kind of an output follows from the operators that compute it, its shape, its name and the
original's answers to a few samples; where these leave it open it is `values`, judged in slices by
SQNR, and never by a guessed argmax. A user says better with `--task` and `--output NAME=kind`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.errors import UsageError, nearest
from onnxpress.judge.detectors import detectors
from onnxpress.judge.evidence import Evidence, gather
from onnxpress.judge.kinds import Form, Kind, Reading
from onnxpress.runtime import Array, InputSpec, Session

__all__ = ["fitting_kinds", "read_outputs"]

_SCORES = r"logit|prob|class|softmax"
_EMBEDDINGS = r"embed|pooler|feature|_vec|vector"
_VOCABULARY = 1000
_WIDEST_ROTATION = 4
"""Numbers of a quaternion."""


def read_outputs(
    model: ir.Model | None,
    session: Session | None,
    examples: Sequence[Mapping[str, Array]] = (),
    *,
    labelled: str | None = None,
    task: str | None = None,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, Reading]:
    """How each output of a model is read, by name.

    Args:
        model: its graph, where it is at hand.
        session: of it; `None` where nothing can be run.
        examples: the original's answers to a few samples.
        labelled: the output that labels belong to.
        task: a kind for every output that it fits.
        kinds: a kind for an output, by name.

    Raises:
        UsageError: a kind does not exist or does not fit, or an output does not exist.
    """
    known = gather(model, session, examples)
    inputs = session.inputs if session is not None else _inputs(model)
    found: dict[str, Reading] = {}
    taken = set(kinds or {})
    states = {e.name: state for e in known if (state := _state_input(e, inputs, known)) is not None}
    for reading in detectors([e for e in known if e.name not in states and e.name not in taken]):
        found[reading.output] = reading
    for evidence in known:
        if evidence.name in found:
            continue
        if evidence.name in states:
            found[evidence.name] = _as_state(evidence, states[evidence.name])
        elif evidence.name == labelled and evidence.is_float:
            found[evidence.name] = _as_scores(evidence, "it has a score for every label")
        else:
            found[evidence.name] = _alone(evidence)
    if task is not None:
        found = _asked(found, known, inputs, _kind(task, "--task"))
    for name, kind in (kinds or {}).items():
        if name not in found:
            raise UsageError(
                f"--output {name}={kind}: the model has no such output{nearest(name, list(found))} "
                f"(it has {', '.join(found)}) [U005]"
            )
        found[name] = _as(_of(known, name), known, inputs, _kind(kind, f"--output {name}"))
    return {e.name: replace(found[e.name], given=e.given, added=_added(e, found)) for e in known}


def _added(e: Evidence, found: Mapping[str, Reading]) -> tuple[str, str] | None:
    """Of values that are compared as they are."""
    kind = found[e.name].kind
    return e.added if kind in (Kind.VALUES, Kind.REGRESSION, Kind.SIGNAL) else None


def _inputs(model: ir.Model | None) -> tuple[InputSpec, ...]:
    """What a model takes, where it cannot be opened."""
    if model is None:
        return ()
    specs = []
    for value in model.graph.inputs:
        dims = () if value.shape is None else tuple(value.shape)
        shape = tuple(d if isinstance(d, int) else d.value for d in dims)
        dtype = "" if value.dtype is None else value.dtype.name.lower()
        specs.append(InputSpec(str(value.name), {"float": "float32"}.get(dtype, dtype), shape))
    return tuple(specs)


def _alone(e: Evidence) -> Reading:
    """An output by itself."""
    size = _sizes(e)
    if not e.is_float:
        return _as_integers(e)
    if e.varies:
        return Reading(e.name, Kind.VALUES, f"values {size}", "rows depend on data", varying=True)
    scores = _scores_axis(e)
    if scores is not None:
        logarithms = bool(e.examples) and not e.sums_to_one(scores)
        what = "their exponents" if logarithms else "they are positive and"
        return _as_scores(e, f"{what} add up to 1", scores)
    if e.rank == 2 and (e.size(1) or 0) > 1 and e.named(_SCORES):
        return _as_scores(e, "its name")
    if e.rank == 3 and (e.size(2) or 0) > 1 and _scores_of_steps(e):
        return _as_scores(e, "its name", 2)
    if e.origins & {"Sigmoid", "HardSigmoid"} and e.rank == 2:
        words = f"{e.size(1) or '?'} labels, each apart"
        return Reading(e.name, Kind.MULTI_LABEL, words, "Sigmoid", "sigmoid", 1)
    if e.origins & {"Sigmoid", "HardSigmoid"} and e.rank == 4:
        return Reading(e.name, Kind.SEGMENTATION, f"masks {size}", "Sigmoid", "values", 1)
    # Two to four numbers of length 1 are an angle, a direction, a rotation.
    wide = e.rank > 0 and (e.size(e.rank - 1) or _WIDEST_ROTATION + 1) > _WIDEST_ROTATION
    if wide and (e.unit_length() or "LpNormalization" in e.origins):
        return Reading(e.name, Kind.EMBEDDING, f"embedding {size}", "rows have length 1")
    if e.rank == 2 and (e.size(1) or 0) >= 16 and e.named(_EMBEDDINGS):
        return Reading(e.name, Kind.EMBEDDING, f"embedding {size}", "its name")
    return _as_values(e, Kind.VALUES, "nothing in the model says more")


def _as_integers(e: Evidence) -> Reading:
    """Whole numbers, yes or no, or texts: what was decided, where it is one a row or a class."""
    words = f"whole numbers or texts {_sizes(e)}"
    classes = bool(e.origins & {"ArgMax"})
    if classes:
        words = f"class numbers {_sizes(e)}"
        if e.rank >= 3 and not e.varies:
            return Reading(e.name, Kind.SEGMENTATION, f"{words} of pixels", "ArgMax")
    form: Form = "decisions" if not e.varies and (classes or e.decides) else "values"
    return Reading(e.name, Kind.INTEGERS, words, "its type", form, varying=e.varies)


def _scores_of_steps(e: Evidence) -> bool:
    """Whether the name says that each step has scores of classes; `score` may be anything."""
    return e.named("logit") or ((e.size(2) or 0) >= _VOCABULARY and e.named(_SCORES))


def _scores_axis(e: Evidence) -> int | None:
    """Along which axis probabilities, or what these logarithms are of, add up to 1."""
    for axis in ((1,) if e.rank in (2, 4) else ()) + ((e.rank - 1,) if e.rank >= 3 else ()):
        if (e.size(axis) or 0) < 2 or e.square_in(axis):
            continue
        if e.sums_to_one(axis) or e.exponents_sum_to_one(axis):
            return axis
        if not e.examples and e.origins & {"Softmax", "LogSoftmax"}:
            return axis
    return None


def _as_scores(e: Evidence, why: str, axis: int | None = None) -> Reading:
    """Scores of classes that exclude each other, by rank: of a sample, a step, or a pixel."""
    axis = axis if axis is not None else (e.rank - 1 if e.rank != 4 else 1)
    number = e.size(axis) if e.rank else None
    if number == 1:
        # Before a Sigmoid yes is above 0, behind it above a half.
        apart: Form = "sigmoid" if e.in_unit_range or not e.examples else "values"
        return Reading(e.name, Kind.MULTI_LABEL, "one score, yes or no", why, apart, axis)
    form: Form = "probabilities" if e.sums_to_one(axis) or "Softmax" in e.origins else "logits"
    what = "probabilities" if form == "probabilities" else "logits"
    if e.rank == 4 and axis in (1, 3):
        words = f"class {what} of pixels, {number or '?'} classes"
        return Reading(e.name, Kind.SEGMENTATION, words, why, "values", axis)
    if e.rank >= 3:
        words = f"class {what} at every step, {number or '?'} classes"
        return Reading(e.name, Kind.SEQUENCE, words, why, form, axis)
    words = f"class {what}, {number or '?'} classes"
    return Reading(e.name, Kind.CLASSIFICATION, words, why, form, axis)


def _as_values(e: Evidence, kind: Kind, why: str) -> Reading:
    names = {Kind.SIGNAL: "signal", Kind.REGRESSION: "columns"}
    axis = None
    if kind == Kind.REGRESSION and e.rank >= 2:
        axis = e.rank - 1
    if kind == Kind.SIGNAL and e.rank >= 3:
        axis = 1
    return Reading(e.name, kind, f"{names.get(kind, 'values')} {_sizes(e)}", why, axis=axis)


def _as_state(e: Evidence, state_input: str) -> Reading:
    words = f"state that {state_input!r} takes at the next step {_sizes(e)}"
    why = f"the name and shape of the input {state_input!r}"
    return Reading(e.name, Kind.STATE, words, why, state_input=state_input)


def _sizes(e: Evidence) -> str:
    return "[" + ", ".join(str(e.size(axis) or "?") for axis in range(e.rank)) + "]"


def _plain(name: str) -> str:
    """A name without what tells the input from the output of a state."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"past_key_values|present", "past", name.lower()))
    return ".".join(word for word in words if word not in ("in", "out", "input", "output", "new"))


def _state_input(
    e: Evidence, inputs: Sequence[InputSpec], outputs: Sequence[Evidence]
) -> str | None:
    """The input that takes this output at the next step, by its name, type and shape."""
    # A picture that is given back as a picture has such names too: a state is never alone.
    if not e.is_float or e.rank == 0 or len({s.name for s in inputs}) < 2 or len(outputs) < 2:
        return None
    fitting = [spec for spec in inputs if _takes(spec, e) and _plain(spec.name)]
    name = _plain(e.name)
    same = [spec.name for spec in fitting if _plain(spec.name) == name]
    if same:
        return same[0]
    taken = {_plain(other.name) for other in outputs}
    for spec in fitting:
        # Of h0 and h_0 the next is hn and h_n.
        base = re.sub(r"\.?0$", "", _plain(spec.name))
        names = {base, base + "n", base + "next", base + "1", f"{base}.n", f"{base}.next"}
        if base and name in names and _plain(spec.name) not in taken:
            return spec.name
    return None


def _takes(spec: InputSpec, e: Evidence) -> bool:
    """Whether an input has the type and shape of an output."""
    return (
        len(spec.shape) == e.rank
        and spec.dtype.startswith("float")
        and all(
            not isinstance(dim, int) or dim < 0 or e.size(axis) in (None, dim)
            for axis, dim in enumerate(spec.shape)
        )
    )


def _kind(text: str, option: str) -> Kind:
    try:
        return Kind(text)
    except ValueError as error:
        known = [str(kind) for kind in Kind]
        raise UsageError(
            f"{option}: there is no kind {text!r}{nearest(text, known)} (known: "
            f"{', '.join(known)}) [U005]"
        ) from error


def _of(known: Sequence[Evidence], name: str) -> Evidence:
    return next(e for e in known if e.name == name)


def _asked(
    found: Mapping[str, Reading], known: Sequence[Evidence], inputs: Sequence[InputSpec], task: Kind
) -> dict[str, Reading]:
    """The readings with every output of the task's kind that it fits; others as they are."""
    if any(reading.kind == task for reading in found.values()):
        return dict(found)
    changed = dict(found)
    if task == Kind.DETECTION:
        for reading in detectors(known, asked=True):
            changed[reading.output] = reading
    else:
        for e in known:
            if task in fitting_kinds(e, inputs, known):
                changed[e.name] = _as(e, known, inputs, task)
    if changed == dict(found):
        fits = sorted({str(kind) for e in known for kind in fitting_kinds(e, inputs, known)})
        shapes = "; ".join(f"{e.name} {_sizes(e)}" for e in known)
        raise UsageError(
            f"--task {task} fits none of the outputs ({shapes}); these would: "
            f"{', '.join(fits)} [U005]"
        )
    return changed


def fitting_kinds(
    e: Evidence, inputs: Sequence[InputSpec], outputs: Sequence[Evidence]
) -> list[Kind]:
    """Kinds that an output's type and shape allow."""
    if not e.is_float:
        return [Kind.INTEGERS, *([Kind.SEGMENTATION] if e.rank >= 3 else [])]
    found = [Kind.VALUES, Kind.REGRESSION]
    if e.rank >= 2:
        found += [Kind.SIGNAL, Kind.EMBEDDING]
    if e.rank == 2:
        found += [Kind.MULTI_LABEL, *([Kind.CLASSIFICATION] if e.size(1) != 1 else [])]
    if e.rank == 3:
        found += [Kind.SEQUENCE]
    if e.rank == 4:
        found += [Kind.SEGMENTATION]
    if any(len(spec.shape) == e.rank for spec in inputs) and len(inputs) > 1:
        found.append(Kind.STATE)
    if detectors(outputs, asked=True):
        found.append(Kind.DETECTION)
    return found


def _as(e: Evidence, known: Sequence[Evidence], inputs: Sequence[InputSpec], kind: Kind) -> Reading:
    """The reading that a user asks for.

    Raises:
        UsageError: it does not fit.
    """
    fits = fitting_kinds(e, inputs, known)
    if kind not in fits:
        raise UsageError(
            f"output {e.name} {_sizes(e)} cannot be read as {kind}; its type and shape allow "
            f"{', '.join(fits)} [U005]"
        )
    why = "as asked"
    if kind == Kind.DETECTION:
        parts = detectors(known, asked=True)
        return next((r for r in parts if r.output == e.name), parts[0])
    if kind in (Kind.CLASSIFICATION, Kind.SEQUENCE) or (
        kind == Kind.SEGMENTATION and e.is_float and (e.size(1) or 2) > 1
    ):
        return replace(_as_scores(e, why), kind=kind)
    if kind == Kind.STATE:
        spec = next(spec for spec in inputs if len(spec.shape) == e.rank)
        return _as_state(e, spec.name)
    if kind == Kind.MULTI_LABEL:
        form: Form = "sigmoid" if e.in_unit_range or not e.examples else "values"
        return Reading(e.name, kind, f"{e.size(1) or '?'} labels, each apart", why, form, 1)
    if kind == Kind.SEGMENTATION:
        axis = 1 if e.is_float else None
        return Reading(e.name, kind, f"masks {_sizes(e)}", why, axis=axis)
    if kind == Kind.EMBEDDING:
        return Reading(e.name, kind, f"embedding {_sizes(e)}", why)
    return replace(_as_values(e, kind, why), varying=e.varies)
