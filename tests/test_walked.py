"""Above the memory budget what no setting says is searched: few trials, each a walk."""

import gc
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from fashion import fashion_data

import onnxpress
from onnxpress import model_file, oversized, unsearched, walked
from onnxpress.blockwise import Blockwise, Recorded
from onnxpress.contract import Candidate, Proposal
from onnxpress.data import Samples
from onnxpress.passes.factorize import Factorize
from onnxpress.pool import PoolOffer
from onnxpress.stage_result import StageResult

PATH = Path(__file__).parents[1] / "models" / "fashion_mlp.onnx"


LEAST = {"prune": (15.0, 25.0), "factorize": (15.0, 30.0), "quantize": (40.0, 64.0)}
"""A loose and a tight budget in dB: all weights in 8 bits keep 62."""


def searched(passes: list[Any] | None, **asked: Any) -> onnxpress.Result:
    """Of a network that is said to be too large."""
    data = fashion_data(calibration=96, evaluation=120)
    return onnxpress.optimize(PATH, passes=passes, max_memory="4MB", **data | asked)


def stage_of(result: onnxpress.Result, name: str) -> StageResult:
    (stage,) = [stage for stage in result.stages if stage.pass_.name == name]
    return stage


def worst(result: onnxpress.Result) -> float:
    assert result.validation is not None
    return result.validation.measurement.worst_sqnr_db


@pytest.mark.parametrize("name", ["prune", "factorize", "quantize"])
def test_the_amount_is_what_the_budget_allows(name: str) -> None:
    """A tighter budget takes less, and both hold where they are judged."""
    loose, tight = (searched([name], metric="none", min_sqnr=least) for least in LEAST[name])
    for result, least in zip((loose, tight), LEAST[name], strict=True):
        assert result.within_budget
        assert worst(result) >= least
        stage = stage_of(result, name)
        assert 1 <= stage.tried <= 6
        assert "that kept within the budget in" in stage.note
    sizes = [model_file.weight_bytes(result.model) for result in (loose, tight)]
    assert sizes[0] < sizes[1] < model_file.weight_bytes(onnxpress.load(PATH))
    # A bisection that ended early would be far below what it may spend.
    assert worst(tight) < LEAST[name][1] + 8


def test_what_chooses_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[bytes]] = {"trials": [], "result": []}

    def noting(module: Any, kind: str) -> None:
        usual = module.recorded

        def recorded(what: str, model: ir.Model, samples: Samples, means: Blockwise) -> Recorded:
            if what != "the original":
                seen[kind] += [np.asarray(feed["image"]).tobytes() for feed in samples.feeds]
            found = usual(what, model, samples, means)
            assert isinstance(found, Recorded)
            return found

        monkeypatch.setattr(module, "recorded", recorded)

    noting(walked, "trials")
    noting(oversized, "result")
    result = searched(["factorize"])
    assert result.validation is not None
    assert result.validation.measurement.samples == 60
    assert len(set(seen["trials"])) == len(set(seen["result"])) == 60
    assert not set(seen["trials"]) & set(seen["result"])


def test_a_choice_that_breaks_the_budget_on_untouched_samples_is_made_anew_with_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual, judged = oversized._judged, []

    def always_broken(*given: Any) -> Any:
        found = usual(*given)
        judged.append(given[1])
        return replace(found, within_budget=False)

    monkeypatch.setattr(oversized, "_judged", always_broken)
    result = searched(["factorize"], metric="none", min_sqnr=25)
    assert len(judged) == 3
    sizes = [model_file.weight_bytes(model) for model in judged]
    assert sizes[0] < sizes[1] < sizes[2]
    stage = stage_of(result, "factorize")
    assert not stage.decisions
    assert stage.note == "left out: on untouched samples what it did broke the budget [L017]"
    said = [
        text for text in result.warnings if text.startswith("a first choice broke the budget (")
    ]
    assert [text.rpartition("): ")[2] for text in said] == [
        "what is written was chosen with 50% of the budget [W007]",
        "what is written loses nothing [W007]",
    ]


def test_an_amount_that_a_setting_says_is_carried_out_and_not_searched() -> None:
    result = searched([Factorize(ratio=0.5)])
    assert stage_of(result, "factorize").tried == 0
    assert result.validation is not None
    assert result.validation.measurement.samples == 120


def test_with_few_samples_nothing_is_searched() -> None:
    images = fashion_data(evaluation=3)["evaluation"]["image"]
    result = searched(["factorize"], evaluation={"image": images})
    stage = stage_of(result, "factorize")
    assert not stage.decisions
    assert "say how much" in stage.note


def test_files_of_trials_go_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxpress.spill._LEAST_BYTES", 1024)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    most, whole = 0, walked._Walks.measure

    def measure(self: Any, decisions: Any) -> Any:
        nonlocal most
        gc.collect()
        most = max(most, sum(1 for path in tmp_path.rglob("*.data")))
        return whole(self, decisions)

    monkeypatch.setattr(walked._Walks, "measure", measure)
    result = searched(["factorize"], metric="none", min_sqnr=25)
    assert stage_of(result, "factorize").tried > 2
    # Of what was simplified, of the best until now, and of the statistics.
    assert 0 < most <= 4
    del result
    gc.collect()
    assert not list(tmp_path.rglob("*.data"))


def test_a_search_is_repeated_byte_for_byte_and_its_recipe_too() -> None:
    first, second = (searched(None) for _ in range(2))
    assert model_file.to_bytes(first.model) == model_file.to_bytes(second.model)
    assert {s.pass_.name for s in first.stages if s.tried} == {"prune", "factorize", "quantize"}
    again = onnxpress.optimize(
        PATH,
        recipe=first.recipe,
        max_memory="4MB",
        **fashion_data(calibration=96, evaluation=120),
    )
    assert model_file.to_bytes(again.model) == model_file.to_bytes(first.model)
    assert worst(again) == worst(first)


def test_forms_that_are_all_larger_than_what_they_replace_are_left() -> None:
    larger = tuple(
        Candidate(predicted_error=error, saved_bytes=-more, keeps_kernels=False)
        for error, more in ((0.1, 50), (0.2, 40))
    )
    offer = unsearched._nearest(PoolOffer((Proposal("small", larger),), ()))
    assert offer.proposals == ()


@pytest.mark.parametrize("limit", [0.0, 0.001])
def test_where_time_is_over_nothing_is_lost(limit: float) -> None:
    result = searched(["factorize"], time_limit=limit)
    stage = stage_of(result, "factorize")
    assert not stage.decisions
    assert "--time-limit" in stage.note
