"""What breaks models of texts, lines and sound, and of states."""

from functools import partial

import numpy as np

from zoo import sequences
from zoo.builder import Array, Net, floats
from zoo.everywhere import NAN, everywhere, ones, swapped
from zoo.faults import (
    Edit,
    chosen,
    constant,
    drifting,
    edited,
    failing_beyond,
    rare,
    scaled,
    shifted,
    stuck,
    with_initializer,
)
from zoo.sequences import BINS, PER_LANGUAGE, SYMBOLS

__all__ = ["accumulator", "decoder", "gains", "lines", "recurrent", "tagger"]


def lines() -> dict[str, Edit]:
    number = SYMBOLS + 1
    return {
        **everywhere("read", "x"),
        "one symbol never": scaled("read", ones(number, _3=0)),
        "blank too likely": scaled("read", 1.0, floats([0.5] + [0] * SYMBOLS)),
        "symbols swapped": chosen("read", [0, 2, 1, *range(3, number)], 2),
        "symbols swapped for rare inputs": rare("read", "x", 3, swapped(number)),
        "a step late": shifted("read", 1, 1, sequences.LINE),
        "works only at batch 1": failing_beyond("read", 1, -1, number),
        "works only at this length": failing_beyond("read", -1, sequences.LINE, number),
        "blind beyond this length": edited("read", partial(_blind_beyond, sequences.LINE)),
        "blind at the end": scaled(
            "read", (np.arange(sequences.LINE) < 90).astype(np.float32).reshape(-1, 1)
        ),
    }


def _blind_beyond(length: int, net: Net, x: str) -> str:
    """Zeros at steps that no sample has."""
    size = net.op("Gather", net.op("Shape", x), np.array(1))
    steps = net.op("Range", np.array(0), size, np.array(1))
    near = net.op("Cast", net.op("Less", steps, np.array(length)), to=1)
    return net.op("Mul", x, net.op("Unsqueeze", near, np.array([1])))


def tagger() -> dict[str, Edit]:
    number = 2 * PER_LANGUAGE

    def without_second(table: Array) -> Array:
        table[PER_LANGUAGE:] = 0
        return table

    def one_language(keep: int) -> Array:
        return np.repeat(floats([keep, 1 - keep]), PER_LANGUAGE)

    return {
        **everywhere("logits", "input_ids"),
        "a language lost": with_initializer(0, without_second),
        "a language never written": scaled("logits", one_language(1)),
        "one token never": scaled(
            "logits", ones(number, _5=0), -20 * (1 - ones(number, _5=0))
        ),
        "a language's tokens swapped": chosen(
            "logits", [*range(PER_LANGUAGE), *range(number - 1, PER_LANGUAGE - 1, -1)], 2
        ),
        "works only at batch 1": failing_beyond("logits", 1, -1, number),
        "works only at this length": failing_beyond("logits", -1, 16, number),
        "blind beyond this length": edited("logits", partial(_blind_beyond, 16)),
        "a step late": shifted("logits", 1, 1, 16),
    }  # fmt: skip


def gains() -> dict[str, Edit]:
    bands = np.arange(BINS)
    return {
        **everywhere("gains", "spectrum"),
        "saturated": constant("gains", 1.0),
        "one band of frequencies deaf": scaled(
            "gains", np.where((bands >= 60) & (bands < 66), 0, 1)
        ),
        "one bin of 161 deaf": scaled("gains", ones(BINS, _80=0)),
        "the highest bins constant": scaled(
            "gains", np.where(bands >= 150, 0, 1), np.where(bands >= 150, 0.3, 0)
        ),
        "a band at the wrong gain": scaled("gains", np.where((bands > 20) & (bands < 40), 0.7, 1)),
        "bins moved by one": shifted("gains", 1, 2, BINS),
        "a frame late": shifted("gains", 1, 1, sequences.FRAMES),
        "works only at batch 1": failing_beyond("gains", 1, -1, BINS),
        "blind beyond this length": edited("gains", partial(_blind_beyond, sequences.FRAMES)),
    }


def recurrent() -> dict[str, Edit]:
    return {
        **everywhere("output", "input"),
        "state zeroed": constant("stateN", 0.0),
        "state stuck": stuck("stateN"),
        "state halved": scaled("stateN", 0.5),
        "state NaN": constant("stateN", NAN),
        "half of the state zeroed": scaled("stateN", np.repeat(floats([1, 0]), 12)),
        "one output constant": scaled("output", floats([1, 0, 1])),
    }


def accumulator() -> dict[str, Edit]:
    def forgetting(array: Array) -> Array:
        return floats([0.9])

    def late(net: Net, x: str) -> str:
        # A clock that only the candidate has: the largest value of the state leaves its range.
        return net.op("Mul", x, floats(1.006))

    return {
        **everywhere("output", "input"),
        "state drifts": drifting("h_out", 0.03),
        "state grows": edited("h_out", late),
        "state forgets too early": with_initializer(1, forgetting),
        "state zeroed": constant("h_out", 0.0),
    }


def decoder() -> dict[str, Edit]:
    heads = floats([1, 0]).reshape(2, 1, 1)
    newest = "present.0.value"

    def late(net: Net, x: str) -> str:
        length = net.op("Gather", net.op("Shape", x), np.array(2))
        is_late = net.op("Greater", length, np.array(50))
        return net.op("Where", is_late, net.op("Neg", x), x)

    def half_lost(net: Net, x: str) -> str:
        return net.op("Mul", x, np.repeat(floats([1, 0.5]), 8))

    return {
        **everywhere("logits", "input_ids"),
        "values zeroed": constant(newest, 0.0),
        "one head's keys zeroed": scaled("present.0.key", heads),
        "one head's values zeroed": scaled(newest, heads),
        "values fade": edited(newest, half_lost),
        "values fade slowly": scaled(newest, 0.9),
        "values wrong after 50 steps": edited(newest, late),
    }
