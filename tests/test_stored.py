"""Weights that are no layer: who reads them, along which axes, and which stay as they are."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    ShapeInferencePass,
)

import onnxpress
from onnxpress import model_file
from onnxpress.context import Context
from onnxpress.contract import Decision, Proposal
from onnxpress.data import random_samples, rows_looked_up
from onnxpress.einsum import Equation
from onnxpress.enforcement import offered, rewritten
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import simplify
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session
from onnxpress.selectable import selectable_sites
from onnxpress.stored import find_stored
from onnxpress.targets import load_target
from onnxpress.untreated import untreated_weights, why_no_layer

ROWS, COLUMNS = 48, 32


def model_of(inputs: str, outputs: str, body: str, **weights: tuple[int, ...]) -> ir.Model:
    """ONNX text with random float weights; `com.microsoft` and a stranger's domain are imported."""
    given = "".join(f", float{list(shape)} {name}" for name, shape in weights.items())
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "stranger" : 1]>
    g ({inputs}{given}) => ({outputs}) {{ {body} }}"""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(5)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        array = rng.standard_normal(weights[value.name or ""]).astype(np.float32)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.register_initializer(value)
    for value in model.graph.outputs:
        value.shape = None
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass(data_prop=True)(model)
    return model


def stored_by_quantize(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """The model with all weights in their weight-only form, and the sites."""
    pass_ = Quantize(form="weight_only")
    context = Context(model, load_target("cpu"))
    proposals = [p for p in offered(pass_, context).proposals if isinstance(p, Proposal)]
    decisions = [Decision(p.site, p.candidates[0]) for p in proposals]
    return rewritten(pass_, context, decisions), [p.site for p in proposals]


def checked(model: ir.Model) -> bytes:
    content = model_file.to_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return content


READERS = {
    "looked_up": "r{n} = Gather (table, ids)\n y{n} = Identity (r{n})",
    "transposed": "t{n} = Transpose <perm = [1, 0]> (table)\n y{n} = MatMul (x, t{n})",
    "gemm": "y{n} = Gemm <transB = 1> (flat, table)",
    "direct": "y{n} = MatMul (long, table)",
    "left": "y{n} = MatMul (table, tall)",
    "einsum": 'y{n} = Einsum <equation = "bsc,rc->bsr"> (x, table)',
    "added": "y{n} = Add (square, table)",
    "reshaped": "r{n} = Reshape (table, two)\n p{n} = Transpose (r{n})\n y{n} = Add (p{n}, one)",
    "sliced": "r{n} = Slice (table, zero, four)\n y{n} = Mul (r{n}, one)",
    "split": "p{n}, q{n} = Split (table)\n m{n} = Mul (p{n}, half)\n y{n} = Add (m{n}, q{n})",
}
INPUTS = (
    "int64[b, s] ids, float[b, s, 32] x, float[b, 32] flat, float[b, 48] long, float[32, k] tall,"
    " float[48, 32] square, float[24, 32] half, float one"
)


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(READERS)), min_size=1, max_size=3, unique=True))
def test_one_table_serves_all_its_readers_in_integers(readers: list[str]) -> None:
    readers = [*readers, "looked_up"]
    body = "".join(READERS[kind].format(n=n) + "\n" for n, kind in enumerate(readers))
    constants = """two = Constant <value = int64[3] {8, 6, 32}> ()
        zero = Constant <value = int64[1] {0}> ()
        four = Constant <value = int64[1] {4}> ()
        """
    outputs = ", ".join(f"float y{n}" for n in range(len(readers)))
    model = model_of(INPUTS, outputs, constants + body, table=(ROWS, COLUMNS))
    simplify(model)
    before = checked(model)
    table = model.graph.initializers["table"].const_value
    assert table is not None
    smaller, sites = stored_by_quantize(model)
    assert sites == ["table"]
    after = checked(smaller)
    assert len(after) < len(before)
    integers = [v for v in smaller.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert [value.shape for value in integers] == [ir.Shape([ROWS, COLUMNS])]
    # The same network on the rounded table answers the same: all readers see one table.
    scales = smaller.graph.initializers["table_scale"].const_value
    values = integers[0].const_value
    assert scales is not None
    assert values is not None
    rounded = (values.numpy() * scales.numpy()).astype(np.float32)
    assert np.abs(rounded - table.numpy()).max() <= scales.numpy().max() * 0.501
    plain = model.clone()
    plain.graph.initializers["table"].const_value = ir.Tensor(rounded, name="table")
    one, other = Session(plain), Session(smaller)
    for feed in random_samples(one, 2, 0, rows_looked_up(model)).feeds:
        wanted, found = one.run(feed), other.run(feed)
        for name, array in wanted.items():
            assert np.allclose(found[name], array, rtol=1e-4, atol=1e-4)


EQUATIONS = (
    "bsd,dhk->bshk",
    "bshk,hkd->bsd",
    "...d,de->...e",
    "bd,ed",
    "bij,jk->bk",
    "bhc,hkc->bhk",
    "bd,de->ebd",
    "aab,bc->ac",
    "bs,sd->bsd",
)


@pytest.mark.parametrize("left", [False, True], ids=["weight right", "weight left"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_constant_of_einsum_is_stored_in_integers(equation: str, *, left: bool) -> None:
    sizes = dict(zip("abcdehijks", (2, 3, 12, 16, 24, 12, 6, 16, 32, 16), strict=True))
    terms, arrow, out = equation.partition("->")
    first, second = terms.split(",")
    shapes = [[sizes[x] for x in term.replace("...", "ab")] for term in (first, second)]
    text = f"{second},{first}{arrow}{out}" if left else equation
    order = "w, x" if left else "x, w"
    model = model_of(
        f"float[{', '.join(map(str, shapes[0]))}] x",
        "float y",
        f'y = Einsum <equation = "{text}"> ({order})',
        w=tuple(shapes[1]),
    )
    smaller, sites = stored_by_quantize(model)
    content = checked(smaller)
    if np.prod(shapes[1]) * 4 < 1024:
        assert sites == []
        return
    assert sites == ["w"]
    assert len(content) < len(checked(model))
    feed = random_samples(Session(model), 1, 0).feeds[0]
    wanted = onnx.reference.ReferenceEvaluator(onnx.load_from_string(checked(model)))
    inputs: dict[str, np.ndarray] = dict(feed)
    (reference,) = wanted.run(None, inputs)
    found = Session(smaller).run(feed)["y"]
    noise = np.square(np.subtract(found, reference, dtype=np.float64)).mean()
    # Eight bits of normal numbers are over 30 dB.
    assert noise < 1e-3 * np.square(reference, dtype=np.float64).mean()


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


def test_made_up_words_come_from_the_whole_table() -> None:
    model = model_of(
        "int64[b, s] ids, int64[b, s] kinds, int64[b, s] mask",
        "float[b, s, 8] y",
        """a = Gather (table, ids)
        u = Cast <to = 6> (kinds)
        b = Gather (small, u)
        m = Cast <to = 1> (mask)
        c = Add (a, b)
        n = ReduceSum (m)
        y = Mul (c, n)""",
        table=(48, 8),
        small=(3, 8),
    )
    assert rows_looked_up(model) == {"ids": 48, "kinds": 3}
    feeds = random_samples(Session(model), 4, 0, rows_looked_up(model)).feeds
    assert max(feed["ids"].max() for feed in feeds) > 30
    assert {int(v) for feed in feeds for v in feed["kinds"].ravel()} == {0, 1, 2}
    assert max(feed["mask"].max() for feed in feeds) == 1


def test_words_that_the_model_does_not_take_are_not_made_up() -> None:
    model = model_of(
        "int64[4] ids",
        "float[4, 8] y",
        "a = Gather (table, ids)\n i = Neg (ids)\n b = Gather (other, i)\n y = Add (a, b)",
        table=(48, 8),
        other=(2, 8),
    )
    feeds = random_samples(Session(model), 4, 0, rows_looked_up(model)).feeds
    assert max(feed["ids"].max() for feed in feeds) <= 1


WHOLES: dict[str, tuple[str, str, dict[str, tuple[int, ...]]]] = {
    "Attention": (
        "float[b, s, 32] x",
        """a = com.microsoft.Attention <num_heads = 4> (x, w, c)
        y = com.microsoft.FusedMatMul <transB = 1> (a, v)""",
        {"w": (32, 96), "c": (96,), "v": (32, 32)},
    ),
    "FusedConv": (
        "float[b, 4, 9, 9] x",
        'y = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w)',
        {"w": (32, 4, 3, 3)},
    ),
    "EmbedLayerNormalization": (
        "int32[b, s] ids",
        """e, m = com.microsoft.EmbedLayerNormalization (ids, , w, v, , g, c)
        r = Flatten <axis = 2> (e)
        y = com.microsoft.FusedGemm <activation = "Tanh"> (r, u)""",
        {"w": (96, 32), "v": (64, 32), "g": (32,), "c": (32,), "u": (32, 48)},
    ),
    "Scan": (
        "float[t, 1, 32] x",
        """start = Constant <value = float[1] {0.0}> ()
        shape = Constant <value = int64[2] {1, 32}> ()
        zeros = Expand (start, shape)
        last, y = Scan <num_scan_inputs = 1, body = step (float[1, 32] s, float[1, 32] p)
            => (float[1, 32] next, float[1, 32] out) {
            h = Einsum <equation = "bd,ed->be"> (s, w)
            turned = Transpose (v)
            i = Einsum <equation = "bd,de->be"> (p, turned)
            sum = Add (h, i)
            next = Tanh (sum)
            out = Identity (next)
        }> (zeros, x)""",
        {"w": (32, 32), "v": (32, 32)},
    ),
}


@pytest.mark.parametrize("name", WHOLES)
def test_whole_parts_of_networks_answer_alike_with_weights_in_integers(name: str) -> None:
    inputs, body, weights = WHOLES[name]
    model = model_of(inputs, "float y", body, **weights)
    for weight, shape in weights.items():
        value = model.graph.initializers[weight]
        array = np.random.default_rng(len(shape)).standard_normal(shape) / np.sqrt(shape[-1])
        value.const_value = ir.Tensor(array.astype(np.float32), name=weight)
    smaller, sites = stored_by_quantize(model)
    assert set(sites) == {weight for weight, shape in weights.items() if len(shape) > 1}
    assert len(model_file.to_bytes(smaller)) < 0.6 * len(model_file.to_bytes(model))
    one, other = Session(model), Session(smaller)
    for feed in random_samples(one, 2, 0, rows_looked_up(model)).feeds:
        wanted, found = (np.asarray(session.run(feed)["y"], np.float64) for session in (one, other))
        assert np.square(found - wanted).mean() < 1e-3 * np.square(wanted).mean()


def _tied_network(folder: Path) -> Path:
    model = model_of(
        "int64[b, s] ids",
        "float[b, s, 400] y",
        "r = Gather (table, ids)\n t = Transpose <perm = [1, 0]> (table)\n y = MatMul (r, t)",
        table=(400, 32),
    )
    list(model.graph)[-1].name = "head"
    model_file.save(model, folder / "tied.onnx")
    return folder / "tied.onnx"


def test_a_recipe_repeats_a_stored_weight(tmp_path: Path) -> None:
    path = _tied_network(tmp_path)
    first = onnxpress.optimize(path)
    assert [d.site for stage in first.stages for d in stage.decisions if stage.pass_.stage.loses]
    again = onnxpress.optimize(path, recipe=Recipe.from_toml(first.recipe.to_toml(), "recipe"))
    assert model_file.to_bytes(again.model) == model_file.to_bytes(first.model)
    assert len(model_file.to_bytes(first.model)) < 0.4 * path.stat().st_size


def test_a_reader_that_is_kept_keeps_the_weight(tmp_path: Path) -> None:
    kept = onnxpress.optimize(_tied_network(tmp_path), keep=["head"])
    assert kept.model.graph.initializers["table"].dtype == ir.DataType.FLOAT
