"""A part that generates tokens, one a step, from those so far: `[part.loop]` of a description."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxpress.recipe_entries import Entries

__all__ = ["Loop", "loop_of", "loop_table"]

_KEYS = (
    "tokens",
    "logits",
    "start",
    "end",
    "steps",
    "prompt",
    "longest",
    "mask",
    "padded",
    "positions",
    "flag",
    "first",
    "once",
    "cache",
)
_STEPS = 32


@dataclass(frozen=True, slots=True)
class Loop:
    """How a part generates: greedily, a token a step, what it knows of the past in a cache.

    Attributes:
        tokens: the input that takes tokens, `[batch, step]`.
        logits: the output whose last step says the next token, `[batch, step, vocabulary]`.
        cache: outputs that are fed to inputs at the next step, by input; a `*` stands for the same
            text in both. Empty: all tokens so far are fed at every step.
        once: inputs of the cache that keep what the first step gave, as an encoder's keys.
        mask: the input of ones, `[batch, past + step]`; `None`: there is none, or it is wired.
        padded: the samples hold the mask of the prompt, with zeros in front of shorter texts.
        positions: the input that counts tokens, `[batch, step]`.
        flag: the bool input of a merged decoder, whether there is a past.
        first: the part that takes the first step in place of this one.
        start: the first token where the samples have no prompt.
        end: tokens that end it.
        steps: how many tokens are generated, at most.
        prompt: of the samples' tokens, how many are given; the rest is what should follow, which
            gives a perplexity. 0: all are a prompt.
        longest: tokens that the part was trained for; `None`: not known.
    """

    tokens: str
    logits: str = "logits"
    cache: Mapping[str, str] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    mask: str | None = None
    padded: bool = False
    positions: str | None = None
    flag: str | None = None
    first: str | None = None
    start: int | None = None
    end: tuple[int, ...] = ()
    steps: int = _STEPS
    prompt: int = 0
    longest: int | None = None


def loop_of(entry: Entries) -> Loop:
    """Read `[part.loop]`.

    Raises:
        RecipeError: an entry means nothing, with its line.
    """
    entry.known(_KEYS)
    steps, prompt = entry.value("steps", int, _STEPS), entry.value("prompt", int, 0)
    if steps < 1 or prompt < 0:
        raise entry.error("steps", f"steps is {steps}, prompt {prompt}; expected 1 or more, 0")
    longest = entry.value("longest", int, None)
    if longest is not None and longest < 1:
        raise entry.error("longest", f"longest is {longest}; expected 1 or more")
    end = entry.table_itself.get("end", [])
    end = end if isinstance(end, list) else [end]
    if not all(type(token) is int for token in end):
        raise entry.error("end", f"end is {end!r}; expected numbers of tokens")
    cache = entry.table("cache")
    return Loop(
        entry.value("tokens", str),
        entry.value("logits", str, "logits"),
        {} if cache is None else {name: cache.value(name, str) for name in cache.table_itself},
        entry.texts("once"),
        entry.value("mask", str, None),
        entry.value("padded", bool, default=False),
        entry.value("positions", str, None),
        entry.value("flag", str, None),
        entry.value("first", str, None),
        entry.value("start", int, None),
        tuple(end),
        steps,
        prompt,
        longest,
    )


def loop_table(loop: Loop) -> dict[str, Any]:
    """What `loop_of` reads."""
    said = {name: getattr(loop, name) for name in _KEYS}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in said.items()
        if value not in (None, (), {}, 0, False) or (name == "start" and value == 0)
    }
