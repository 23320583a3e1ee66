"""What pools want to see of one model is collected once, and again the same for a recipe."""

from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK

import onnxpress
from onnxpress import shared_statistics
from onnxpress.data import random_samples
from onnxpress.errors import RecipeError
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session
from onnxpress.statistics import Statistics, collect, collector
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[Statistics]:
    """The statistics of every run over calibration samples."""
    found: list[Statistics] = []

    def counted(*args: Any, **given: Any) -> Statistics:
        found.append(collect(*args, **given))
        return found[-1]

    monkeypatch.setattr(shared_statistics, "collect", counted)
    return found


def test_pools_that_find_the_model_as_it_was_share_one_run(
    models: Path, collected: list[Statistics]
) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=models / "fashion_calibration.npz",
        evaluation=models / "fashion_evaluation.npz",
        min_sqnr=70.0,
        clock=BY_WORK,
    )
    acted = [stage.pass_.name for stage in result.stages if stage.decisions]
    assert not {"prune", "factorize"} & set(acted)
    assert len(collected) == 1


def test_both_ways_to_follow_a_plan_share_the_run_of_the_simplified_model(
    models: Path, small_data: tuple[Path, Path], collected: list[Statistics]
) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
    )
    early = {"prune", "factorize"}
    acted = [s for s in result.stages if s.pass_.name in early and s.decisions]
    assert acted
    assert len(collected) == 1 + len(acted)


@pytest.mark.parametrize(("kept", "runs"), [(0, 3), (shared_statistics.KEPT_BYTES, 2)])
def test_what_was_seen_of_the_first_model_is_kept_where_it_is_small(
    kept: int, runs: int, collected: list[Statistics], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_statistics, "KEPT_BYTES", kept)
    first = SAMPLE_MODELS["mlp_opset17"]()
    pool = Pool((Quantize(),))
    shared = shared_statistics.SharedStatistics(
        random_samples(Session(first), 8, seed=1), threads=1
    )
    for model in (first, first.clone(), first):
        shared.of(model, pool.context(model, load_target("cpu")), pool.passes)
    assert len(collected) == runs


def test_too_little_time_shortens_the_samples_and_a_recipe_repeats_them(
    models: Path,
    tmp_path: Path,
    collected: list[Statistics],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector, "FEWEST_SAMPLES", 5)
    given: dict[str, Any] = {
        "calibration": models / "fashion_calibration.npz",
        "evaluation": models / "fashion_evaluation.npz",
        "passes": ["quantize"],
        "clock": BY_WORK,
    }
    hurried = onnxpress.optimize(models / "fashion_mlp.onnx", time_limit=0.0, **given)
    assert [one.samples for one in collected] == [5]
    assert hurried.recipe.calibration is not None
    assert hurried.recipe.calibration.observed == 5
    hurried.save(tmp_path / "hurried.onnx")
    del given["passes"]
    again = onnxpress.optimize(
        models / "fashion_mlp.onnx", recipe=tmp_path / "hurried.recipe.toml", **given
    )
    again.save(tmp_path / "again.onnx")
    assert [one.samples for one in collected] == [5, 5]
    assert (tmp_path / "hurried.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


def test_number_of_observed_samples_in_a_recipe_is_checked(tmp_path: Path) -> None:
    recipe = tmp_path / "made.recipe.toml"
    recipe.write_text(
        'version = 2\ntarget = "cpu"\nseed = 0\n[calibration]\nsource = "a.npz"\ndigest = "0"\n'
        "held_out = true\nobserved = 0\n"
    )
    with pytest.raises(RecipeError, match=r"line 8.*observed is 0"):
        Recipe.load(recipe)
