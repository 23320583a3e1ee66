"""Scales, offsets and convolutions that become one."""

import collections

import numpy as np
import pytest
from simplification import build, simplified

LEFT_BY_PADDING = {
    "Mul Add": {"Add"},
    "Add Mul": {"Add"},
    "Div Sub": {"Div", "Sub"},
    "Sub Div": {"Sub"},
    "Mul Mul": set(),
}
"""What a padded convolution cannot take up: its zeros come behind an offset, and a quotient
moves through an offset no more than through padding."""


@pytest.mark.parametrize("shape", ["1", "4, 1, 1", "1, 4, 1, 1"])
@pytest.mark.parametrize("order", LEFT_BY_PADDING)
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 1])
def test_numbers_per_channel_move_into_the_convolution(
    shape: str, order: str, group: int, padding: int
) -> None:
    left = LEFT_BY_PADDING[order] if padding else set()
    assert set(moved(shape, order, group, padding)) == {"Relu", "Conv", *left}


@pytest.mark.parametrize("order", LEFT_BY_PADDING)
def test_numbers_along_the_width_stay(order: str) -> None:
    left = collections.Counter(["Relu", "Conv", *order.split()])
    assert moved("5", order, 1, 0) == left


def moved(shape: str, order: str, group: int, padding: int) -> collections.Counter[str]:
    """Operators left of two steps with numbers of a shape in front of a convolution."""
    first, second = order.split()
    model = build(
        f"""g (float[1, 4, 5, 5] x, float[{shape}] s, float[4, {4 // group}, 3, 3] w, float[4] b)
            => (float[1, 4, m, m] y) {{
            a = Relu (x)
            c = {first} (a, s)
            d = {second} (c, s)
            y = Conv <group = {group}, pads = [{padding}, {padding}, {padding}, {padding}]>
                (d, w, b)
        }}"""
    )
    feed = {"x": np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype(np.float32)}
    return simplified(model, feed, offsets_as_convolutions=True)


def test_offset_between_padded_convolutions_stays_among_convolutions() -> None:
    text = """g (float[1, 3, 6, 6] x, float[4, 3, 1, 1] v, float[1] s, float[1] o,
               float[4, 1, 3, 3] w) => (float[1, 4, 6, 6] y) {
            a = Conv (x, v)
            r = Relu (a)
            c = Mul (s, r)
            d = Add (c, o)
            y = Conv <group = 4, pads = [1, 1, 1, 1]> (d, w)
        }"""
    feed = {"x": np.random.default_rng(2).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    assert simplified(build(text), feed) == {"Conv": 2, "Relu": 1, "Add": 1}
    wanted = {"Conv": 3, "Relu": 1}
    assert simplified(build(text), feed, offsets_as_convolutions=True) == wanted


@pytest.mark.parametrize(
    ("inner", "padding", "bias", "merged"),
    [(8, 0, True, True), (8, 1, False, True), (8, 1, True, False), (1, 0, True, False)],
)
def test_linear_convolutions_become_one(
    inner: int, padding: int, *, bias: bool, merged: bool
) -> None:
    """Not with a bias behind which padding follows, and not where weights would multiply."""
    model = build(
        f"""g (float[1, 4, 6, 6] x, float[{inner}, 4, 1, 1] v, float[{inner}] b,
               float[4, {inner}, 3, 3] w, float[4] c) => (float[1, 4, m, m] y) {{
            a = Conv (x, v{", b" if bias else ""})
            y = Conv <pads = [{padding}, {padding}, {padding}, {padding}]> (a, w, c)
        }}"""
    )
    feed = {"x": np.random.default_rng(3).standard_normal((1, 4, 6, 6)).astype(np.float32)}
    assert simplified(model, feed)["Conv"] == (1 if merged else 2)
