"""Loops and streams whose inputs and outputs exist, one by one, in place of patterns."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from onnxpress.errors import ModelError, nearest
from onnxpress.pipelines.description import Part, matched
from onnxpress.pipelines.stream import Stream, step_axis
from onnxpress.runtime import InputSpec, Session

__all__ = [
    "agree",
    "given_to_others",
    "misfit",
    "output_of",
    "require_inputs",
    "with_pairs",
    "with_states",
]

_INTEGERS = ("int64", "int32")
_CACHE_WORDS = re.compile(r"past|cache", re.IGNORECASE)


def with_pairs(
    part: Part, sessions: Mapping[str, Session], source: str, given: Collection[str] = ()
) -> Part:
    """A part whose loop names inputs and outputs that exist, one by one.

    Args:
        part: any; without a loop it stays as it is.
        sessions: of all parts, by name.
        source: what messages call the pipeline.
        given: outputs of earlier parts: an input of such a name takes it, once a sample.

    Raises:
        ModelError: what the loop names is not there, or does not fit.
    """
    loop = part.loop
    if loop is None:
        return part
    where = f"{source}: part {part.name}, loop"
    specs = {spec.name: spec for spec in sessions[part.name].inputs}
    told = [n for n in (loop.tokens, loop.mask, loop.positions, loop.flag) if n is not None]
    require_inputs(dict.fromkeys(told, ""), specs, where)
    if specs[loop.tokens].dtype not in _INTEGERS or len(specs[loop.tokens].shape) != 2:
        raise misfit(where, "tokens", "int64 [batch, step]", str(specs[loop.tokens]))
    if loop.padded and (loop.mask is None or loop.start is not None):
        lacking = "no `mask`" if loop.mask is None else "a `start` in place of a prompt"
        raise ModelError(
            f"{where}: padded is of the mask of prompts, and there is {lacking}; leave it out "
            "[N003]"
        )
    if loop.first is not None and loop.first not in sessions:
        raise ModelError(
            f"{where}: first is {loop.first!r}, which is no part"
            f"{nearest(loop.first, list(sessions))} (there are {', '.join(sessions)}) [N003]"
        )
    givers = [part.name] if loop.first is None else [part.name, loop.first]
    for giver in givers:
        _require_output(loop.logits, sessions[giver], f"{source}: part {giver}")
        logits = output_of(sessions[giver], loop.logits)
        # onnxruntime gives no sizes where a file does not say the rank.
        if logits.shape and len(logits.shape) != 3:
            raise misfit(where, "logits", "[batch, step, vocabulary]", f"{giver}.{logits}")
    once = {name for pattern in loop.once for name in _required(pattern, list(specs), where)}
    cache = _pairs(loop.cache, list(specs), sessions[givers[-1]], where, "cache")
    for name, output in cache.items():
        # The part itself runs every step but the first.
        if name not in once:
            _require_output(output, sessions[part.name], f"{where}, cache of {name!r}")
    fed = {*cache, *told, *part.inputs, *given}
    stray = [name for name in specs if name not in fed and _CACHE_WORDS.search(name)]
    if stray and cache:
        raise ModelError(
            f"{where}: the input {stray[0]!r} looks like a cache, and no output is fed to it; name "
            f"one of {part.name}'s in [part.loop.cache]"
            f"{nearest(stray[0], list(sessions[givers[-1]].output_names))} [N003]"
        )
    for name, output in cache.items():
        _require_same_rank(specs[name], output, sessions[givers[-1]], where)
    return replace(part, loop=replace(loop, cache=cache, once=tuple(sorted(once))))


def with_states(part: Part, sessions: Mapping[str, Session], source: str) -> Part:
    """A part whose stream names inputs and outputs that exist, one by one; as `with_pairs`.

    Raises:
        ModelError: what the stream names is not there, or does not fit.
    """
    stream, session = part.stream, sessions[part.name]
    if stream is None:
        return part
    where = f"{source}: part {part.name}, stream"
    specs = {spec.name: spec for spec in session.inputs}
    require_inputs(dict.fromkeys(stream.pieces, ""), specs, where)
    states = _pairs(stream.states, list(specs), session, where, "state")
    both = sorted({*stream.pieces} & {*states})
    if both:
        raise ModelError(f"{where}: {both[0]!r} is a state and takes pieces too; name one [N003]")
    for name, output in states.items():
        given = output_of(session, output)
        # onnxruntime gives no sizes where a file does not say the rank.
        alike = not given.shape or agree(given.shape, specs[name].shape)
        if given.dtype != specs[name].dtype or not alike:
            raise misfit(where, f"state {name!r}", str(specs[name]), str(given))
    found = replace(part, stream=replace(stream, states=states))
    _require_axis(stream, [output_of(session, n) for n in given_to_others(found, session)], where)
    return found


def _require_axis(stream: Stream, outputs: Sequence[InputSpec], where: str) -> None:
    """Steps are put together along an axis that something has; 0 and -1 all have or get."""
    ranks = [len(spec.shape) for spec in outputs]
    # onnxruntime gives no sizes where a file does not say the rank.
    if stream.joined in (0, -1) or 0 in ranks:
        return
    if all(step_axis(stream, rank) is None for rank in ranks):
        raise ModelError(
            f"{where}: joined is {stream.joined}, and no output has such an axis "
            f"({', '.join(map(str, outputs))}); expected one from {-max(ranks)} to "
            f"{max(ranks) - 1} [N003]"
        )


def given_to_others(part: Part, session: Session) -> Sequence[str]:
    """Outputs of a part that later parts can be given."""
    if part.loop is not None:
        return [part.loop.logits]
    carried = set() if part.stream is None else set(part.stream.states.values())
    # What gives nothing but states gives those.
    return [name for name in session.output_names if name not in carried] or session.output_names


def _required(pattern: str, inputs: Sequence[str], where: str) -> dict[str, str]:
    found = matched(pattern, inputs)
    if not found:
        raise ModelError(
            f"{where}: once {pattern!r} is no input{nearest(pattern, inputs)} (there are "
            f"{', '.join(inputs)}) [N003]"
        )
    return found


def _pairs(
    told: Mapping[str, str], inputs: Sequence[str], giver: Session, where: str, what: str
) -> dict[str, str]:
    """Outputs by the inputs that take them at the next step."""
    found: dict[str, str] = {}
    for pattern, output in told.items():
        fitting = matched(pattern, inputs)
        if not fitting:
            raise ModelError(
                f"{where}: {what} {pattern!r} is no input{nearest(pattern, inputs)} (there are "
                f"{', '.join(inputs)}) [N003]"
            )
        for name, text in fitting.items():
            given = output.replace("*", text)
            _require_output(given, giver, f"{where}, {what} of {name!r}")
            found[name] = given
    return found


def require_inputs(names: Mapping[str, str], specs: Mapping[str, InputSpec], where: str) -> None:
    """Refuse what is named by a key and is no input.

    Raises:
        ModelError: there is no such input.
    """
    for name in names:
        if name not in specs:
            raise ModelError(
                f"{where}: there is no input {name!r}{nearest(name, list(specs))} (the model has "
                f"{', '.join(specs)}) [N003]"
            )


def _require_output(name: str, session: Session, where: str) -> None:
    if name not in session.output_names:
        raise ModelError(
            f"{where}: there is no output {name!r}{nearest(name, list(session.output_names))} "
            f"(the model has {', '.join(session.output_names)}) [N003]"
        )


def _require_same_rank(spec: InputSpec, output: str, giver: Session, where: str) -> None:
    given = output_of(giver, output)
    # Along one axis a cache grows, so that the sizes there may differ.
    apart = sum(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(given.shape, spec.shape, strict=False)
    )
    if given.dtype != spec.dtype or len(given.shape) != len(spec.shape) or apart > 1:
        raise misfit(where, f"cache {spec.name!r}", str(spec), str(given))


def output_of(session: Session, name: str) -> InputSpec:
    """An output that exists."""
    return next(spec for spec in session.outputs if spec.name == name)


def agree(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two shapes have one rank, and the same sizes where both fix them."""
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs
    )


def misfit(where: str, what: str, expected: str, found: str) -> ModelError:
    """What to say of two ends that do not fit."""
    return ModelError(f"{where}: {what} expects {expected}, and is given {found} [N003]")
