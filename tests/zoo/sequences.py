"""Models of what comes step by step: texts, lines, sound, and states that are carried on."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from zoo.builder import Array, Made, Net, Shape, fitted, floats, opened

__all__ = [
    "BINS",
    "FRAMES",
    "LINE",
    "PER_LANGUAGE",
    "STEPS",
    "SYMBOLS",
    "accumulator",
    "decoder",
    "denoiser",
    "lines",
    "recurrent",
    "tagger",
]

Floats = npt.NDArray[np.float64]
SAMPLES = 48
STEPS = 64

SYMBOLS, _WIDTH = 6, 24
_GLYPH = 8
LINE = 96

PER_LANGUAGE = 24
_LENGTH = 16

BINS, FRAMES = 161, 40


def _lines(seed: int, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Lines [count, 1, features, steps] of symbols between blanks, and the symbol of each step."""
    glyphs = np.random.default_rng(1).standard_normal((SYMBOLS + 1, _WIDTH, _GLYPH))
    glyphs[0] = 0
    rng = np.random.default_rng(seed)
    x = 0.3 * rng.standard_normal((count, _WIDTH, LINE))
    steps = np.zeros((count, LINE), np.int64)
    for index in range(count):
        place = int(rng.integers(2, 8))
        while place + _GLYPH < LINE:
            symbol = int(rng.integers(1, SYMBOLS + 1))
            x[index, :, place : place + _GLYPH] += glyphs[symbol]
            steps[index, place + 2 : place + 5] = symbol
            place += _GLYPH + int(rng.integers(0, 8))
    return x[:, None].astype(np.float32), steps


@cache
def lines() -> Made:
    """A reader of lines, [batch, steps, blank and symbols], as CTC trains them."""
    net = Net(60)
    inputs: dict[str, tuple[str, Shape]] = {"x": ("float", ["batch", 1, _WIDTH, "width"])}
    weight = net.normal(64, 1, _WIDTH, 9, fan=_WIDTH * 9)
    x = net.op("Conv", "x", weight, net.normal(64, gain=0.1), pads=[0, 4, 0, 4])
    x = net.op("Transpose", net.op("Squeeze", net.op("Relu", x), np.array([2])), perm=[0, 2, 1])
    images, steps = _lines(61, 60)
    rows = net.computed(x, inputs, {"x": images}).reshape(-1, 64)
    wanted = 8.0 * np.eye(SYMBOLS + 1)[steps.reshape(-1)]
    y = net.op("Softmax", net.linear(x, fitted(rows, wanted)), axis=-1)
    images, _ = _lines(62, SAMPLES)
    shape = ["batch", "width", SYMBOLS + 1]
    feeds = tuple({"x": image[None]} for image in images)
    return Made(net.model(inputs, {"read": (y, "float", shape)}), feeds)


def _texts(seed: int, count: int) -> npt.NDArray[np.int64]:
    """Texts [count, length] by the rules of a language; every eighth is in the second one."""
    rules = np.random.default_rng(2).dirichlet(np.full(PER_LANGUAGE, 0.15), (2, PER_LANGUAGE))
    rng = np.random.default_rng(seed)
    texts = np.zeros((count, _LENGTH), np.int64)
    for index in range(count):
        language = int(index % 8 == 7)
        token = int(rng.integers(PER_LANGUAGE))
        for step in range(_LENGTH):
            texts[index, step] = token + PER_LANGUAGE * language
            token = int(rng.choice(PER_LANGUAGE, p=rules[language, token]))
    return texts


