"""What a search of the same model for less of the budget need not find out again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_passes import Rounds
from clocks import BY_WORK

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.search import (
    Findings,
    PoolResult,
    SearchOptions,
    measured,
    search_stage,
    stage,
)
from onnxpress.targets import load_target


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Sessions of choices."""
    found: list[Session] = []

    def counted(*args: object, **given: object) -> Session:
        found.append(Session(*args, **given))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(measured, "Session", counted)
    return found


@pytest.mark.parametrize(("kept_bytes", "opened_contexts"), [(0, 1), (-1, 2)])
def test_second_search_with_less_of_the_budget_measures_nothing_twice(
    linear_model: Path,
    opened: list[Session],
    monkeypatch: pytest.MonkeyPatch,
    kept_bytes: int,
    opened_contexts: int,
) -> None:
    monkeypatch.setattr(stage, "_KEPT_BYTES", kept_bytes)
    model = model_file.load(linear_model)
    session = Session(linear_model)
    feed = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    evaluator = Evaluator(session, load_samples({"x": feed}, session.inputs), Budget())
    options = SearchOptions(clock=BY_WORK, named=True)
    pool, findings = Pool((Rounds(),)), Findings()
    contexts: list[Pool] = []

    def searched(share: float) -> PoolResult:
        def open_context(of: Pool) -> object:
            contexts.append(of)
            return of.context(model, load_target("cpu"))

        return search_stage(
            pool,
            open_context,  # type: ignore[arg-type]
            model,
            evaluator,
            replace(options, share=share),
            lambda _: findings,
        )

    first = searched(1.0)
    before = len(opened)
    again = searched(0.5)
    assert (first.tried, again.tried) == (1, 0)
    assert again.decisions == first.decisions
    assert again.measurement == first.measurement
    assert model_file.to_bytes(again.model) == model_file.to_bytes(first.model)
    assert len(contexts) == opened_contexts
    assert len(opened) == before
