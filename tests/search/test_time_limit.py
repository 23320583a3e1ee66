"""A search that runs out of time says so, and not that nothing keeps within the budget."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK

import onnxpress
from onnxpress.data import random_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.refinement import refitted
from onnxpress.runtime import Session
from onnxpress.search import Objective, SearchOptions, strongest
from onnxpress.search.findings import Findings
from onnxpress.search.measured import MeasuredTrials
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


@pytest.mark.parametrize(
    ("limit", "said"),
    [(0.0, "give more with --time-limit"), (None, "no choice of layers keeps within")],
)
def test_search_says_why_it_found_nothing(models: Path, limit: float | None, said: str) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=["quantize"],
        min_sqnr=90.0,
        time_limit=limit,
        clock=BY_WORK,
    )
    (note,) = (stage.note for stage in result.stages if stage.pass_.name == "quantize")
    assert said in note


def test_a_choice_that_comes_again_is_not_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    original = Session(model)
    samples = random_samples(original, 12, seed=1)
    pool = Pool((Quantize(form="static"),))
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    evaluator = Evaluator(original, samples, Budget(metric="none", min_sqnr=5.0), model=model)
    findings, built = Findings(), []

    def noted(*given: Any, **more: Any) -> Any:
        built.append(given)
        return refitted(*given, **more)

    monkeypatch.setattr("onnxpress.pool.refitted", noted)
    found = []
    for share in (1.0, 0.5):
        options = SearchOptions(
            Objective("size"), share, calibration=samples, threads=1, clock=BY_WORK
        )
        trials = MeasuredTrials(pool, context, evaluator, options, findings)
        plain = trials.measure(strongest(pool, context, pool.offer(context)))
        found.append(trials.refined(plain))
    assert len(built) == 1
    assert found[0].model is found[1].model
    assert found[0].measurement == found[1].measurement


# Before a level, and between its samples.
@pytest.mark.parametrize("asks", [1, 6])
def test_a_refit_that_time_runs_out_on_leaves_what_was_measured_before(asks: int) -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    original = Session(model)
    samples = random_samples(original, 12, seed=1)
    pool = Pool((Quantize(form="static"),))
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    asked = itertools.count()
    options = SearchOptions(
        Objective("size"), calibration=samples, threads=1, stop=lambda: next(asked) > asks
    )
    evaluator = Evaluator(original, samples, Budget(metric="none", min_sqnr=5.0), model=model)
    trials = MeasuredTrials(pool, context, evaluator, options, Findings())
    plain = trials.measure(strongest(pool, context, pool.offer(context)))
    found = trials.refined(plain)
    assert found is plain
    assert next(asked) == asks + 2, "it ended at once while the layers were fitted"
