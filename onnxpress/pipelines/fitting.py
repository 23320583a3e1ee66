"""Whether the parts of a pipeline fit together, and what feeds each input.

Sources are checked by name, type and rank, and by every size that both sides fix.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress.errors import ModelError, nearest
from onnxpress.pipelines.description import Part, Pipeline, matched
from onnxpress.pipelines.stream import Stream, free_axis, step_axis, together_shape
from onnxpress.runtime import InputSpec, Session

__all__ = ["Source", "Wiring", "wired"]

_INTEGERS = ("int64", "int32")
_CACHE_WORDS = re.compile(r"past|cache", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input comes from: an output of a part, or, without a part, of the samples."""

    part: str | None
    name: str


@dataclass(frozen=True)
class Wiring:
    """A pipeline whose parts fit.

    Attributes:
        pipeline: with the patterns of caches replaced by the pairs they stand for.
        sources: by part and input, of all that no loop feeds.
        inputs: what the samples have to hold.
    """

    pipeline: Pipeline
    sources: Mapping[str, Mapping[str, Source]]
    inputs: tuple[InputSpec, ...]


def wired(pipeline: Pipeline, sessions: Mapping[str, Session]) -> Wiring:
    """Find what feeds each input.

    Args:
        pipeline: as described.
        sessions: of all parts, by name.

    Raises:
        ModelError: the parts do not fit: which, where, and what would be nearest.
    """
    _require_one_loop(pipeline)
    parts = tuple(
        _with_states(_with_pairs(part, sessions, pipeline.source), sessions, pipeline.source)
        for part in pipeline.parts
    )
    pipeline = replace(pipeline, parts=parts)
    sources: dict[str, dict[str, Source]] = {}
    needed: dict[str, InputSpec] = {}
    earlier: dict[str, Sequence[str]] = {}
    for part in parts:
        own = sources.setdefault(part.name, {})
        where = f"{pipeline.source}: part {part.name}"
        specs = {spec.name: spec for spec in sessions[part.name].inputs}
        _require_inputs(part.inputs, specs, where)
        for spec in _whole(part, sessions[part.name].inputs, where):
            if _fed_by_loop(part, pipeline, spec.name):
                continue
            source = _source(part, spec, _before(part, earlier, pipeline), where)
            _require_fit(source, spec, sessions, pipeline, where)
            own[spec.name] = source
            if source.part is None:
                needed.setdefault(source.name, replace(spec, name=source.name))
        # What takes the first step of a loop gives what it computes to that loop alone.
        if part.name not in pipeline.firsts:
            earlier[part.name] = _given_to_others(part, sessions[part.name])
    # A prompt is what the samples hold of the tokens that a loop takes.
    for part in parts:
        if part.loop is not None and part.loop.start is None:
            spec = next(s for s in sessions[part.name].inputs if s.name == part.loop.tokens)
            needed.setdefault(spec.name, spec)
            if part.loop.padded:
                mask = next(s for s in sessions[part.name].inputs if s.name == part.loop.mask)
                needed.setdefault(mask.name, replace(mask, shape=(mask.shape[0], None)))
    return Wiring(pipeline, sources, tuple(needed.values()))


def _require_one_loop(pipeline: Pipeline) -> None:
    """A sample holds the tokens of one text, which one loop follows."""
    looped = [part for part in pipeline.parts if part.loop is not None]
    for part in looped:
        if part.loop is not None and part.loop.first == part.name:
            raise ModelError(
                f"{pipeline.source}: part {part.name}, loop: first is the part itself; name "
                "another one, or leave `first` out [N003]"
            )
    if len(looped) > 1:
        names = " and ".join(part.name for part in looped[:2])
        raise ModelError(
            f"{pipeline.source}: the parts {names} both have a loop; expected one loop in a "
            "pipeline: leave the other's [part.loop] out, as of a part that is named as `first` "
            "[N003]"
        )


def _before(
    part: Part, earlier: Mapping[str, Sequence[str]], pipeline: Pipeline
) -> Mapping[str, Sequence[str]]:
    """Outputs that are there when a part runs, by part; what takes a first step runs in a loop."""
    owners = [p.name for p in pipeline.parts if p.loop is not None and p.loop.first == part.name]
    names = [part.name, *owners]
    places = [at for at, p in enumerate(pipeline.parts) if p.name in names]
    before = {p.name for p in pipeline.parts[: min(places)]}
    return {name: outputs for name, outputs in earlier.items() if name in before}


def _with_pairs(part: Part, sessions: Mapping[str, Session], source: str) -> Part:
    """A part whose loop names inputs and outputs that exist, one by one."""
    loop = part.loop
    if loop is None:
        return part
    where = f"{source}: part {part.name}, loop"
    specs = {spec.name: spec for spec in sessions[part.name].inputs}
    told = [n for n in (loop.tokens, loop.mask, loop.positions, loop.flag) if n is not None]
    _require_inputs(dict.fromkeys(told, ""), specs, where)
    if specs[loop.tokens].dtype not in _INTEGERS or len(specs[loop.tokens].shape) != 2:
        raise _misfit(where, "tokens", "int64 [batch, step]", str(specs[loop.tokens]))
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
        logits = _given(sessions[giver], loop.logits)
        # onnxruntime gives no sizes where a file does not say the rank.
        if logits.shape and len(logits.shape) != 3:
            raise _misfit(where, "logits", "[batch, step, vocabulary]", f"{giver}.{logits}")
    once = {name for pattern in loop.once for name in _required(pattern, list(specs), where)}
    cache = _pairs(loop.cache, list(specs), sessions[givers[-1]], where, "cache")
    for name, output in cache.items():
        # The part itself runs every step but the first.
        if name not in once:
            _require_output(output, sessions[part.name], f"{where}, cache of {name!r}")
    fed = {*cache, *told, *part.inputs}
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


