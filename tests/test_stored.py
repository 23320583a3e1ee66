"""Weights that are no layer: who reads them, along which axes, and which stay as they are."""

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weights_anywhere import model_of, stored_by_quantize

from onnxpress.einsum import Equation
from onnxpress.selectable import selectable_sites
from onnxpress.stored import find_stored
from onnxpress.untreated import untreated_weights, why_no_layer


@given(data=st.data())
def test_axes_that_einsum_keeps_are_those_of_the_result(data: st.DataObject) -> None:
    letters = st.text("abcd", min_size=1, max_size=4)
    one, other = data.draw(letters), data.draw(letters)
    shared = sorted(set(one) | set(other))
    out = "".join(data.draw(st.permutations(shared))[: data.draw(st.integers(0, len(shared)))])
    node = ir.Node(
        "",
        "Einsum",
        [ir.Value(name="x"), ir.Value(name="w")],
        [ir.AttrString("equation", f"{one}, {other} -> {out}")],
    )
    equation = Equation.of(node)
    assert equation is not None
    kept = equation.kept_axes(1, len(other))
    assert kept == frozenset(axis for axis, label in enumerate(other) if label in out)
    assert equation.kept_axes(1, len(other) + 1) is None


@pytest.mark.parametrize(
    ("body", "axes"),
    [
        ("y = MatMul (x, w)", {1}),
        ("t = Transpose (w)\n y = MatMul (z, t)", {0}),
        ("r = Reshape (w, four)\n y = Einsum <equation = 'btk,khqt->btq'> (v, r)", {1}),
        ("u = Unsqueeze (w, zero)\n y = MatMul (x, u)", {1}),
        ("y = Gather (w, ids)", {0}),
        ("y = Gather <axis = 1> (w, ids)", {1}),
        ("y = com.microsoft.FusedMatMul <transB = 1> (z, w)", {0}),
        ("y = com.microsoft.Attention <num_heads = 2> (x, w, bias)", {1}),
    ],
)
def test_scales_run_along_what_the_readers_keep(body: str, axes: set[int]) -> None:
    model = model_of(
        "float[1, 3, 32] x, float[2, 36] z, float[b, t, 8] v, int64[i] ids, float[36] bias",
        "float y",
        f"four = Constant <value = int64[4] {{8, 4, 6, 6}}> ()\n"
        f"zero = Constant <value = int64[1] {{0}}> ()\n{body}".replace("'", '"'),
        w=(32, 36),
    )
    found = {item.name: item for item in find_stored(model, ())}
    assert found["w"].axes == (frozenset(axes),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = stranger.Mix (x, w)", "custom operator Mix"),
        ("k = ArgMax (w)\n f = Cast <to = 1> (k)\n y = Add (x, f)", "may jump"),
        ("y = Div (x, w)", "may jump"),
        ("t = Transpose (w)\n s = Identity (t)\n y = MatMul (x, s)", "output of the graph"),
        ("q = QuantizeLinear <axis = 1> (x, w, p)\n y = Cast <to = 1> (q)", "integers of"),
    ],
)
def test_numbers_that_have_to_stay_are_named_with_the_reason(body: str, reason: str) -> None:
    outputs = "float y, float[32, 32] t" if "output" in reason else "float y"
    inputs = "float[32, 32] x, uint8[32, 32] p"
    model = model_of(inputs, outputs, body, w=(32, 32))
    (found,) = find_stored(model)
    assert found.refusal is not None
    assert reason in found.refusal
    assert any(reason in key for key in untreated_weights(model))
    assert reason in why_no_layer(model)
    assert stored_by_quantize(model)[1] == []


def test_what_callers_may_override_is_no_constant() -> None:
    model = model_of(
        "float[2, 32] x",
        "float y",
        "y = Einsum <equation = 'ab,bc'> (x, w)".replace("'", '"'),
        w=(32, 32),
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    assert find_stored(model) == []


def test_scales_of_what_is_stored_in_integers_are_not_rounded_again() -> None:
    model = model_of(
        "float[2, 16] x",
        "float[2, 12, 24] y",
        'y = Einsum <equation = "bd,dhk->bhk"> (x, w)',
        w=(16, 12, 24),
    )
    smaller, sites = stored_by_quantize(model)
    assert sites == ["w"]
    scales = smaller.graph.initializers["w_scale"].const_value
    assert scales is not None
    assert scales.nbytes >= 1024
    assert [item.refusal is None for item in find_stored(smaller)] == [False]
    assert stored_by_quantize(smaller)[1] == []


def test_a_node_behind_a_transpose_names_the_weight() -> None:
    model = model_of(
        "int64[s] ids, float[s, 32] x",
        "float r, float[s, 48] y",
        "r = Gather (table, ids)\n t = Transpose (table)\n y = MatMul (x, t)",
        table=(48, 32),
    )
    list(model.graph)[-1].name = "head"
    (site,) = [site for site in selectable_sites(model) if site.is_layer]
    assert site.name == "table"
    assert "head" in site.aliases
    assert {"Gather", "MatMul"} <= site.operators
