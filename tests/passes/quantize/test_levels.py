"""Codes below 8 bits that stand for levels of a table: logarithmic, sums of powers, codebooks."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from low_bit_models import (
    KINDS,
    WRONG_IN_THE_REFERENCE,
    codes_of,
    evaluated,
    initializers,
    model_with,
    stored,
)
from weights_anywhere import checked, model_of

from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Proposal, RecipeError, Skip
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.codebooks import kmeans, refitted_levels
from onnxpress.passes.quantize.levels import (
    Kind,
    LevelGrid,
    log_levels,
    nearest_index,
    power_sum_levels,
)
from onnxpress.passes.simplify import simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.untreated import untreated_weights

LOOKED_UP = tuple(kind for kind in get_args(Kind) if kind != "uniform")
FORMS = st.tuples(
    st.sampled_from(LOOKED_UP), st.integers(2, 6), st.sampled_from([0, 8, 32]), st.booleans()
)


def decoded(model: ir.Model, shape: tuple[int, ...], bits: int) -> npt.NDArray[np.float64]:
    """The weight that codes stand for, by NumPy alone."""
    arrays = initializers(model)
    scale = arrays["w_scale"].astype(np.float64)
    steps = scale * arrays.get("w_steps", np.ones(1))
    first, _, _, *outputs = steps.shape
    codes = codes_of(arrays, f"w_{bits}_bits", bits)
    codes = codes[: len(codes) // steps.size * steps.size].reshape(
        first, steps.shape[1], -1, *outputs
    )
    numbers = arrays["w_levels"].astype(np.float64)[codes + arrays.get("w_first", 0)]
    columns = int(np.prod(shape)) // (first * int(np.prod(outputs)))
    whole = (numbers * steps).reshape(first, -1, *outputs)
    return np.asarray(whole[:, :columns].reshape(shape))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(form=FORMS)
def test_answers_are_those_of_the_levels_that_the_codes_stand_for(
    kind: str, form: tuple[str, int, int, bool]
) -> None:
    levels, bits, block_size, shifts = form
    model = model_with(kind)
    before = initializers(model)["w"]
    smaller = stored(
        model, bits, block_size, symmetric=True, kind=levels, power_of_two_scales=shifts
    )
    found = decoded(smaller, before.shape, bits)
    plain = model.clone()
    plain.graph.initializers["w"].const_value = ir.Tensor(found.astype(np.float32), name="w")
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    wanted = np.asarray(Session(plain).run(feed)["y"], np.float32)
    answers = [np.asarray(Session(smaller).run(feed)["y"], np.float32)]
    if kind not in WRONG_IN_THE_REFERENCE:
        answers.append(evaluated(smaller, feed))
    for answer in answers:
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert np.square(found - before).sum() < 0.6 * np.square(before).sum()


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize("levels", LOOKED_UP)
@pytest.mark.parametrize("bits", [2, 4, 5])
def test_no_other_level_of_its_table_is_nearer(levels: str, bits: int, *, shifts: bool) -> None:
    model = model_with("turned")
    before = initializers(model)["w"].astype(np.float64)
    smaller = stored(model, bits, 0, symmetric=True, kind=levels, power_of_two_scales=shifts)
    arrays = initializers(smaller)
    tables = arrays["w_levels"].astype(np.float64).reshape(-1, 2**bits)
    own = np.broadcast_to(tables, (24, 2**bits)) * arrays["w_scale"].reshape(24, 1)
    least = np.abs(own[:, None, :] - before[:, :, None]).min(axis=2)
    found = decoded(smaller, before.shape, bits)
    assert (np.abs(found - before) <= least + 1e-6).all()


@pytest.mark.parametrize("bits", range(2, 8))
def test_levels_of_shifts_are_powers_of_two_or_sums_of_two(bits: int) -> None:
    model = model_with("right")
    for levels, most in (("log", 1), ("power_sums", 2)):
        smaller = stored(model, bits, 8, symmetric=True, kind=levels, power_of_two_scales=True)
        found = np.abs(decoded(smaller, (37, 24), bits))
        # The significands of float64 as whole numbers: so many ones in binary.
        significands = np.ldexp(np.frexp(found)[0], 40).astype(np.int64)
        assert np.isin(np.bitwise_count(significands), range(most + 1)).all()
        # Of 2 bits the sums are 1 and 2.
        assert bits == 2 or (np.bitwise_count(significands) == most).any()


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("base", [1.1, 2.0, 3.7])
def test_tables_rise_hold_zero_and_begin_with_the_largest(bits: int, base: float) -> None:
    for (table,) in (log_levels(bits, base), power_sum_levels(bits)):
        assert len(table) == 2**bits
        assert (np.diff(table) > 0).all()
        assert (table == 0).sum() == 1
        assert np.abs(table).max() == -table[0]
    ratios = log_levels(bits, base)[0][: 2 ** (bits - 1)]
    np.testing.assert_allclose(ratios[:-1] / ratios[1:], base, rtol=1e-5)


@given(
    values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30),
    bits=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_tables_of_rows_are_searched_as_one_is(values: list[float], bits: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(size=(3, 2**bits)).astype(np.float32)
    tables = np.sort(drawn, axis=1)
    rows = np.broadcast_to(np.asarray(values, np.float32), (3, len(values)))
    together = nearest_index(rows, tables, np.arange(3)[:, None])
    for row in range(3):
        alone = nearest_index(np.asarray(rows[row]), tables[row : row + 1])
        errors = np.abs(tables[row][:, None] - rows[row])
        np.testing.assert_array_equal(together[row], alone)
        np.testing.assert_allclose(errors.min(axis=0), errors[alone, np.arange(len(values))])


def test_grid_of_levels_gives_numbers_of_its_tables_times_steps() -> None:
    rng = np.random.default_rng(0)
    tables = np.sort(rng.normal(size=(4, 8)), axis=1).astype(np.float32)
    own = np.arange(4).reshape(2, 2, 1)
    steps = rng.choice([-2.0, 0.5], size=(2, 2, 5)).astype(np.float32)
    grid = LevelGrid(tables, own, steps)
    values = rng.normal(size=(2, 2, 5))
    found = grid.nearest(values)
    every = tables[own[:, :, 0]][:, :, None] * steps[..., None]
    np.testing.assert_allclose(np.abs(every - found[..., None]).min(axis=3), 0, atol=1e-7)
    least = np.abs(every - values[..., None]).min(axis=3)
    np.testing.assert_allclose(np.abs(found - values), least, atol=1e-6)
    order = np.asarray([4, 2, 0, 1, 3])
    rows = np.broadcast_to(order[:, None], (2, 5, 1))
    turned = grid.sorted(rows).nearest(values.swapaxes(1, 2)[:, order])
    np.testing.assert_array_equal(turned, found.swapaxes(1, 2)[:, order])


@settings(deadline=None)
@given(
    seed=st.integers(0, 200),
    tables=st.integers(1, 3),
    k=st.sampled_from([2, 4, 8]),
)
def test_kmeans_ends_where_each_level_is_the_mean_of_what_is_nearest(
    seed: int, tables: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_t(3, size=(tables, 300)) / 4, -2, 2)
    weights = rng.uniform(0, 1, x.shape)
    start = np.broadcast_to(np.linspace(-1, 1, k), (tables, k))
    found = kmeans(x, weights, start, zero=True)
    assert (np.diff(found, axis=1) >= 0).all()
    assert (found == 0).any(axis=1).all()

    def lost(levels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        nearest = np.square(x[:, :, None] - levels[:, None]).min(axis=2)
        return np.asarray((weights * nearest).sum(axis=1))

    nearest_zero = np.abs(start).argmin(axis=1)[:, None]
    moved = start.copy()
    np.put_along_axis(moved, nearest_zero, 0.0, axis=1)
    assert (lost(found) <= lost(moved) + 1e-6).all()
    for table in range(tables):
        which = np.abs(x[table][:, None] - found[table]).argmin(axis=1)
        for level in range(k):
            own = which == level
            if own.any() and found[table, level] != 0:
                mean = np.average(x[table, own], weights=weights[table, own])
                assert found[table, level] == pytest.approx(mean, abs=2e-2)


def test_kmeans_of_constants_and_of_nothing_that_counts_stays_finite() -> None:
    for x in (np.full((2, 50), 0.25), np.zeros((2, 50))):
        for weights in (np.ones((2, 50)), np.zeros((2, 50))):
            found = kmeans(x, weights, np.broadcast_to(np.linspace(-1, 1, 8), (2, 8)), zero=True)
            assert np.isfinite(found).all()
            if weights.any():
                np.testing.assert_allclose(np.abs(found - x[:, :1]).min(axis=1), 0, atol=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 100), alone=st.booleans())
def test_refitted_levels_err_less_at_the_output_than_those_they_come_of(
    seed: int, *, alone: bool
) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    gram = (inputs.T @ inputs)[None] / 200
    w = rng.normal(size=(1, 6, 12))
    own = np.zeros((1, 6, 1), np.int64) if alone else np.arange(6).reshape(1, 6, 1)
    tables = np.tile(np.asarray([-1.5, -0.5, 0.0, 1.0]).astype(np.float32), (1 if alone else 6, 1))
    steps = rng.choice([0.5, 1.0, -1.0], size=w.shape)
    codes = nearest_index(w / steps, tables, own).astype(np.uint8)
    found = refitted_levels(codes, steps, w, gram, tables, own)

    def lost(levels: npt.NDArray[np.float32]) -> float:
        delta = levels[own, codes] * steps - w
        return float(np.einsum("goi,gij,goj->", delta, gram, delta))

    assert lost(found) <= lost(tables) * (1 + 1e-6)


@pytest.mark.parametrize("levels", LOOKED_UP)
@pytest.mark.parametrize("block_size", [0, 16])
def test_zero_rows_huge_outliers_and_constant_rows_keep_their_neighbours(
    levels: str, block_size: int
) -> None:
    model = model_with("turned")
    w = np.random.default_rng(2).standard_normal((24, 37)).astype(np.float32)
    w[0], w[1] = 0, 0.37
    w[2, 5], w[3] = 3e38, w[3] * 1e-40
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    found = decoded(stored(model, 4, block_size, symmetric=True, kind=levels), w.shape, 4)
    assert np.isfinite(found).all()
    assert not found[0].any()
    np.testing.assert_allclose(found[1], 0.37, rtol=0.02)
    assert found[2, 5] == pytest.approx(3e38, rel=0.02)
    assert np.abs(found[3]).max() < 1e-30
    errors = np.square(found[4:] - w[4:]).sum() / np.square(w[4:]).sum()
    # A table of all rows serves the one that has nearly all of the power.
    assert errors < 0.1


@pytest.mark.parametrize("levels", LOOKED_UP)
def test_zeros_that_were_made_on_purpose_stay(levels: str) -> None:
    model = model_with("turned")
    w = np.random.default_rng(2).standard_normal((24, 37)).astype(np.float32)
    w[np.abs(w) < 0.7] = 0
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    found = decoded(stored(model, 4, 16, symmetric=True, kind=levels), w.shape, 4)
    assert not found[w == 0].any()


def proposal_of(pass_: Quantize, model: ir.Model) -> Proposal:
    offer = offered(pass_, Context(model, load_target("cpu")))
    found = next(iter([*offer.proposals, *offer.left]))
    assert isinstance(found, Proposal)
    return found


def with_weight(array: npt.NDArray[np.floating]) -> ir.Model:
    model = model_of("float[b, 256] x", "float y", "y = MatMul (x, w)", w=(256, 128))
    model.graph.initializers["w"].const_value = ir.Tensor(array.astype(np.float32), name="w")
    return model


@pytest.mark.parametrize(
    ("distribution", "kinds", "chosen"),
    [
        ("uniform", ("uniform", "log", "power_sums"), ""),
        ("normal", ("uniform", "codebook", "log"), "_codebook"),
        ("powers", ("uniform", "power_sums", "log"), "_log"),
    ],
)
def test_each_weight_gets_the_levels_that_fit_its_distribution(
    distribution: str, kinds: tuple[Kind, ...], chosen: str
) -> None:
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=(256, 128))
    arrays = {
        "uniform": rng.uniform(-1, 1, (256, 128)),
        "normal": rng.normal(size=(256, 128)),
        "powers": signs * np.exp2(rng.integers(-7, 1, (256, 128))),
    }
    pass_ = Quantize(form="weight_only", weight_bits=(4,), block_size=0, levels=kinds)
    candidate = proposal_of(pass_, with_weight(arrays[distribution])).candidates[0]
    assert candidate.family == f"weight_only_4_bit{chosen}"


def test_logarithmic_levels_beat_equal_steps_on_heavy_tails_and_lose_on_none() -> None:
    rng = np.random.default_rng(0)
    errors = {}
    for name, array in (
        ("heavy", rng.standard_t(3, (256, 128))),
        ("none", rng.uniform(-1, 1, (256, 128))),
    ):
        kinds: tuple[Kind, ...] = ("uniform", "log")
        for levels in kinds:
            pass_ = Quantize(form="weight_only", weight_bits=(4,), block_size=0, levels=(levels,))
            candidate = proposal_of(pass_, with_weight(array)).candidates[0]
            errors[name, levels] = candidate.predicted_error
    assert errors["heavy", "log"] < errors["heavy", "uniform"] / 1.5
    assert errors["none", "uniform"] < errors["none", "log"]


@pytest.mark.parametrize("levels", LOOKED_UP)
def test_what_is_promised_to_be_saved_is_saved_and_the_bytes_are_the_same_again(
    levels: Any,
) -> None:
    model = with_weight(np.random.default_rng(1).normal(size=(256, 128)))
    pass_ = Quantize(form="weight_only", weight_bits=(3,), levels=(levels,))
    found = proposal_of(pass_, model).candidates[0]
    files = []
    for _ in range(2):
        context = Context(model, load_target("cpu"))
        files.append(model_file.to_bytes(rewritten(pass_, context, [Decision("w", found)])))
    assert files[0] == files[1]
    saved = len(model_file.to_bytes(model)) - len(files[0])
    assert found.saved_bytes <= saved <= found.saved_bytes + 1500


@pytest.mark.parametrize("levels", ["codebook", "row_codebook", "log"])
def test_samples_are_worth_three_decibels_over_rounding_to_the_nearest_level(levels: Kind) -> None:
    rng = np.random.default_rng(3)
    model = model_of("float[b, 64] x", "float y", "y = MatMul (x, w)", w=(64, 64))
    mixing = rng.standard_normal((8, 64)) * 3
    x = rng.standard_normal((512, 8)) @ mixing + rng.standard_normal((512, 64)) * 0.3
    x = x.astype(np.float32)
    samples = random_samples(Session(model), 1, 0, model)
    samples = replace(samples, feeds=tuple({"x": x[at : at + 1]} for at in range(512)))
    pool = Pool((Quantize(form="weight_only", weight_bits=(4,), levels=(levels,)),))
    wanted = np.asarray(Session(model).run({"x": x[256:]})["y"], np.float64)
    decibels = []
    for seen in (samples.take(range(256)), None):
        context = pool.context(model, load_target("cpu"), seen)
        candidate = Candidate({}, family=f"weight_only_4_bit_{levels}")
        session = Session(pool.rewrite(context, [Decision("w", candidate)]))
        error = np.asarray(session.run({"x": x[256:]})["y"], np.float64) - wanted
        decibels.append(10 * np.log10(np.square(wanted).sum() / np.square(error).sum()))
    assert decibels[0] >= decibels[1] + 3


@pytest.mark.parametrize("levels", LOOKED_UP)
def test_simplify_leaves_levels_and_inspect_says_in_how_many_bits(levels: str) -> None:
    model = stored(with_weight(np.ones((256, 128))), 3, 32, symmetric=True, kind=levels)
    assert untreated_weights(model) == {"in integers of 3 bits already": {"MatMul": 1}}
    size = len(model_file.to_bytes(model))
    simplify(model)
    assert len(model_file.to_bytes(model)) <= size + 700
    checked(model)
    again = offered(Quantize(weight_bits=(4,)), Context(model, load_target("cpu")))
    assert not again.proposals
    assert all(isinstance(item, Skip) for item in again.left)


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"weight_bits": (4,), "levels": ("sine",)}, "levels is .*one of uniform, codebook"),
        ({"weight_bits": (8,), "levels": ("log",)}, "levels is for .*weight_bits below 8"),
        ({"weight_bits": (8,), "power_of_two_scales": True}, "power_of_two_scales is for"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given_settings: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Quantize(**given_settings)


def test_levels_without_bits_mean_four_beside_eight_for_every_goal() -> None:
    assert Quantize(levels=("log",)).aimed_at("balanced").weight_bits == (4, 8)


def test_decision_whose_scales_are_neither_is_refused() -> None:
    candidate = Candidate({"power_of_two_scales": 2}, family="weight_only_4_bit_log")
    context = Context(with_weight(np.ones((256, 128))), load_target("cpu"))
    with pytest.raises(RecipeError, match="power_of_two_scales = 2"):
        rewritten(Quantize(), context, [Decision("w", candidate)])
