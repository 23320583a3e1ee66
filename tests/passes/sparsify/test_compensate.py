"""Solvers against each other and against the normal equations."""

import numpy as np
import numpy.typing as npt
import pytest

from onnxpress.passes.sparsify.compensate import Problem, alternating, columns, solve_masked
from onnxpress.passes.sparsify.masks import keep_highest

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
