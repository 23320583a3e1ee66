"""A part that reads a recording piece by piece and carries states: y_t, s_{t+1} = f(x_t, s_t).

    [part.stream]
    joined = 0
    [part.stream.pieces.input]
    length = 512
    before = 64
    axis = -1
    [part.stream.states]
    state = "stateN"

Piece t is what stands from t·length − before to (t + 1)·length along the axis, zeros in front of
the first; what is left at the end and fills no piece is not read. States begin with zeros.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxpress.errors import DataError, ModelError
from onnxpress.recipe_entries import Entries
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = [
    "Piece",
    "Stream",
    "cut",
    "first_states",
    "free_axis",
    "step_axis",
    "stream_of",
    "stream_table",
    "together",
    "together_shape",
]

_KEYS = ("pieces", "states", "joined")
_PIECE_KEYS = ("length", "before", "axis")

Dim = int | str | None
"""A size, as `InputSpec` has it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """How a recording is cut for an input.

    Attributes:
        length: numbers along the axis that are new in each piece.
        before: numbers of what came before that stand in front of them again.
        axis: along which it is cut, of the input; from the end where it is negative.
    """

    length: int
    before: int = 0
    axis: int = -1


@dataclass(frozen=True, slots=True)
class Stream:
    """How a part is run over a recording.

    Attributes:
        pieces: of the inputs that take a piece at each step, by name. The recording is what feeds
            them: samples, or outputs of a part before.
        states: outputs that are fed to inputs at the next step, by input; a `*` stands for the
            same text in both.
        joined: the axis along which what the steps give is put together; 0, usually the batch,
            as though all steps were one batch. An output without it gets an axis in front.
    """

    pieces: Mapping[str, Piece]
    states: Mapping[str, str] = field(default_factory=dict)
    joined: int = 0


def stream_of(entry: Entries) -> Stream:
    """Read `[part.stream]`.

    Raises:
        RecipeError: an entry means nothing, with its line.
    """
    entry.known(_KEYS)
    pieces, states = entry.table("pieces"), entry.table("states")
    found: dict[str, Piece] = {}
    for name in pieces.table_itself if pieces is not None else ():
        own = pieces.table(name) if pieces is not None else None
        if own is not None:
            found[name] = _piece(own)
    if not found:
        raise entry.error("pieces", "cuts no input; expected [part.stream.pieces.INPUT] tables")
    carried = {} if states is None else {n: states.value(n, str) for n in states.table_itself}
    return Stream(found, carried, entry.value("joined", int, 0))


def _piece(entry: Entries) -> Piece:
    entry.known(_PIECE_KEYS)
    length, before = entry.value("length", int), entry.value("before", int, 0)
    if length < 1 or before < 0:
        raise entry.error(
            "length", f"length is {length}, before {before}; expected 1 or more, 0 or more"
        )
    return Piece(length, before, entry.value("axis", int, -1))


def stream_table(stream: Stream) -> dict[str, Any]:
    """What `stream_of` reads."""
    table: dict[str, Any] = {"joined": stream.joined} if stream.joined else {}
    table["pieces"] = {
        name: {
            "length": piece.length,
            **({"before": piece.before} if piece.before else {}),
            **({"axis": piece.axis} if piece.axis != -1 else {}),
        }
        for name, piece in stream.pieces.items()
    }
    if stream.states:
        table["states"] = dict(stream.states)
    return table