def _with_states(part: Part, sessions: Mapping[str, Session], source: str) -> Part:
    """A part whose stream names inputs and outputs that exist, one by one."""
    stream, session = part.stream, sessions[part.name]
    if stream is None:
        return part
    where = f"{source}: part {part.name}, stream"
    specs = {spec.name: spec for spec in session.inputs}
    _require_inputs(dict.fromkeys(stream.pieces, ""), specs, where)
    states = _pairs(stream.states, list(specs), session, where, "state")
    both = sorted({*stream.pieces} & {*states})
    if both:
        raise ModelError(f"{where}: {both[0]!r} is a state and takes pieces too; name one [N003]")
    for name, output in states.items():
        given = _given(session, output)
        # onnxruntime gives no sizes where a file does not say the rank.
        agree = not given.shape or _agree(given.shape, specs[name].shape)
        if given.dtype != specs[name].dtype or not agree:
            raise _misfit(where, f"state {name!r}", str(specs[name]), str(given))
    found = replace(part, stream=replace(stream, states=states))
    _require_axis(stream, [_given(session, n) for n in _given_to_others(found, session)], where)
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


def _whole(part: Part, specs: Sequence[InputSpec], where: str) -> list[InputSpec]:
    """Inputs as what feeds them is: a recording where a part takes a piece of it."""
    pieces = {} if part.stream is None else part.stream.pieces
    return [
        free_axis(spec, pieces[spec.name], f"{where}, stream") if spec.name in pieces else spec
        for spec in specs
    ]


def _given_to_others(part: Part, session: Session) -> Sequence[str]:
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


def _fed_by_loop(part: Part, pipeline: Pipeline, name: str) -> bool:
    if part.stream is not None and name in part.stream.states:
        return True
    loops = [part.loop] if part.loop is not None else []
    # What takes the first step of a loop is fed by that loop.
    loops += [p.loop for p in pipeline.parts if p.loop is not None and p.loop.first == part.name]
    return any(
        name in (loop.tokens, loop.mask, loop.positions, loop.flag) or name in loop.cache
        for loop in loops
    )


def _source(
    part: Part,
    spec: InputSpec,
    earlier: Mapping[str, Sequence[str]],
    where: str,
) -> Source:
    told = part.inputs.get(spec.name)
    if told is None:
        giving = [name for name, outputs in earlier.items() if spec.name in outputs]
        return Source(giving[-1] if giving else None, spec.name)
    for name in sorted(earlier, key=len, reverse=True):
        if told.startswith(f"{name}."):
            output = told.removeprefix(f"{name}.")
            if output not in earlier[name]:
                raise ModelError(
                    f"{where}: input {spec.name!r} takes {told!r}, and part {name} gives no "
                    f"{output!r} to others{nearest(output, list(earlier[name]))} (it gives "
                    f"{', '.join(earlier[name])}) [N003]"
                )
            return Source(name, output)
    if "." in told and told.split(".")[0] not in earlier:
        raise ModelError(
            f"{where}: input {spec.name!r} takes {told!r}, and no part before it is called "
            f"{told.split('.')[0]!r}{nearest(told.split('.')[0], list(earlier))} [N003]"
        )
    return Source(None, told)


def _require_inputs(names: Mapping[str, str], specs: Mapping[str, InputSpec], where: str) -> None:
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


def _require_fit(
    source: Source,
    spec: InputSpec,
    sessions: Mapping[str, Session],
    pipeline: Pipeline,
    where: str,
) -> None:
    """Types, ranks and fixed sizes of both ends."""
    if source.part is None:
        return
    given = _given(sessions[source.part], source.name)
    stream = pipeline.part(source.part).stream
    if stream is not None:
        given = replace(given, shape=together_shape(stream, given.shape))
    if given.dtype != spec.dtype or not _agree(given.shape, spec.shape):
        raise _misfit(where, f"input {spec.name!r}", str(spec), f"{source.part}.{given}")


def _require_same_rank(spec: InputSpec, output: str, giver: Session, where: str) -> None:
    given = _given(giver, output)
    # Along one axis a cache grows, so that the sizes there may differ.
    apart = sum(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(given.shape, spec.shape, strict=False)
    )
    if given.dtype != spec.dtype or len(given.shape) != len(spec.shape) or apart > 1:
        raise _misfit(where, f"cache {spec.name!r}", str(spec), str(given))


def _given(session: Session, name: str) -> InputSpec:
    return next(spec for spec in session.outputs if spec.name == name)


def _agree(one: Sequence[object], other: Sequence[object]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs
    )


def _misfit(where: str, what: str, expected: str, found: str) -> ModelError:
    return ModelError(f"{where}: {what} expects {expected}, and is given {found} [N003]")
