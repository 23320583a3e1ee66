"""Models of one or more recurrent operators, with everything that is optional drawn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.runtime import Array

__all__ = [
    "GATES",
    "Floats",
    "Form",
    "Run",
    "feed_of",
    "recurrent_model",
    "reference_run",
    "weights_of",
]

Floats = npt.NDArray[np.floating]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Form:
    """What a recurrent operator looks like.

    Attributes:
        operator: LSTM, GRU or RNN.
        direction: forward, reverse or bidirectional.
        layout: 1 has the batch first.
        bias: whether it has B.
        start: whether it has initial_h, as an input of the model.
        lengths: whether it has sequence_lens.
        linear_before_reset: of a GRU.
        peepholes: whether an LSTM has P, which `reference_run` does not know.
        states_only: whether Y has no name and only Y_h is read.
        opset: of the model.
        inputs: width of X.
        hidden: width of the hidden state.
    """

    operator: str = "LSTM"
    direction: str = "forward"
    layout: int = 0
    bias: bool = True
    start: bool = False
    lengths: bool = False
    linear_before_reset: int = 1
    peepholes: bool = False
    states_only: bool = False
    opset: int = 17
    inputs: int = 20
    hidden: int = 24

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1


def _value(name: str, shape: list[int | str | None], kind: ir.DataType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


def recurrent_model(form: Form, seed: int = 0) -> ir.Model:
    """X and perhaps h0 → Y, or Y_h, of one operator."""
    rng = np.random.default_rng(seed)
    rows, directions = GATES[form.operator] * form.hidden, form.directions

    def weight(name: str, *shape: int) -> ir.Value:
        # Rows of very different norms, as one scale for all would spoil.
        norms = np.exp(rng.uniform(-2, 0, (*shape[:2], *(1,) * (len(shape) - 2))))
        array = (rng.standard_normal(shape) * norms / np.sqrt(shape[-1])).astype(np.float32)
        value = _value(name, list(shape), ir.DataType.FLOAT)
        value.const_value = ir.Tensor(array, name=name)
        return value

    w, r = weight("W", directions, rows, form.inputs), weight("R", directions, rows, form.hidden)
    order: list[int | str | None] = ["batch", "steps"] if form.layout else ["steps", "batch"]
    x = _value("x", [*order, form.inputs], ir.DataType.FLOAT)
    outer: list[ir.Value] = [x]
    inputs: list[ir.Value | None] = [x, w, r]
    constants = [w, r]
    if form.bias:
        b = weight("B", directions, 2 * rows)
        constants.append(b)
    inputs.append(b if form.bias else None)
    lengths = _value("lengths", ["batch"], ir.DataType.INT32)
    inputs.append(lengths if form.lengths else None)
    outer += [lengths] if form.lengths else []
    if form.start:
        sizes: list[int | str | None] = [directions, "batch", form.hidden]
        h0 = _value(
            "h0", ["batch", directions, form.hidden] if form.layout else sizes, ir.DataType.FLOAT
        )
        outer.append(h0)
        inputs.append(h0)
    if form.peepholes and form.operator == "LSTM":
        constants.append(weight("P", directions, 3 * form.hidden))
        inputs += [*[None] * (7 - len(inputs)), constants[-1]]
    while inputs[-1] is None:
        inputs.pop()
    attributes: dict[str, int | str] = {"hidden_size": form.hidden, "direction": form.direction}
    if form.layout:
        attributes["layout"] = 1
    if form.operator == "GRU":
        attributes["linear_before_reset"] = form.linear_before_reset
    node = ir.node(form.operator, inputs, attributes=attributes, num_outputs=2, name="cell")
    y = node.outputs[1 if form.states_only else 0]
    y.name, y.type = "y", x.type
    y.shape = ir.Shape([None] * (3 if form.states_only else 4))
    graph = ir.Graph(
        outer,
        [y],
        nodes=[node],
        initializers=constants,
        opset_imports={"": form.opset},
        name="recurrent",
    )
    return ir.Model(graph, ir_version=8)


def feed_of(form: Form, seed: int = 1, steps: int = 7, batch: int = 3) -> dict[str, Array]:
    """Inputs of `recurrent_model`; those of x have a mean."""
    rng = np.random.default_rng(seed)
    sizes = (batch, steps) if form.layout else (steps, batch)
    feed: dict[str, Array] = {
        "x": (0.5 + rng.standard_normal((*sizes, form.inputs))).astype(np.float32)
    }
    if form.lengths:
        feed["lengths"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    if form.start:
        sizes = (batch, form.directions) if form.layout else (form.directions, batch)
        feed["h0"] = rng.uniform(-1, 1, (*sizes, form.hidden)).astype(np.float32)
    return feed


@dataclass(frozen=True)
class Run:
    """What numpy makes of a recurrent operator, batch second whatever the layout.

    Attributes:
        y: `[steps, directions, batch, hidden]`.
        last: `[directions, batch, hidden]` Y_h.
        fed: `[steps, directions, batch, hidden]` what R multiplies in each step.
    """

    y: Floats
    last: Floats
    fed: Floats


def _sigmoid(a: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-a)))


def reference_run(form: Form, weights: dict[str, Floats], feed: dict[str, Array]) -> Run:
    """The equations of the ONNX specification, in float64, without sequence_lens."""
    w, r = weights["W"].astype(np.float64), weights["R"].astype(np.float64)
    rows = w.shape[1]
    b = weights.get("B", np.zeros((form.directions, 2 * rows))).astype(np.float64)
    x = feed["x"].astype(np.float64)
    x = x.swapaxes(0, 1) if form.layout else x
    hidden = r.shape[2]
    start = feed.get("h0")
    if start is not None and form.layout:
        start = start.swapaxes(0, 1)
    y = np.zeros((len(x), form.directions, x.shape[1], hidden))
    fed, last = np.zeros_like(y), np.zeros(y.shape[1:])
    for d in range(form.directions):
        h = np.zeros((x.shape[1], hidden)) if start is None else start[d].astype(np.float64)
        c = np.zeros_like(h)
        backwards = form.direction == "reverse" or d == 1
        for t in reversed(range(len(x))) if backwards else range(len(x)):
            fed[t, d] = h
            h, c = _step(form, (x[t] @ w[d].T + b[d, :rows], r[d], b[d, rows:]), h, c)
            y[t, d] = h
        last[d] = h
    return Run(y, last, fed)


def _step(
    form: Form, part: tuple[Floats, Floats, Floats], h: Floats, c: Floats
) -> tuple[Floats, Floats]:
    from_x, r, rb = part
    n = r.shape[1]
    if form.operator == "RNN":
        return np.tanh(from_x + h @ r.T + rb), c
    if form.operator == "LSTM":
        i, o, f, g = np.split(from_x + h @ r.T + rb, 4, axis=1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return _sigmoid(o) * np.tanh(c), c
    z, s = (
        _sigmoid(a) for a in np.split(from_x[:, : 2 * n] + h @ r[: 2 * n].T + rb[: 2 * n], 2, 1)
    )
    if form.linear_before_reset:
        new = np.tanh(from_x[:, 2 * n :] + s * (h @ r[2 * n :].T + rb[2 * n :]))
    else:
        new = np.tanh(from_x[:, 2 * n :] + (s * h) @ r[2 * n :].T + rb[2 * n :])
    return (1 - z) * new + z * h, c


def weights_of(model: ir.Model) -> dict[str, Floats]:
    """Initializers by name."""
    found = model.graph.initializers.items()
    return {
        name: value.const_value.numpy().astype(np.float64)
        for name, value in found
        if value.const_value is not None
    }