def cut(stream: Stream, recordings: Mapping[str, Array], where: str) -> Iterator[dict[str, Array]]:
    """Pieces by input, a step after the other, cut as they are asked for.

    A piece is contiguous, as onnxruntime takes it: a copy where a recording has several rows.

    Args:
        stream: that takes them.
        recordings: whole, by input.
        where: what messages call the part.

    Raises:
        DataError: a recording is shorter than a piece.
    """
    steps = min(recordings[n].shape[p.axis] // p.length for n, p in stream.pieces.items())
    if steps < 1:
        lengths = ", ".join(
            f"{n} of {recordings[n].shape[p.axis]} (a piece: {p.length})"
            for n, p in stream.pieces.items()
        )
        raise DataError(
            f"{where}: a recording is shorter than a piece: {lengths}; give longer recordings, or "
            "a smaller `length` in [part.stream.pieces] [D003]"
        )
    padded = {n: _with_zeros(recordings[n], p) for n, p in stream.pieces.items()}
    return ({n: _at(padded[n], p, step) for n, p in stream.pieces.items()} for step in range(steps))


def _with_zeros(array: Array, piece: Piece) -> Array:
    wide = [(0, 0)] * array.ndim
    wide[piece.axis] = (piece.before, 0)
    return np.pad(array, wide) if piece.before else array


def _at(array: Array, piece: Piece, step: int) -> Array:
    first = step * piece.length
    places: list[slice] = [slice(None)] * array.ndim
    places[piece.axis] = slice(first, first + piece.before + piece.length)
    return np.ascontiguousarray(array[tuple(places)])


def step_axis(stream: Stream, rank: int) -> int | None:
    """Of an output of one step with so many axes, along which the steps are put together.

    Returns:
        The axis; `None`: it has no such axis, and the steps lie along a new one in front.
    """
    return stream.joined if -rank <= stream.joined < rank else None


def together(stream: Stream, steps: Sequence[Array]) -> tuple[Array, int]:
    """What all steps gave as one array, and the axis of it along which they lie."""
    axis = step_axis(stream, steps[0].ndim)
    return (np.stack(steps), 0) if axis is None else (np.concatenate(steps, axis), axis)


def together_shape(stream: Stream, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The shape of what all steps give, by that of one; how many they are is not known."""
    axis = step_axis(stream, len(shape))
    if axis is None:
        return (None, *shape)
    made = list(shape)
    made[axis] = None
    return tuple(made)


def first_states(
    stream: Stream, inputs: Mapping[str, InputSpec], given: Feed, where: str
) -> dict[str, Array]:
    """Zeros; a free size is that of the same name in what is given, else the batch.

    Args:
        stream: whose states they are.
        inputs: of the part, by name.
        given: the first piece and all that does not change.
        where: what messages call the part.

    Raises:
        ModelError: a state has several free sizes, and no other input names them.
    """
    named = {
        dim: size
        for name, array in given.items()
        for dim, size in zip(inputs[name].shape, array.shape, strict=False)
        if isinstance(dim, str)
    }
    name, piece = next(iter(stream.pieces.items()))
    first = given[name]
    batch = 1 if piece.axis % first.ndim == 0 else len(first)
    found: dict[str, Array] = {}
    for name in stream.states:
        spec = inputs[name]
        free = [d for d in spec.shape if not isinstance(d, int) and named.get(str(d)) is None]
        if len(free) > 1:
            raise ModelError(
                f"{where}: state {spec} begins with zeros, and which shape it has is not known: "
                f"{len(free)} sizes are free; fix all but the batch (--fix-shape) [N003]"
            )
        shape = [d if isinstance(d, int) else named.get(str(d), batch) for d in spec.shape]
        found[name] = np.zeros(shape, spec.dtype)
    return found


def free_axis(spec: InputSpec, piece: Piece, where: str) -> InputSpec:
    """What a recording has to be like for an input that takes a piece of it.

    Raises:
        ModelError: the input has no such axis, or fixes another length.
    """
    rank = len(spec.shape)
    if not -rank <= piece.axis < rank:
        raise ModelError(
            f"{where}: pieces of {spec} are cut along axis {piece.axis}; expected one from "
            f"{-rank} to {rank - 1} [N003]"
        )
    fixed, whole = spec.shape[piece.axis], piece.before + piece.length
    if isinstance(fixed, int) and fixed != whole:
        raise ModelError(
            f"{where}: {spec} takes pieces of {fixed}, and length and before are {piece.length} "
            f"and {piece.before}, {whole} together [N003]"
        )
    shape = list(spec.shape)
    shape[piece.axis] = None
    return replace(spec, shape=tuple(shape))
