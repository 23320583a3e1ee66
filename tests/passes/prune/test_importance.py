"""Which units go and what stays, against least squares."""

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.passes.prune.importance import Reading, removal_order, solve_kept
from onnxpress.reconstruction import damped_gram

Float64 = npt.NDArray[np.float64]


def correlated(rng: np.random.Generator, rows: int, inputs: int) -> Float64:
    x = rng.standard_normal((rows, inputs // 2)) @ rng.standard_normal((inputs // 2, inputs))
    return np.asarray(x + 0.3 * rng.standard_normal((rows, inputs)), np.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_are_what_least_squares_leaves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = correlated(rng, 400, 12)
    w = rng.standard_normal((1, 5, 12))
    gram = (x.T @ x / len(x))[None]
    features = tuple(np.arange(unit * 2, unit * 2 + 2) for unit in range(6))
    order, errors = removal_order([Reading(w, gram, len(x), features)])
    damped = damped_gram(gram, len(x))[0]
    power = np.einsum("oi,ij,oj->", w[0], gram[0], w[0])

    def residual(gone: list[int]) -> float:
        kept = np.concatenate([features[u] for u in range(6) if u not in gone])
        answer = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ w[0].T).T
        delta = w[0].copy()
        delta[:, kept] -= answer
        return float(np.einsum("oi,ij,oj->", delta, damped, delta) / power)

    best = min(range(6), key=lambda unit: residual([unit]))
    assert order[0] == best
    for count in range(1, 6):
        np.testing.assert_allclose(errors[count], residual(order[:count]), rtol=1e-6)


def test_kept_weights_are_the_normal_equations() -> None:
    rng = np.random.default_rng(3)
    x = correlated(rng, 5000, 8)
    w = rng.standard_normal((1, 4, 8))
    kept = np.array([0, 2, 3, 7])
    gram = (x.T @ x / len(x))[None]
    ridge = np.sqrt((damped_gram(gram, len(x)) - gram)[0, 0, 0])
    # The damping as rows of its own, which pull towards the weights before.
    rows = np.concatenate([x[:, kept] / np.sqrt(len(x)), ridge * np.eye(4)])
    wanted = np.concatenate([x @ w[0].T / np.sqrt(len(x)), ridge * w[0][:, kept].T])
    exact = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    np.testing.assert_allclose(solve_kept(w, gram, kept, len(x))[0], exact, rtol=1e-6)
