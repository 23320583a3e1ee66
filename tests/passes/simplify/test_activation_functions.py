"""Activations that exporters take apart, and residual products."""

import numpy as np
import pytest
from simplification import build, simplified

H_SWISH = {
    "product first": "p = Mul (a, c)\n y = Div (p, six)",
    "quotient first": "p = Div (c, six)\n y = Mul (p, a)",
    "times a sixth": "p = Mul (c, a)\n y = Mul (sixth, p)",
    "sigmoid alone": "y = Div (c, six)",
}


@pytest.mark.parametrize("form", H_SWISH)
@pytest.mark.parametrize("opset", [11, 17])
def test_hard_swish_is_put_together(form: str, opset: int) -> None:
    model = build(
        f"""g (float[1, 3, 6, 6] x, float[4, 3, 3, 3] w) => (float[1, 4, 4, 4] y) {{
            three = Constant <value = float {{3}}> ()
            zero = Constant <value = float {{0}}> ()
            six = Constant <value = float {{6}}> ()
            sixth = Constant <value = float {{0.16666667}}> ()
            a = Conv (x, w)
            b = Add (a, three)
            c = Clip (b, zero, six)
            {H_SWISH[form]}
        }}""",
        opset,
    )
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    operators = simplified(model, feed)
    wanted = {"Conv": 1, "HardSigmoid": 1} | ({} if form == "sigmoid alone" else {"Mul": 1})
    assert operators == wanted


def test_clip_that_others_read_is_left() -> None:
    model = build(
        """g (float[1, 8] x) => (float[1, 8] y, float[1, 8] c) {
            three = Constant <value = float {3}> ()
            zero = Constant <value = float {0}> ()
            six = Constant <value = float {6}> ()
            b = Add (x, three)
            c = Clip (b, zero, six)
            y = Div (c, six)
        }"""
    )
    feed = {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(1, 8)}
    assert simplified(model, feed)["Clip"] == 1


def test_numbers_below_any_absolute_tolerance_are_apart() -> None:
    model = build(
        """g (float[1, 4] x) => (float[1, 4] y) {
            half = Constant <value = float {0.5e-9}> ()
            zero = Constant <value = float {0}> ()
            top = Constant <value = float {1e-9}> ()
            other = Constant <value = float {5e-9}> ()
            b = Add (x, half)
            c = Clip (b, zero, top)
            y = Div (c, other)
        }"""
    )
    feed = {"x": np.array([[-1, 1e-10, 2e-9, 4]], np.float32)}
    assert "HardSigmoid" not in simplified(model, feed)


def test_squeeze_and_excite_residual_is_one_product() -> None:
    model = build(
        """g (float[1, 4, 6, 6] x, float[4, 4, 1, 1] w) => (float[1, 4, 6, 6] y) {
            p = GlobalAveragePool (x)
            s = Conv (p, w)
            m = Mul (x, s)
            y = Add (x, m)
        }"""
    )
    feed = {"x": np.random.default_rng(4).standard_normal((1, 4, 6, 6)).astype(np.float32)}
    operators = simplified(model, feed)
    # The 1 is moved on into the bias of the Conv that computes s.
    assert operators == {"GlobalAveragePool": 1, "Conv": 1, "Mul": 1}
