"""Divisions of the budget, against objectives whose best division is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.search import Look, Split, best_split, even_split, until_each


class Objective:
    """Bytes that fall with what each pool may spend, as a power of it.

    Of Π (cᵢ + pᵢ)^(−aᵢ) under Σ pᵢ = 1 the least lies where aᵢ / (cᵢ + pᵢ) is the same for all.
    """

    def __init__(self, powers: tuple[float, ...], room: float = 0.05) -> None:
        self.powers, self.room = powers, room
        self.asked: list[Split] = []

    def cost(self, split: Split) -> float:
        """Of a division."""
        parts = np.diff([0.0, *until_each(split), 1.0])
        return float(np.prod((self.room + parts) ** -np.array(self.powers)))

    def first(self, *, sated: tuple[bool, ...] = (), idle: tuple[bool, ...] = ()) -> Look:
        """Even parts."""
        split = even_split(len(self.powers))
        no = (False,) * len(self.powers)
        return Look(split, self.cost(split), sated or no, idle or no)

    def look(self, split: Split) -> Look:
        """Of pools that could always use more."""
        self.asked.append(split)
        no = (False,) * len(self.powers)
        return Look(split, self.cost(split), no, no)

    @property
    def least(self) -> float:
        """By equal marginal rates; all parts are above zero for the powers of these tests."""
        total = (1 + self.room * len(self.powers)) / sum(self.powers)
        return float(np.prod([(a * total) ** -a for a in self.powers]))


@pytest.mark.parametrize("pools", [2, 3, 4])
def test_even_parts_are_even(pools: int) -> None:
    parts = np.diff([0.0, *until_each(even_split(pools)), 1.0])
    np.testing.assert_allclose(parts, 1 / pools)


@pytest.mark.parametrize(
    "powers", [(3.0, 1.0), (1.0, 9.0), (8.0, 4.0, 1.0), (1.0, 6.0, 1.0), (1.0, 1.0, 8.0)]
)
def test_parts_come_near_to_equal_marginal_rates(powers: tuple[float, ...]) -> None:
    objective = Objective(powers)
    found = best_split(objective.first(), objective.look, 30)
    even = objective.first().cost
    assert math.log(even / found.cost) > 0.75 * math.log(even / objective.least)


def test_parts_that_are_best_stay() -> None:
    objective = Objective((1.0, 1.0, 1.0))
    assert best_split(objective.first(), objective.look, 30).split == even_split(3)


@given(st.lists(st.floats(0.1, 10.0), min_size=60, max_size=60), st.integers(0, 12))
def test_nothing_found_costs_more_than_even_parts(costs: list[float], most: int) -> None:
    answers = itertools.cycle(costs)
    asked: list[Split] = []

    def look(split: Split) -> Look:
        assert split not in asked, "what is known is not looked at again"
        asked.append(split)
        return Look(split, next(answers), (False,) * 3, (False,) * 3)

    first = Look(even_split(3), 1.0, (False,) * 3, (False,) * 3)
    found = best_split(first, look, most)
    assert found.cost <= first.cost
    assert len(asked) <= most
    assert all(0 < s < 1 for split in asked for s in until_each(split))
    assert all(list(until_each(s)) == sorted(until_each(s)) for s in asked)


def test_pool_that_took_all_it_offers_is_given_no_more() -> None:
    objective = Objective((1.0, 1.0, 1.0))
    best_split(objective.first(sated=(True, True, True)), objective.look, 30)
    assert not objective.asked


def test_last_pool_that_took_all_is_left_no_more() -> None:
    objective = Objective((1.0, 1.0, 1.0))
    best_split(objective.first(sated=(False, False, True)), objective.look, 1)
    assert objective.asked == [(1 / 3, 1 - 0.5 * 0.25)]


def test_idle_pool_is_not_given_less() -> None:
    objective = Objective((1.0, 1.0))
    best_split(objective.first(idle=(True, False)), objective.look, 30)
    assert objective.asked == [(1 - 0.5 * 0.25,), (1 - 0.5 * 0.5,)]


def test_search_ends_where_time_does() -> None:
    objective = Objective((1.0, 9.0))
    assert best_split(objective.first(), lambda _: None, 30) == objective.first()


def test_broken_budget_is_never_taken_for_one_that_holds() -> None:
    def look(split: Split) -> Look:
        return Look(split, math.inf, (False,) * 3, (False,) * 3)

    first = Look(even_split(3), 1.0, (False,) * 3, (False,) * 3)
    assert best_split(first, look, 30) is first
