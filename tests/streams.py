"""A small recurrent network that is fed piece by piece, and recordings for it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

NEW, BEFORE, STATE = 24, 8, 48
PIECE = NEW + BEFORE


def write_recurrent(
    path: Path, *, features: bool = False, flat: bool = False, level: bool = False
) -> Path:
    """H' = tanh(x·W + g·h·U + b), y = sigmoid(h'·V), with a state that is carried.

    `gain`, a scalar input, is g. With `features` the network gives h' as `features` instead of y;
    with `flat` y as [batch] besides, with `level` the mean of y alone, a scalar.
    """
    last = "features = Identity (new)" if features else "s = MatMul (new, v) y = Sigmoid (s)"
    result = f"float[batch, {STATE}] features" if features else "float[batch, 1] y"
    if flat:
        last += " flat = Squeeze (y, one)"
        result += ", float[batch] flat"
    if level:
        last += " level = ReduceMean <keepdims = 0> (y)"
        result = "float level"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        tiny (float[batch, {PIECE}] x, float[1, batch, {STATE}] state, float gain)
            => ({result}, float[1, batch, {STATE}] next)
        {{
            old = Squeeze (state, zero)
            a = MatMul (x, w)
            scaled = Mul (old, gain)
            c = MatMul (scaled, u)
            sum = Add (a, c)
            biased = Add (sum, b)
            new = Tanh (biased)
            {last}
            next = Unsqueeze (new, zero)
        }}"""
    )
    tensors = [numpy_helper.from_array(array, name) for name, array in weights().items()]
    for name, number in (("zero", 0), ("one", 1)):
        tensors.append(numpy_helper.from_array(np.array([number]), name))
    model.graph.initializer.extend(tensors)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def weights() -> dict[str, np.ndarray]:
    """By name; the state fades slowly."""
    rng = np.random.default_rng(3)
    shapes = {"w": (PIECE, STATE), "u": (STATE, STATE), "b": (STATE,), "v": (STATE, 1)}
    scale = {"w": 0.5, "u": 0.9 / np.sqrt(STATE), "b": 0.1, "v": 0.6}
    return {n: rng.normal(0, scale[n], s).astype(np.float32) for n, s in shapes.items()}


def states_by_hand(recording: np.ndarray, gain: float) -> np.ndarray:
    """States in a recording [batch, length] in float64, [batch, steps, 48]."""
    w = {name: array.astype(np.float64) for name, array in weights().items()}
    state = np.zeros((len(recording), STATE))
    padded = np.pad(recording.astype(np.float64), ((0, 0), (BEFORE, 0)))
    found = []
    for at in range(0, recording.shape[1] - NEW + 1, NEW):
        x = padded[:, at : at + PIECE]
        state = np.tanh(x @ w["w"] + gain * state @ w["u"] + w["b"])
        found.append(state)
    return np.stack(found, axis=1)


def by_hand(recording: np.ndarray, gain: float) -> np.ndarray:
    """Answers to it, [batch, steps]."""
    scores = states_by_hand(recording, gain) @ weights()["v"].astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-scores[..., 0])))


def recordings(number: int, steps: int = 20, seed: int = 0, batch: int = 1) -> np.ndarray:
    """Slow noise with a rest that fills no piece, [number, batch, length]."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 1, (number, batch, steps * NEW + 7)).cumsum(axis=-1)
    return np.sin(sound / 3).astype(np.float32)


STREAM = f"""
[[part]]
name = "net"
model = "net.onnx"
[part.stream.pieces.x]
length = {NEW}
before = {BEFORE}
[part.stream.states]
state = "next"
"""
