"""Run a pipeline as it is used: each part once, or piece by piece with states, or over tokens.

    step 0:  prompt [batch, n], past of length 0        → logits of the last token, cache
    step t:  the token chosen at step t − 1 [batch, 1]  → logits, cache

Chosen is the best token (greedily), or the one that is forced: two models are compared on the
same past ("teacher forcing"), as after one different token two texts have nothing in common.
A recording is read to its end (`stream`).
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxpress.errors import DataError, ModelError
from onnxpress.pipelines.description import Part
from onnxpress.pipelines.fitting import Wiring
from onnxpress.pipelines.loop import Loop
from onnxpress.pipelines.stream import Stream, cut, first_states, together
from onnxpress.runtime import Array, Feed, InputSpec, Session

__all__ = ["FORCED", "Call", "Running", "empty_cache"]

FORCED = "__tokens__"
"""In a feed: the tokens that follow, `[batch, steps]`."""
_NO_CACHE_FITS = "its cache has a fixed length, which this does not understand"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one part.

    Attributes:
        part: which.
        step: of its loop or stream; 0 outside of one.
        feed: what it was given.
    """

    part: str
    step: int
    feed: Feed


class Running:
    """A pipeline with open sessions; a `judge.Runner`.

    Attributes:
        wiring: what feeds what.
        sessions: by part.
        last: the part whose outputs are those of the pipeline.
        step_axes: the axis along which the steps of the stream that was run last lie, by output.
    """

    def __init__(
        self,
        wiring: Wiring,
        sessions: Mapping[str, Session],
        heard: Callable[[Call], None] | None = None,
    ) -> None:
        """Of parts that fit.

        Args:
            wiring: of the pipeline.
            sessions: of all parts, by name.
            heard: told every call before it is made.
        """
        self.wiring = wiring
        self.sessions = dict(sessions)
        self._heard = heard
        self.step_axes: Mapping[str, int] = {}
        self.last = wiring.pipeline.last

    def run(self, feed: Feed, /) -> dict[str, Array]:
        """What the last part gives: of a loop the logits, `[batch, steps, vocabulary]`."""
        return self._run(feed)[0]

    def tokens(self, feed: Feed) -> Array:
        """What is generated, int64 `[batch, steps]`; of a pipeline with a loop."""
        return self._run({n: x for n, x in feed.items() if n != FORCED})[1]

    def _run(self, feed: Feed) -> tuple[dict[str, Array], Array]:
        made: dict[str, dict[str, Array]] = {}
        tokens: Array = np.zeros((1, 0), np.int64)
        pipeline = self.wiring.pipeline
        for part in pipeline.parts:
            if part.name in pipeline.firsts:
                continue
            if part.stream is not None:
                made[part.name] = self._streamed(part, part.stream, feed, made)
            elif part.loop is None:
                made[part.name] = self._call(part.name, 0, self._wired(part.name, feed, made))
            else:
                made[part.name], tokens = self._generated(part, part.loop, feed, made)
        return made[self.last], tokens

    def _wired(
        self, part: str, feed: Feed, made: Mapping[str, Mapping[str, Array]]
    ) -> dict[str, Array]:
        """Of all inputs that no loop feeds."""
        return {
            name: feed[source.name] if source.part is None else made[source.part][source.name]
            for name, source in self.wiring.sources[part].items()
        }

    def _streamed(
        self,
        part: Part,
        stream: Stream,
        feed: Feed,
        made: Mapping[str, Mapping[str, Array]],
    ) -> dict[str, Array]:
        """What all steps give, put together; states that are carried are left out."""
        where = f"{self.wiring.pipeline.source}: part {part.name}, stream"
        constant = self._wired(part.name, feed, made)
        pieces = cut(stream, {n: constant.pop(n) for n in stream.pieces}, where)
        specs = {spec.name: spec for spec in self.sessions[part.name].inputs}
        first = next(pieces)
        states = first_states(stream, specs, {**constant, **first}, where)
        carried = set(stream.states.values())
        given_on = [n for n in self.sessions[part.name].output_names if n not in carried]
        rows: dict[str, list[Array]] = {name: [] for name in given_on or sorted(carried)}
        for step, piece in enumerate(itertools.chain([first], pieces)):
            given = {**constant, **piece, **states}
            found = self._call(part.name, step, {name: given[name] for name in specs})
            states = {name: found[output] for name, output in stream.states.items()}
            for name, kept in rows.items():
                kept.append(found[name])
        joined = {name: together(stream, kept) for name, kept in rows.items()}
        self.step_axes = {name: axis for name, (_, axis) in joined.items()}
        return {name: found for name, (found, _) in joined.items()}

    def _generated(
        self, part: Part, loop: Loop, feed: Feed, made: Mapping[str, Mapping[str, Array]]
    ) -> tuple[dict[str, Array], Array]:
        constant = {name: self._wired(name, feed, made) for name in _taking_turns(part, loop)}
        prompt, forced = self._prompt(part, loop, feed, constant), feed.get(FORCED)
        seen = self._seen(part, loop, feed, prompt)
        steps = loop.steps if forced is None else forced.shape[1]
        self._require_room(part, loop, prompt.shape[1] + steps)
        spec = next(s for s in self.sessions[part.name].inputs if s.name == loop.tokens)
        chosen: list[Array] = []
        logits: list[Array] = []
        ended = np.zeros(len(prompt), bool)
        cache: dict[str, Array] = {}
        new = prompt
        for step in range(steps):
            turn = loop.first if step == 0 and loop.first is not None else part.name
            given = dict(constant[turn])
            given.update(self._counted(turn, loop, new, seen, cache))
            given[loop.tokens] = new.astype(spec.dtype)
            given = {n: given[n] for n in (s.name for s in self.sessions[turn].inputs)}
            found = self._call(turn, step, given)
            cache.update(self._kept(loop, found, cache))
            logits.append(found[loop.logits][:, -1:])
            best = logits[-1][:, 0].argmax(axis=-1) if forced is None else forced[:, step]
            best = np.where(ended, loop.end[0] if loop.end else 0, best).astype(np.int64)
            chosen.append(best)
            if forced is None and loop.end:
                ended |= np.isin(best, loop.end)
                if ended.all():
                    break
            seen = np.pad(seen, ((0, 0), (0, 1)), constant_values=1)
            new = best[:, np.newaxis]
            if not loop.cache:
                new = np.concatenate([prompt, np.stack(chosen, axis=1)], axis=1)
        return {loop.logits: np.concatenate(logits, axis=1)}, np.stack(chosen, axis=1)

    def _prompt(
        self, part: Part, loop: Loop, feed: Feed, constant: Mapping[str, Mapping[str, Array]]
    ) -> Array:
        """The first tokens, int64 `[batch, n]`."""
        if loop.start is not None:
            known = {**feed, **constant[part.name]}
            return np.full((self._batch(part, loop, known), 1), loop.start, np.int64)
        given = feed[loop.tokens].astype(np.int64)
        return given[:, : loop.prompt] if loop.prompt else given

    def _batch(self, part: Part, loop: Loop, known: Mapping[str, Array]) -> int:
        """Texts at a time: of the input with most axes whose first is free, else what is fixed."""
        specs = [*self.sessions[part.name].inputs, *self.wiring.inputs]
        free = [s for s in specs if s.name in known and s.shape and not isinstance(s.shape[0], int)]
        if free:
            return len(known[max(free, key=lambda spec: len(spec.shape)).name])
        fixed = next(s for s in specs if s.name == loop.tokens).shape[0]
        return fixed if isinstance(fixed, int) else 1

    def _seen(self, part: Part, loop: Loop, feed: Feed, prompt: Array) -> Array:
        """Which tokens of the prompt are text, int64 `[batch, n]`."""
        if not loop.padded or loop.mask is None:
            return np.ones(prompt.shape, np.int64)
        given = feed[loop.mask].astype(np.int64)
        seen = given[:, : loop.prompt] if loop.prompt else given
        if seen.shape != prompt.shape or (np.diff(seen, axis=1) < 0).any() or not seen[:, -1].all():
            raise DataError(
                f"{self.wiring.pipeline.source}: part {part.name}: {loop.mask!r} is "
                f"{list(seen.shape)} for a prompt of {list(prompt.shape)}; expected as many "
                "numbers, zeros in front and ones from where each text begins: the next token is "
                "read behind the last one [D003]"
            )
        return seen

    def _counted(
        self, turn: str, loop: Loop, new: Array, seen: Array, cache: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Mask, positions, flag, and the cache or an empty one.

        Args:
            turn: the part.
            loop: whose inputs they are.
            new: tokens of this step, `[batch, step]`.
            seen: which of all tokens so far are text, `[batch, past + step]`.
            cache: of the step before.
        """
        batch, step = new.shape
        past = seen.shape[1] - step
        found: dict[str, Array] = {}
        for spec in self.sessions[turn].inputs:
            dtype = spec.dtype
            if spec.name in loop.cache:
                kept = cache.get(spec.name)
                found[spec.name] = self._empty(turn, spec, batch) if kept is None else kept
            elif spec.name == loop.mask:
                found[spec.name] = seen.astype(dtype)
            elif spec.name == loop.positions:
                # Padding has the first text's position, which nobody reads.
                places = np.maximum(seen.cumsum(axis=1) - 1, 0)
                found[spec.name] = places[:, past:].astype(dtype)
            elif spec.name == loop.flag:
                found[spec.name] = np.full([1 for _ in spec.shape], past > 0)
        return found

    def _empty(self, turn: str, spec: InputSpec, batch: int) -> Array:
        made = empty_cache(spec, batch)
        if made is None:
            source = self.wiring.pipeline.source
            raise ModelError(f"{source}: part {turn}, input {spec}: {_NO_CACHE_FITS} [N003]")
        return made

    @staticmethod
    def _kept(
        loop: Loop, found: Mapping[str, Array], cache: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The cache after a step; what is computed once stays what the first step gave."""
        return {
            name: found[output]
            for name, output in loop.cache.items()
            if output in found and not (name in loop.once and name in cache)
        }

    def _require_room(self, part: Part, loop: Loop, length: int) -> None:
        if loop.longest is not None and length > loop.longest:
            raise DataError(
                f"{self.wiring.pipeline.source}: part {part.name}: prompt and steps are {length} "
                f"tokens, and it was trained for {loop.longest}; give shorter prompts, or fewer "
                "steps in [part.loop] [N004]"
            )

    def _call(self, part: str, step: int, given: Feed) -> dict[str, Array]:
        if self._heard is not None:
            self._heard(Call(part, step, given))
        try:
            return self.sessions[part].run(given)
        except ModelError as error:
            sizes = ", ".join(f"{name} {list(x.shape)}" for name, x in given.items())
            raise ModelError(
                f"{self.wiring.pipeline.source}: part {part}, step {step}, with {sizes}: {error}"
            ) from error


def _taking_turns(part: Part, loop: Loop) -> list[str]:
    return [part.name] if loop.first is None else [loop.first, part.name]


def empty_cache(spec: InputSpec, batch: int) -> Array | None:
    """A past of length 0; `None` where the length is fixed.

    Args:
        spec: of the input, `[batch, …]`, with one more free size.
        batch: of the run.
    """
    shape = [batch, *(dim if isinstance(dim, int) else 0 for dim in spec.shape[1:])]
    return np.zeros(shape, spec.dtype) if 0 in shape[1:] else None