@cache
def tagger(seed: int = 63) -> Made:
    """The next token's logits at every step, from the token and a little of those before it."""
    number = 2 * PER_LANGUAGE
    net = Net(seed)
    inputs: dict[str, tuple[str, Shape]] = {"input_ids": ("int64", ["batch", "length"])}
    table = net.normal(number, 48, gain=1.0)
    x = net.op("Gather", table, "input_ids", axis=0)
    x = net.op("Relu", net.op("MatMul", x, net.normal(48, 128, fan=48)))
    x = net.op("MatMul", x, net.normal(128, 64, fan=128))
    texts = _texts(64, 600)
    rows = net.computed(x, inputs, {"input_ids": texts[:, :-1]}).reshape(-1, 64)
    wanted = 10.0 * np.eye(number)[texts[:, 1:].reshape(-1)]
    y = net.linear(x, fitted(rows, wanted))
    feeds = tuple({"input_ids": text[None]} for text in _texts(65, SAMPLES))
    shape = ["batch", "length", number]
    return Made(net.model(inputs, {"logits": (y, "float", shape)}), feeds)


def _sound(seed: int, count: int) -> tuple[Array, Floats]:
    """Log power [count, frames, bins] of tones that move in noise; how much of it is the tones."""
    rng = np.random.default_rng(seed)
    bins, frames = np.arange(BINS), np.arange(FRAMES)
    voice = np.zeros((count, FRAMES, BINS))
    for index in range(count):
        for _ in range(3):
            middle = rng.uniform(5, 150) + rng.uniform(-1, 1) * frames
            loud = rng.uniform(3, 30) * (np.sin(frames / rng.uniform(3, 9) + rng.uniform(0, 6)) > 0)
            shape = np.exp(-((bins - middle[:, None]) ** 2) / 40)
            voice[index] += loud[:, None] * shape
    noise = rng.exponential(1.0, voice.shape) * np.exp(-bins / 80)
    gain = voice / (voice + np.exp(-bins / 80))
    return np.log(voice + noise + 1e-3).astype(np.float32), gain


@cache
def denoiser() -> Made:
    """Gains of 0 to 1 for each frame and bin."""
    net = Net(66)
    inputs: dict[str, tuple[str, Shape]] = {"spectrum": ("float", ["batch", "frames", BINS])}
    x = net.op("Transpose", "spectrum", perm=[0, 2, 1])
    x = net.op("Conv", x, net.normal(192, BINS, 3, fan=3 * BINS), net.normal(192), pads=[2, 0])
    x = net.op("Transpose", net.op("Relu", x), perm=[0, 2, 1])
    spectra, gains = _sound(67, 40)
    rows = net.computed(x, inputs, {"spectrum": spectra}).reshape(-1, 192)
    odds = np.log(np.clip(gains, 0.01, 0.99) / (1 - np.clip(gains, 0.01, 0.99)))
    y = net.op("Sigmoid", net.linear(x, fitted(rows, odds.reshape(-1, BINS))))
    feeds = tuple({"spectrum": one[None]} for one in _sound(68, SAMPLES)[0])
    return Made(net.model(inputs, {"gains": (y, "float", ["batch", "frames", BINS])}), feeds)


