"""Layered drawings: arrows go down, nothing overlaps, places are the least squares."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.drawing.layout import _increasing, layered

GAP = 18.0


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[float], list[tuple[int, list[int]]]]:
    number = draw(st.integers(1, 24))
    widths = [
        float(w) for w in draw(st.lists(st.integers(20, 90), min_size=number, max_size=number))
    ]
    nets = []
    for source in range(number - 1):
        targets = draw(st.sets(st.integers(source + 1, number - 1), max_size=4))
        if targets:
            nets.append((source, sorted(targets)))
    return widths, nets


@given(graphs())
def test_every_arrow_goes_down(graph: tuple[list[float], list[tuple[int, list[int]]]]) -> None:
    widths, nets = graph
    found = layered(widths, nets)
    for source, targets in nets:
        assert all(found.rows[target] > found.rows[source] for target in targets)
    assert set(found.rows) == set(range(max(found.rows) + 1))


@given(graphs())
def test_boxes_and_bends_of_a_row_stand_apart(
    graph: tuple[list[float], list[tuple[int, list[int]]]],
) -> None:
    widths, nets = graph
    found = layered(widths, nets)
    in_row: dict[int, list[tuple[float, float]]] = {}
    for box, row in enumerate(found.rows):
        in_row.setdefault(row, []).append((found.places[box], widths[box]))
    for (source, _), bends in zip(nets, found.bends, strict=True):
        for place, bend in enumerate(bends):
            in_row.setdefault(found.rows[source] + 1 + place, []).append((bend, 6.0))
    for items in in_row.values():
        for (left, one), (right, other) in itertools.pairwise(sorted(items)):
            assert right - left >= (one + other) / 2 + GAP - 1e-6


@given(graphs())
def test_bends_reach_the_row_before_the_last_target(
    graph: tuple[list[float], list[tuple[int, list[int]]]],
) -> None:
    widths, nets = graph
    found = layered(widths, nets)
    for (source, targets), bends in zip(nets, found.bends, strict=True):
        last = max(found.rows[target] for target in targets)
        assert len(bends) == last - found.rows[source] - 1


def test_what_reads_nothing_stands_right_above_its_reader() -> None:
    chain = [(place, [place + 1]) for place in range(5)]
    found = layered([40.0] * 7, [*chain, (6, [5])])
    assert found.rows == (0, 1, 2, 3, 4, 5, 4)


def test_arrows_over_many_rows_have_no_bends() -> None:
    chain = [(place, [place + 1]) for place in range(100)]
    chain[0] = (0, [1, 100])
    found = layered([40.0] * 101, chain)
    assert found.far[0] == (100,)
    assert sum(map(len, found.bends)) == 0


def test_a_chain_is_a_straight_line() -> None:
    found = layered([30.0, 90.0, 50.0, 70.0], [(0, [1]), (1, [2]), (2, [3])])
    assert max(found.places) - min(found.places) < 1e-6
    assert found.width == pytest.approx(90)


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.1, 5)), min_size=1, max_size=12),
)
def test_pooled_values_are_the_isotonic_regression(pairs: list[tuple[float, float]]) -> None:
    """Against its closed form: max over j ≤ i of min over k ≥ i of the mean of j to k."""
    values, weights = [v for v, _ in pairs], [w for _, w in pairs]

    def mean(first: int, last: int) -> float:
        part = slice(first, last + 1)
        products = [v * w for v, w in zip(values[part], weights[part], strict=True)]
        return sum(products) / sum(weights[part])

    number = len(values)
    expected = [
        max(min(mean(j, k) for k in range(i, number)) for j in range(i + 1)) for i in range(number)
    ]
    assert _increasing(values, weights) == pytest.approx(expected, abs=1e-6)


def test_twenty_thousand_boxes_are_laid_out() -> None:
    generator = random.Random(0)  # noqa: S311 - for tests
    nets = [(box, [box + 1, *_further(generator, box)]) for box in range(19_999)]
    found = layered([80.0] * 20_000, nets)
    assert max(found.rows) == 19_999


def _further(generator: random.Random, box: int) -> list[int]:
    further = box + generator.randint(2, 30)
    return [further] if further < 20_000 and box % 7 == 0 else []


def test_nothing_is_laid_out_as_nothing() -> None:
    found = layered([], [])
    assert (found.rows, found.width) == ((), 0.0)
