"""Gradients of LSTM and GRU: backward through time (Werbos 1990), a Scan in each direction.

The states before every turn are computed again, as the operators give only those behind them. What
sequence_lens cuts off leaves the states as they are and gives 0: with m = 1 inside a sequence, else
0, a turn is h₁ = m·h + (1 − m)·h₀.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import Body, Tape, Term

__all__ = ["RULES"]

_X, _W, _R, _B, _LENGTHS, _H, _C, _PEEPHOLES = range(8)
_USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"]}
_UNUSUAL = ("clip", "input_forget", "layout")


@dataclass(frozen=True)
class _Direction:
    """What one direction computes with, D = 1 of it.

    Attributes:
        x: `[T, N, I]`.
        w: `[gates·H, I]`.
        r: `[gates·H, H]`.
        biases: those of input and of state, `[gates·H]` each, or none.
        mask: `[T, N, 1]`: 1 inside a sequence.
        h, c: states before the first turn, `[N, H]`; `c` of LSTM alone.
        dy: gradient of every turn's output, `[T, N, H]`.
        dh, dc: of the last states, `[N, H]`.
        backwards: from the last turn to the first.
        units: H.
    """

    x: Term
    w: Term
    r: Term
    biases: tuple[Term, ...]
    mask: Term
    h: Term
    c: Term | None
    dy: Term
    dh: Term
    dc: Term | None
    backwards: bool
    units: int


@dataclass(frozen=True)
class _Found:
    """Gradients of one direction, in the shapes of its parts.

    Attributes:
        x, w, r, h, c: by their names.
        input_bias, state_bias: `[gates·H]`.
    """

    x: Term
    w: Term
    r: Term
    input_bias: Term
    state_bias: Term
    h: Term
    c: Term | None


def _rule(call: Call, backward: "Callable[[Call, _Direction], _Found]") -> Gradients | str:
    """The gradients of all directions, one behind the other."""
    reason = _refusal(call)
    if reason:
        return reason
    directions = ["reverse"] if call.text("direction", "forward") == "reverse" else ["forward"]
    if call.text("direction", "forward") == "bidirectional":
        directions = ["forward", "reverse"]
    found = [
        backward(call, _direction(call, place, backwards=name == "reverse"))
        for place, name in enumerate(directions)
    ]
    dx = found[0].x if len(found) == 1 else found[0].x + found[1].x
    biases = [one.input_bias.op("Concat", one.state_bias, axis=0) for one in found]
    given = [None if call.optional(index) is None else 1 for index in range(_C + 1)]
    return [
        dx,
        _stacked([one.w for one in found]),
        _stacked([one.r for one in found]),
        _stacked(biases) if given[_B] else None,
        None,
        _stacked([one.h for one in found]) if given[_H] else None,
        _stacked([one.c for one in found if one.c is not None]) if given[_C] else None,
    ]


def _refusal(call: Call) -> str:
    """Why there are no gradients, or nothing."""
    kind = call.node.op_type
    for name in _UNUSUAL:
        given = call.node.attributes.get(name)
        if given is not None and given.value:
            return f"its attribute {name} is set"
    chosen = call.node.attributes.get("activations")
    names = [] if chosen is None else [name.lower() for name in chosen.as_strings()]
    if any(name != _USUAL[kind][place % len(_USUAL[kind])] for place, name in enumerate(names)):
        return f"its activations are {', '.join(names)}"
    if call.optional(_PEEPHOLES) is not None:
        return "it has peepholes"
    dims = call.input(_R).dims
    if dims is None or not isinstance(dims[2], int):
        return "its number of units is not known"
    return ""


def _direction(call: Call, place: int, *, backwards: bool) -> _Direction:
    """The parts of one direction; where gradients or states are missing, zeros."""
    tape, x = call.tape, call.x
    dims = call.input(_R).dims
    assert dims is not None
    units = dims[2]
    assert isinstance(units, int)

    def one(term: Term, axis: int = 0) -> Term:
        return term.op("Gather", tape.array(np.asarray(place, np.int64)), axis=axis)

    def of(index: int) -> Term | None:
        term = call.optional(index)
        return None if term is None else one(term)

    def upstream(index: int, axis: int) -> Term | None:
        term = call.upstream[index] if index < len(call.upstream) else None
        return None if term is None else one(term, axis)

    none = tape.zeros(x.size(1).op("Concat", tape.integers([units]), axis=0), x.dtype)
    lengths = x.size(0).op("Concat", x.size(1), tape.integers([units]), axis=0)
    bias = of(_B)
    if bias is not None:
        gates = dims[1]
        assert isinstance(gates, int)
        bias.known_as([2 * gates])
    is_lstm = call.node.op_type == "LSTM"
    return _Direction(
        x,
        one(call.input(_W)),
        one(call.input(_R)),
        () if bias is None else tuple(bias.parts(2, 0)),
        _mask(call),
        of(_H) or none,
        (of(_C) or none) if is_lstm else None,
        upstream(0, 1) or tape.zeros(lengths, x.dtype),
        upstream(1, 0) or none,
        (upstream(2, 0) or none) if is_lstm else None,
        backwards,
        units,
    )


def _mask(call: Call) -> Term:
    """1 inside a sequence, else 0, `[T, N, 1]`."""
    tape, x = call.tape, call.x
    shape = x.size(0).op("Concat", x.size(1), tape.integers([1]), axis=0)
    lengths = call.optional(_LENGTHS)
    if lengths is None:
        return tape.number(1.0, x.dtype).op("Expand", shape)
    zero, one = (tape.array(np.asarray(number, np.int64)) for number in (0, 1))
    turns = tape.op("Range", zero, x.size(0).reshape([]), one).reshape([-1, 1, 1])
    ends = lengths.cast(ir.DataType.INT64).reshape([1, -1, 1])
    return (turns < ends).cast(x.dtype)


def _stacked(terms: list[Term]) -> Term:
    """With a first axis for directions."""
    tape = terms[0].tape
    wide = [term.op("Unsqueeze", tape.integers([0])) for term in terms]
    return wide[0] if len(wide) == 1 else wide[0].op("Concat", *wide[1:], axis=0)


def _rows(term: Term) -> Term:
    """Turns and samples as rows of one matrix, `[T·N, features]`."""
    return term.reshape(term.tape.integers([-1]).op("Concat", term.size(2), axis=0))


def _gates(term: Term, number: int, units: int) -> list[Term]:
    """`[N, number·H]` taken apart."""
    term.known_as([None, number * units])
    return term.parts(number, 1)


def _together(terms: list[Term]) -> Term:
    return terms[0].op("Concat", *terms[1:], axis=1)


def _from_input(given: _Direction, biases: tuple[Term, ...]) -> Term:
    """x·Wᵀ and biases of every turn, `[T, N, gates·H]`."""
    found = given.x @ given.w.op("Transpose", perm=[1, 0])
    for bias in biases:
        found += bias
    return found


def _lstm(call: Call, given: _Direction) -> _Found:
    """Of i, o, f = σ(a), g = tanh(a), c = f·c₀ + i·g, h = o·tanh(c), a = x·Wᵀ + h₀·Rᵀ + b.

    do = dh·tanh(c), dc += dh·o·(1 − tanh²(c)); df = dc·c₀, di = dc·g, dg = dc·i, dc₀ = dc·f;
    da = (di·i(1 − i), do·o(1 − o), df·f(1 − f), dg·(1 − g²)); dh₀ = da·R, dR = Σ daᵀh₀,
    dW = Σ daᵀx, dx = da·W, db = Σ da.
    """
    turned = given.r.op("Transpose", perm=[1, 0])
    units = given.units

    def forward(_: Tape, states: list[Term], inputs: list[Term]) -> tuple[list[Term], list[Term]]:
        (h0, c0), (a, m) = states, inputs
        i, o, f, g = _activated(a + h0 @ turned)
        c = f * c0 + i * g
        h = o * c.tanh()
        return [h0 + m * (h - h0), c0 + m * (c - c0)], [h0, c0]

    def _activated(a: Term) -> list[Term]:
        i, o, f, g = _gates(a, 4, units)
        return [i.sigmoid(), o.sigmoid(), f.sigmoid(), g.tanh()]

    def back(_: Tape, states: list[Term], inputs: list[Term]) -> tuple[list[Term], list[Term]]:
        (dh1, dc1), (a, m, h0, c0, dy) = states, inputs
        i, o, f, g = _activated(a + h0 @ turned)
        t = (f * c0 + i * g).tanh()
        dh = m * (dh1 + dy)
        dc = m * dc1 + dh * o * (1 - t * t)
        da = _together(
            [
                dc * g * i * (1 - i),
                dh * t * o * (1 - o),
                dc * c0 * f * (1 - f),
                dc * i * (1 - g * g),
            ]
        )
        return [da @ given.r + (1 - m) * dh1, dc * f + (1 - m) * dc1], [da]

    assert given.c is not None
    assert given.dc is not None
    a = _from_input(given, given.biases)
    before, cells = _turns(call, given, [given.h, given.c], [a, given.mask], forward, 2)[2:]
    dh, dc, da = _turns(
        call,
        given,
        [given.dh, given.dc],
        [a, given.mask, before, cells, given.dy],
        back,
        1,
        back=True,
    )
    return _found(given, da, da, before, dh, dc)


def _turns(
    call: Call,
    given: _Direction,
    states: list[Term],
    inputs: list[Term],
    body: Body,
    outputs: int,
    *,
    back: bool = False,
) -> list[Term]:
    """A Scan in the direction, or against it."""
    return call.tape.scan(states, inputs, body, outputs=outputs, backwards=given.backwards != back)


def _found(
    given: _Direction, da: Term, dr: Term, before: Term, dh: Term, dc: Term | None
) -> _Found:
    """From the gradients of what W and R give before activations, `[T, N, gates·H]` each."""
    for term in (da, dr, before):
        term.known_as([None, None, None])
    rows, recurrent = _rows(da), _rows(dr)
    return _Found(
        da @ given.w,
        rows.op("Gemm", _rows(given.x), transA=1),
        recurrent.op("Gemm", _rows(before), transA=1),
        rows.sum([0]),
        recurrent.sum([0]),
        dh,
        dc,
    )


def _gru(call: Call, given: _Direction) -> _Found:
    """Of z, r = σ(a), n = tanh(x·Wₙᵀ + …), h = (1 − z)·n + z·h₀.

    dn = dh·(1 − z)·(1 − n²), dz = dh·(h₀ − n)·z(1 − z). With linear_before_reset n holds r·q of
    q = h₀·Rₙᵀ + b: dr = dn·q·r(1 − r), dq = dn·r. Without it holds (r·h₀)·Rₙᵀ:
    s = dn·Rₙ, dr = s·h₀·r(1 − r), dh₀ += s·r. What R gives has the gradient (dz, dr, dq or dn).
    """
    units, linear = given.units, call.integer("linear_before_reset", 0)
    given.r.known_as([3 * units, units])
    of_gates, of_new = _halves(given.r, units)
    turned, turned_new = (term.op("Transpose", perm=[1, 0]) for term in (of_gates, of_new))
    biases, new_bias = given.biases, None
    if biases:
        # Of the state's part of n, which is multiplied by r where it is linear before.
        state = biases[1]
        state.known_as([3 * units])
        new_bias = state.parts(3, 0)[2]
        if linear:
            flags = np.repeat([1.0, 1.0, 0.0], units).astype(np.float32)
            biases = biases[0], state * call.tape.array(flags.astype(given.x.dtype.numpy()))

    def turn(a: Term, h0: Term) -> tuple[Term, Term, Term, Term]:
        az, ar, an = _gates(a, 3, units)
        bz, br = _gates(h0 @ turned, 2, units)
        z, r = (az + bz).sigmoid(), (ar + br).sigmoid()
        if linear:
            q = h0 @ turned_new
            q = q if new_bias is None else q + new_bias
            return z, r, q, (an + r * q).tanh()
        q = (r * h0) @ turned_new
        return z, r, q, (an + q).tanh()

    def forward(_: Tape, states: list[Term], inputs: list[Term]) -> tuple[list[Term], list[Term]]:
        (h0,), (a, m) = states, inputs
        z, _r, _q, n = turn(a, h0)
        h = n + z * (h0 - n)
        return [h0 + m * (h - h0)], [h0]

    def back(_: Tape, states: list[Term], inputs: list[Term]) -> tuple[list[Term], list[Term]]:
        (dh1,), (a, m, h0, dy) = states, inputs
        z, r, q, n = turn(a, h0)
        dh = m * (dh1 + dy)
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h0 - n) * z * (1 - z)
        if linear:
            dr, dq = dn * q * r * (1 - r), dn * r
            through = dq @ of_new
        else:
            s = dn @ of_new
            dr, dq = s * h0 * r * (1 - r), dn
            through = s * r
        dh0 = dh * z + _together([dz, dr]) @ of_gates + through + (1 - m) * dh1
        return [dh0], [_together([dz, dr, dn]), _together([dz, dr, dq]), r * h0]

    a = _from_input(given, biases)
    before = _turns(call, given, [given.h], [a, given.mask], forward, 1)[1]
    dh, da, dr, reset = _turns(
        call, given, [given.dh], [a, given.mask, before, given.dy], back, 3, back=True
    )
    found = _found(given, da, dr, before, dh, None)
    if linear:
        return found
    # The last third of R met r·h₀.
    for term in (dr, reset):
        term.known_as([None, None, None])
    whole = _rows(dr).op("Gemm", _rows(reset), transA=1)
    found.r.known_as([3 * units, units])
    whole.known_as([3 * units, units])
    first, last = found.r.parts(3, 0)[:2], whole.parts(3, 0)[2]
    joined = first[0].op("Concat", first[1], last, axis=0)
    return _Found(found.x, found.w, joined, found.input_bias, found.state_bias, dh, None)


def _halves(r: Term, units: int) -> tuple[Term, Term]:
    """R of the gates z and r, `[2H, H]`, and of n, `[H, H]`."""
    z, reset, new = r.parts(3, 0)
    return z.op("Concat", reset, axis=0), new


RULES: dict[str, Rule] = {
    "GRU": lambda call: _rule(call, _gru),
    "LSTM": lambda call: _rule(call, _lstm),
}
