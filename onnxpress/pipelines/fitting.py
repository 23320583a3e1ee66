"""Whether the parts of a pipeline fit together, and what feeds each input.

Sources are checked by name, type and rank, and by every size that both sides fix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxpress import model_file
from onnxpress.errors import ModelError, nearest
from onnxpress.pipelines.description import Part, Pipeline
from onnxpress.pipelines.pairing import (
    agree,
    given_to_others,
    misfit,
    output_of,
    require_inputs,
    with_pairs,
    with_states,
)
from onnxpress.pipelines.stream import free_axis, together_shape
from onnxpress.runtime import InputSpec, Session

__all__ = ["Source", "Wiring", "wired"]


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
    given: set[str] = set()
    found: list[Part] = []
    for part in pipeline.parts:
        paired = with_pairs(part, sessions, pipeline.source, given)
        found.append(with_states(paired, sessions, pipeline.source))
        if part.name not in pipeline.firsts:
            given.update(given_to_others(found[-1], sessions[part.name]))
    parts = tuple(found)
    pipeline = replace(pipeline, parts=parts)
    sources: dict[str, dict[str, Source]] = {}
    needed: dict[str, InputSpec] = {}
    earlier: dict[str, Sequence[str]] = {}
    for part in parts:
        own = sources.setdefault(part.name, {})
        where = f"{pipeline.source}: part {part.name}"
        specs = {spec.name: spec for spec in sessions[part.name].inputs}
        require_inputs(part.inputs, specs, where)
        for spec in _whole(part, sessions[part.name].inputs, where):
            if _fed_by_loop(part, pipeline, spec.name):
                continue
            source = _source(part, spec, _before(part, earlier, pipeline), where)
            _require_fit(source, spec, sessions, part, pipeline)
            own[spec.name] = source
            if source.part is None:
                needed.setdefault(source.name, replace(spec, name=source.name))
        # What takes the first step of a loop gives what it computes to that loop alone.
        if part.name not in pipeline.firsts:
            earlier[part.name] = given_to_others(part, sessions[part.name])
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


def _whole(part: Part, specs: Sequence[InputSpec], where: str) -> list[InputSpec]:
    """Inputs as what feeds them is: a recording where a part takes a piece of it."""
    pieces = {} if part.stream is None else part.stream.pieces
    return [
        free_axis(spec, pieces[spec.name], f"{where}, stream") if spec.name in pieces else spec
        for spec in specs
    ]


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


def _require_fit(
    source: Source,
    spec: InputSpec,
    sessions: Mapping[str, Session],
    part: Part,
    pipeline: Pipeline,
) -> None:
    """Types, ranks and fixed sizes of both ends, as far as the files say them."""
    if source.part is None:
        return
    giver = pipeline.part(source.part)
    given = output_of(sessions[giver.name], source.name)
    known = _says_rank(giver, given) and _says_rank(part, spec)
    if giver.stream is not None:
        given = replace(given, shape=together_shape(giver.stream, given.shape))
    if given.dtype != spec.dtype or (known and not agree(given.shape, spec.shape)):
        where = f"{pipeline.source}: part {part.name}"
        raise misfit(where, f"input {spec.name!r}", str(spec), f"{giver.name}.{given}")


def _says_rank(part: Part, spec: InputSpec) -> bool:
    """Whether no size means no axis: onnxruntime says none of an unknown rank either."""
    if spec.shape:
        return True
    graph = model_file.parsed(part.model).graph
    ends = (value for value in (*graph.input, *graph.output) if value.name == spec.name)
    return any(value.type.tensor_type.HasField("shape") for value in ends)