def _walk(seed: int) -> Array:
    """A slow random walk of 12 features, one step a row."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((STEPS + 10, 12))
    for index in range(1, len(steps)):
        steps[index] = 0.8 * steps[index - 1] + 0.6 * steps[index]
    return steps.astype(np.float32)


@cache
def recurrent() -> Made:
    """A GRU whose state is given from step to step."""
    net = Net(69)
    size = 24
    x = net.op("Unsqueeze", "input", np.array([0]))
    _, last = net.ops(
        "GRU", x, net.normal(1, 3 * size, 12, fan=12), net.normal(1, 3 * size, size, fan=size),
        net.normal(1, 6 * size, gain=0.2), "", "state", number=2, hidden_size=size,
    )  # fmt: skip
    flat = net.op("Squeeze", last, np.array([0]))
    y = net.linear(flat, (net.normal(size, 3, fan=size), net.normal(3)))
    inputs: dict[str, tuple[str, Shape]] = {
        "input": ("float", [1, 12]),
        "state": ("float", [1, 1, size]),
    }
    outputs = {"output": (y, "float", [1, 3]), "stateN": (last, "float", [1, 1, size])}
    return _rolled(
        net, inputs, outputs, {"state": "stateN"}, [{"input": s[None]} for s in _walk(70)]
    )


@cache
def accumulator() -> Made:
    """A state that forgets a fiftieth at every step: what is added stays for long."""
    net = Net(71)
    size = 16
    new = net.op("Tanh", net.op("MatMul", "input", net.normal(12, size, fan=12)))
    kept = net.op("Mul", "h_in", floats([0.98]))
    h = net.op("Add", kept, new)
    hidden = net.op("Tanh", net.op("MatMul", h, net.normal(size, 32, fan=size, gain=0.4)))
    y = net.op("MatMul", hidden, net.normal(32, 3, fan=32))
    inputs: dict[str, tuple[str, Shape]] = {
        "input": ("float", [1, 12]),
        "h_in": ("float", [1, size]),
    }
    outputs = {"output": (y, "float", [1, 3]), "h_out": (h, "float", [1, size])}
    return _rolled(net, inputs, outputs, {"h_in": "h_out"}, [{"input": s[None]} for s in _walk(72)])


@cache
def decoder() -> Made:
    """A decoder with attention whose keys and values grow by a step with every token."""
    net = Net(73)
    number, heads, width = 2 * PER_LANGUAGE, 2, 16
    x = net.op("Gather", net.normal(number, heads * width, gain=1.0), "input_ids", axis=0)

    def projected(gain: float) -> str:
        weight = net.normal(heads * width, heads * width, fan=heads * width, gain=gain)
        parts = net.reshaped(net.op("MatMul", x, weight), 1, -1, heads, width)
        return net.op("Transpose", parts, perm=[0, 2, 1, 3])

    query = projected(1.0)
    key = net.op("Concat", "past.0.key", projected(1.0), axis=2)
    value = net.op("Concat", "past.0.value", projected(1.0), axis=2)
    across = net.op("MatMul", query, net.op("Transpose", key, perm=[0, 1, 3, 2]))
    weights = net.op("Softmax", net.op("Mul", across, floats([width**-0.5])), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", weights, value), perm=[0, 2, 1, 3])
    x = net.op("Add", x, net.reshaped(mixed, 1, -1, heads * width))
    x = net.op("Relu", net.op("MatMul", x, net.normal(32, 64, fan=32)))
    past: Shape = [1, heads, "past", width]
    now: Shape = [1, heads, "total", width]
    inputs: dict[str, tuple[str, Shape]] = {
        "input_ids": ("int64", [1, "length"]),
        "past.0.key": ("float", past),
        "past.0.value": ("float", past),
    }
    # After each token another one, whatever came before.
    tokens = np.tile(np.arange(number), 4)
    nothing = np.zeros((1, heads, 0, width), np.float32)
    feed: dict[str, Array] = {
        "input_ids": tokens[None],
        "past.0.key": nothing,
        "past.0.value": nothing,
    }
    rows = net.computed(x, inputs, feed)[0]
    logits = net.linear(x, fitted(rows, 8.0 * np.eye(number)[(7 * tokens + 5) % number]))
    outputs = {
        "logits": (logits, "float", [1, "length", number]),
        "present.0.key": (key, "float", now),
        "present.0.value": (value, "float", now),
    }
    texts = np.random.default_rng(74).integers(0, number, STEPS)
    states = {"past.0.key": "present.0.key", "past.0.value": "present.0.value"}
    return _rolled(net, inputs, outputs, states, [{"input_ids": t.reshape(1, 1)} for t in texts])


def _rolled(
    net: Net,
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Mapping[str, tuple[str, str, Shape]],
    states: Mapping[str, str],
    feeds: list[dict[str, Array]],
) -> Made:
    """A model, and samples with the states that it meets when it is run from step to step."""
    model = net.model(inputs, outputs)
    session = opened(model)
    shapes = {name: [d if isinstance(d, int) else 0 for d in inputs[name][1]] for name in states}
    state: dict[str, Array] = {name: np.zeros(s, np.float32) for name, s in shapes.items()}
    found = []
    for feed in feeds:
        found.append({**feed, **state})
        answer = session.run(found[-1])
        state = {name: answer[output] for name, output in states.items()}
    return Made(model, tuple(found))
