"""Predicted latency: sums of rows by hand, rows of other sizes, estimates, corrections."""

import dataclasses

import pytest
from costs_of import MACHINE, keys_of, mlp, model_of, row_of, table_of

from onnxpress.costs import CostTable, ModelTime, NodeKey, model_digest, predict
from onnxpress.costs.rates import fitted, shipped


def test_a_model_of_known_nodes_takes_the_sum_of_their_rows() -> None:
    keys = keys_of(mlp())
    found = predict(keys, table_of(keys, [40.0, 3.0, 7.0]))
    assert found.ms == pytest.approx(0.050)
    assert found.shares == {"measured": 1.0, "scaled": 0.0, "estimate": 0.0}
    assert found.nodes == pytest.approx({"MatMul0": 0.040, "Relu1": 0.003, "MatMul2": 0.007})
    assert found.known is None


def activation(width: int) -> NodeKey:
    """A node that is all of its model."""
    text = f"g (float[1, {width}] x) => (float[1, {width}] y) {{ y = Erf(x) }}"
    (key,) = keys_of(model_of(text))
    return key


def test_a_row_of_another_size_is_scaled_by_rated_times_to_the_usual_slope() -> None:
    wide, narrow = activation(1 << 20), activation(1 << 16)
    rates = shipped(1)
    found = predict([narrow], table_of([wide], [700.0]))
    ratio = rates.microseconds(narrow) / rates.microseconds(wide)
    assert found.ms * 1e3 == pytest.approx(700.0 * ratio**0.8)
    assert found.shares["scaled"] == pytest.approx(1.0)


def test_rows_of_several_sizes_say_how_time_grows() -> None:
    rates = shipped(1)
    known = [activation(1 << power) for power in range(16, 23)]
    took = [5.0 * rates.microseconds(key) ** 0.6 for key in known]
    between = activation(3 << 18)
    found = predict([between], table_of(known, took))
    assert found.ms * 1e3 == pytest.approx(5.0 * rates.microseconds(between) ** 0.6, rel=0.02)


def test_a_near_row_in_a_context_that_is_less_alike_counts_for_more_than_a_far_one() -> None:
    far, near, wanted = activation(1 << 24), activation(1 << 17), activation(1 << 16)
    other = dataclasses.replace(near, contexts=(*wanted.contexts[:3], "another", "another"))
    rates = shipped(1)
    took = [rates.microseconds(far), 3.0 * rates.microseconds(other)]
    found = predict([wanted], table_of([far, other], took))
    assert found.ms * 1e3 > 2.0 * rates.microseconds(wanted)


def test_without_a_table_rates_alone_are_an_estimate() -> None:
    keys = keys_of(mlp())
    found = predict(keys, CostTable(MACHINE))
    assert found.ms * 1e3 == pytest.approx(sum(shipped(1).microseconds(key) for key in keys))
    assert found.shares["estimate"] == pytest.approx(1.0)


def test_an_operator_that_nobody_knows_is_estimated_by_its_bytes() -> None:
    model = model_of("g (float[8, 1000] x) => (float[8, 1000] y) { y = not.ours.Fancy(x) }")
    model.graph.node(0).domain = "not.ours"
    (key,) = keys_of(model)
    assert (key.multiply_adds, key.nbytes) == (0, 2 * 8 * 1000 * 4)
    rates = shipped(1)
    expected = rates.node + key.nbytes / rates.moved
    assert predict([key], CostTable(MACHINE)).ms * 1e3 == pytest.approx(expected)


def test_the_sum_is_corrected_as_the_model_that_it_was_made_of() -> None:
    before, after = keys_of(mlp(128)), keys_of(mlp(64))
    table = table_of([*before, *after], [40.0, 3.0, 7.0, 20.0, 2.0, 4.0])
    # Of the original, what lies between its nodes is a tenth; of another model a half.
    table.models[model_digest(before)] = ModelTime(55.0, 50.0, {})
    table.models["another"] = ModelTime(150.0, 100.0, {})
    like = predict(after, table, like=model_digest(before))
    assert like.ms == pytest.approx(0.026 * 1.1)
    assert predict(after, table).ms == pytest.approx(0.026 * (1.1 + 1.5) / 2)
    assert predict(before, table).known == pytest.approx(0.055)


def test_a_fused_activation_takes_none_where_the_table_says_so() -> None:
    keys = keys_of(mlp(128))
    found = predict(keys_of(mlp(96)), table_of(keys, [40.0, 0.0, 7.0]))
    assert found.nodes["Relu1"] == 0.0


def test_rows_lie_on_a_grid_that_noise_does_not_leave() -> None:
    (first, *_) = keys_of(mlp())
    one, other = CostTable(MACHINE), CostTable(MACHINE)
    one.add([row_of(first, 100.0)])
    other.add([row_of(first, 100.6)])
    assert one.rows == other.rows
    (row,) = one.rows.values()
    assert row.microseconds == pytest.approx(100.0, rel=0.011)


def test_a_row_that_is_there_stays_and_rows_of_one_key_count_as_their_median() -> None:
    (first, second, _) = keys_of(mlp())
    table = CostTable(MACHINE)
    table.add([row_of(first, 64.0), row_of(first, 32.0), row_of(first, 1024.0)])
    assert table.rows[row_of(first, 0.0).key].microseconds == 64.0
    table.add([row_of(first, 8.0), row_of(second, 8.0)])
    assert [row.microseconds for row in table.rows.values()] == [64.0, 8.0]


def test_rates_follow_rows_where_there_are_enough() -> None:
    first = dataclasses.replace(keys_of(mlp(4096, "512"))[0], nbytes=1000)
    rows = [
        dataclasses.replace(row_of(first, 2.0 + first.multiply_adds / 1e4), sizes=str(number))
        for number in range(8)
    ]
    small = dataclasses.replace(row_of(first, 2.0), multiply_adds=0, nbytes=8)
    rows += [dataclasses.replace(small, sizes=f"small {number}") for number in range(8)]
    found = fitted(rows, shipped(1))
    assert found.products == pytest.approx(1e4)
    assert found.node == pytest.approx(2.0)
    assert found.integers == shipped(1).integers
    assert fitted(rows[:7], shipped(1)) == shipped(1)


def test_rows_that_neither_move_nor_compute_say_nothing_of_products() -> None:
    (key,) = keys_of(
        model_of("g (float[1, 8] x, int64[2] s) => (float[a, b] y) { y = Reshape(x, s) }")
    )
    reshape = dataclasses.replace(row_of(key, 0.3), multiply_adds=0, nbytes=0)
    rows = [dataclasses.replace(reshape, sizes=f"fast {number}") for number in range(40)]
    rows += [
        dataclasses.replace(reshape, sizes=f"slow {number}", microseconds=9.0)
        for number in range(9)
    ]
    found = fitted(rows, shipped(1))
    assert (found.products, found.integers) == (shipped(1).products, shipped(1).integers)
