"""Tables that are looked up, and what follows them row by row."""

import numpy as np
import pytest
from simplification import SINCE_1_23, build, simplified

ONE_HOT = {
    "compared": "v = Unsqueeze (x, last)\n e = Equal (v, classes)",
    "turned round": "v = Unsqueeze (x, last)\n e = Equal (classes, v)",
    "expanded": """v = Unsqueeze (x, last)\n s = Shape (x)\n t = Concat <axis = 0> (s, five)
        u = Expand (v, t)\n e = Equal (u, classes)""",
    "OneHot": "",
}


@SINCE_1_23
@pytest.mark.parametrize("form", ONE_HOT)
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_one_hot_times_a_table_is_looked_up(form: str, kind: str) -> None:
    """Indices outside have no row; OneHot counts negative ones from the end."""
    steps = ONE_HOT[form] + "\n h = Cast <to = 1> (e)"
    if form == "OneHot":
        steps = "depth = Constant <value = int64 {5}> ()\n"
        steps += "h = OneHot <axis = -1> (x, depth, values)"
    classes = ", ".join(str(n) for n in range(5))
    model = build(
        f"""g ({kind}[n, 3] x, float[5, 4] w) => (float[n, 3, 4] y) {{
            last = Constant <value = int64[1] {{2}}> ()
            five = Constant <value = int64[1] {{5}}> ()
            values = Constant <value = float[2] {{0, 1}}> ()
            classes = Constant <value = {kind}[1, 1, 5] {{{classes}}}> ()
            {steps}
            y = MatMul (h, w)
        }}"""
    )
    feed = {"x": np.asarray([[0, 4, 2], [-1, 5, 3], [-6, 100, 1]], kind)}
    found = simplified(model, feed)
    assert found["Gather"] == 1
    assert not found["MatMul"] + found["Equal"] + found["OneHot"]


def test_other_comparisons_are_no_lookup() -> None:
    model = build(
        """g (int64[n, 1] x, float[3, 4] w) => (float[n, 4] y) {
            classes = Constant <value = int64[1, 3] {0, 2, 1}> ()
            e = Equal (x, classes)
            h = Cast <to = 1> (e)
            y = MatMul (h, w)
        }"""
    )
    assert simplified(model, {"x": np.asarray([[1], [2], [7]])})["MatMul"] == 1


def test_table_takes_up_what_follows_element_by_element() -> None:
    model = build(
        """g (int64[n, 3] x, float[5, 4] w, float[1, 1, 4] b) => (float[n, 3, 4] y) {
            half = Constant <value = float {0.5}> ()
            r = Gather (w, x)
            a = Add (r, b)
            t = Tanh (a)
            m = Mul (half, t)
            y = Mul (a, m)
        }"""
    )
    assert simplified(model, {"x": np.asarray([[0, 4, 2], [1, 1, 3]])}) == {"Gather": 1}


def test_table_stays_where_two_tensors_leave() -> None:
    model = build(
        """g (int64[n] x, float[5, 4] w) => (float[n, 4] y, float[n, 4] z) {
            y = Gather (w, x)
            z = Tanh (y)
        }"""
    )
    assert simplified(model, {"x": np.asarray([0, 4, 2])}) == {"Gather": 1, "Tanh": 1}
