"""Weights of any reader in 8 bits: one table for all, and answers as near as eight bits are."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_anywhere import checked, model_of, stored_by_quantize

import onnxpress
from onnxpress import model_file
from onnxpress.data import random_samples
from onnxpress.passes.simplify import simplify
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session

ROWS, COLUMNS = 48, 32
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
    for feed in random_samples(one, 2, 0, model).feeds:
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
    for feed in random_samples(one, 2, 0, model).feeds:
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
