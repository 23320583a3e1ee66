"""Solvers against each other and against the normal equations."""

import numpy as np
import numpy.typing as npt
import pytest

from onnxpress.passes.sparsify.compensate import Problem, alternating, columns, solve_masked
from onnxpress.passes.sparsify.masks import keep_highest
from onnxpress.reconstruction import damped_gram

Float64 = npt.NDArray[np.float64]


def problem(seed: int) -> tuple[Float64, Float64]:
    """(weights `[1, out, in]`, Gram matrix `[1, in, in]`) with inputs that are correlated."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((600, 64)) @ rng.standard_normal((64, 64))
    return rng.standard_normal((1, 32, 64)), (rows.T @ rows / len(rows))[None]


def loss(delta: Float64, gram: Float64) -> float:
    return float(np.einsum("goi,gij,goj->", delta, gram, delta))


@pytest.mark.parametrize("seed", range(5))
def test_solvers_rank_as_published(seed: int) -> None:
    """Alternating is nearer than columns and than Wanda's mask, also where that is solved for."""
    weights, gram = problem(seed)

    def choose(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        return keep_highest(scores, round(0.7 * scores.size))

    norms = np.sqrt(np.einsum("gii->gi", gram))[:, None, :]
    mask = choose(np.abs(weights) * norms)
    wanda = loss(np.where(mask, 0, weights), gram)
    solved = solve_masked(Problem.of(weights, gram), mask)
    assert not solved[~mask].any()
    best, block = alternating(Problem.of(weights, gram), choose), columns(weights, gram, choose)
    assert (best == 0).mean() == pytest.approx(0.7, abs=0.002)
    assert (block == 0).mean() == pytest.approx(0.7, abs=0.002)
    assert loss(weights - best, gram) < 0.5 * loss(weights - block, gram)
    assert loss(weights - best, gram) < loss(weights - solved, gram) < wanda


def test_masked_solution_is_the_normal_equations() -> None:
    weights, gram = problem(3)
    mask = np.random.default_rng(3).random(weights.shape) > 0.5
    found = solve_masked(Problem.of(weights, gram), mask)[0]
    damped = gram[0] + 0.01 * np.diag(np.diagonal(gram[0]))
    for row, kept, target in zip(found, mask[0], weights[0], strict=True):
        exact = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ target)
        delta, least = row - target, -target.copy()
        least[kept] += exact
        assert delta @ damped @ delta < 1.01 * (least @ damped @ least)


def test_columns_solve_for_all_later_columns_at_every_step() -> None:
    """Against SparseGPT's definition: each zero is made up for by the columns behind it."""
    rng = np.random.default_rng(4)
    inputs = 160
    rows = rng.standard_normal((600, inputs)) @ rng.standard_normal((inputs, inputs))
    gram = (rows.T @ rows / len(rows))[None]
    weights = rng.standard_normal((1, 4, inputs))
    mask = rng.random(weights.shape) > 0.5
    asked: list[npt.NDArray[np.floating]] = []

    def choose(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        start = sum(block.shape[2] for block in asked)
        asked.append(scores)
        return mask[:, :, start : start + scores.shape[2]]

    found = columns(weights, gram, choose)
    damped = damped_gram(gram)[0]
    expected = weights[0].copy()
    for at in range(inputs):
        expected[:, at] = np.where(mask[0, :, at], expected[:, at], 0)
        moved = expected[:, : at + 1] - weights[0, :, : at + 1]
        later = damped[at + 1 :, at + 1 :]
        answer = np.linalg.solve(later, damped[at + 1 :, : at + 1] @ moved.T).T
        expected[:, at + 1 :] = weights[0, :, at + 1 :] - answer
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-6)
    cost = [np.linalg.inv(damped[at:, at:])[0, 0] for at in range(asked[0].shape[2])]
    np.testing.assert_allclose(asked[0][0], weights[0, :, : len(cost)] ** 2 / cost, rtol=1e-6)
