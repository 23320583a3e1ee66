"""The other kind of budget: a size or a speed is reached with as little lost as can be."""

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from clocks import BY_WORK, by_work
from command_line import message, run
from fashion import fashion_data

import onnxpress
import onnxpress.errors
from onnxpress import model_file
from onnxpress.constraints import Constraints
from onnxpress.errors import UsageError
from onnxpress.least_loss import _Bracket
from onnxpress.recipe import Recipe
from onnxpress.result import Result
from onnxpress.runtime import Latency

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from consoles import encoder


def small(**more: Any) -> dict[str, Any]:
    """Arguments of quick runs, by a clock that reads a table."""
    return {**fashion_data(calibration=48, evaluation=200), "clock": BY_WORK, **more}


def size_of(result: Result) -> int:
    return model_file.whole_size(result.model)


def kept_db(result: Result) -> float:
    assert result.validation is not None
    return result.validation.measurement.worst_sqnr_db


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most"), [("mlp", 2_000_000), pytest.param("mobile", 500_000, marks=pytest.mark.long)]
)
def test_a_size_is_reached_and_less_is_lost_than_with_the_whole_budget(
    models: Path, name: str, most: int
) -> None:
    model = models / f"fashion_{name}.onnx"
    given = small(passes=["quantize"] if name == "mobile" else None)
    found = onnxpress.optimize(model, max_size=most, **given)
    whole = onnxpress.optimize(model, **given)
    assert found.within_budget, found.problems
    assert size_of(whole) < size_of(found) <= most
    assert kept_db(found) > kept_db(whole) + 3
    assert [one.met for one in found.requirements] == [True]
    # No more than needed: the next larger model that was tried was too large, or nearly so.
    assert size_of(found) > 0.7 * most


@pytest.mark.slow
def test_what_another_division_of_the_budget_reaches_is_within_it(models: Path) -> None:
    """Of this network the even one does not reach what is had without constraints."""
    given: dict[str, Any] = {
        "calibration": models / "fashion_calibration.npz",
        "evaluation": models / "fashion_evaluation.npz",
        "clock": BY_WORK,
    }
    model = models / "fashion_mlp.onnx"
    whole = onnxpress.optimize(model, **given)
    found = onnxpress.optimize(model, max_size=size_of(whole) + 1000, **given)
    assert found.within_budget, found.problems
    assert found.validation is not None
    assert not any("[W018]" in warning for warning in found.validation.warnings)


def test_what_is_small_enough_loses_nothing(models: Path) -> None:
    model = models / "fashion_mlp.onnx"
    found = onnxpress.optimize(model, max_size="4MB", **small())
    assert found.within_budget
    assert not any(s.decisions for s in found.stages if s.pass_.stage.loses)
    assert found.validation is not None
    assert found.validation.measurement.drop == 0


@pytest.mark.long
def test_a_speed_is_reached_by_the_clock_with_less_lost(models: Path) -> None:
    given = small(clock=by_work(integers=3.0))
    model = models / "fashion_mlp.onnx"
    found = onnxpress.optimize(model, min_speedup=1.5, **given)
    whole = onnxpress.optimize(model, goal="latency", **given)
    assert found.within_budget, found.problems
    assert found.validation is not None
    assert found.validation.latency.speedup >= 1.5
    assert kept_db(found) >= kept_db(whole)


@pytest.mark.long
def test_beyond_the_default_budget_more_is_lost_and_said(models: Path) -> None:
    found = onnxpress.optimize(models / "fashion_mlp.onnx", max_size="90kB", **small())
    assert not found.within_budget
    assert size_of(found) <= 90_000
    assert [one.met for one in found.requirements] == [True]
    assert any("the budget does not hold" in problem for problem in found.problems)
    assert found.validation is not None
    assert any("[W018]" in warning for warning in found.validation.warnings)


@pytest.mark.slow
def test_a_budget_that_is_asked_for_is_a_limit(models: Path) -> None:
    found = onnxpress.optimize(
        models / "fashion_mlp.onnx", max_size="90kB", max_drop=1.0, **small()
    )
    assert not found.within_budget
    assert found.validation is not None
    assert found.validation.within_budget, "what is written keeps the limit"
    assert 90_000 < size_of(found) < 600_000, "and is nearest to the size"
    (problem,) = [p for p in found.problems if "[V009]" in p]
    assert "90,000 bytes" in problem
    assert f"{size_of(found):,} bytes" in problem


def test_what_nothing_reaches_is_said_with_how_near_it_got(linear_model: Path) -> None:
    found = onnxpress.optimize(linear_model, max_size=1000, clock=BY_WORK)
    assert not found.within_budget
    assert found.validation is not None
    assert found.validation.within_budget
    assert [one.met for one in found.requirements] == [False]
    (said,) = [w for w in found.validation.warnings if "[W018]" in w]
    assert "bytes is left" in said
    assert "--goal size" in said


def test_constraints_stand_in_the_recipe_and_hold_for_its_result(
    linear_model: Path, tmp_path: Path
) -> None:
    found = onnxpress.optimize(linear_model, max_size="8kB", clock=BY_WORK)
    assert found.within_budget, found.problems
    text = found.recipe.to_toml()
    assert Recipe.from_toml(text).constraints == Constraints(max_size=8000)
    again = onnxpress.optimize(linear_model, recipe=found.recipe, clock=BY_WORK)
    assert [one.met for one in again.requirements] == [True]
    assert model_file.to_bytes(again.model) == model_file.to_bytes(found.model)
    stricter = onnxpress.optimize(linear_model, recipe=found.recipe, max_size="2kB", clock=BY_WORK)
    assert [one.met for one in stricter.requirements] == [False]


def test_dynamic_shapes_are_pressed_into_a_size(tmp_path: Path) -> None:
    model, _ = encoder(tmp_path)
    found = onnxpress.optimize(model, max_size="400kB", clock=BY_WORK)
    assert found.within_budget, found.problems
    assert size_of(found) <= 400_000
    onnx.checker.check_model(onnx.load_from_string(model_file.to_bytes(found.model)))


def test_the_command_writes_what_it_reached(linear_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    report = tmp_path / "o.json"
    done = run("optimize", linear_model, "--max-size", "8kB", "-o", output, "--json", report)
    assert done.exit_code == 0, done.output
    assert "reached size at most 8,000 bytes" in done.output
    assert output.stat().st_size <= 8000
    found = json.loads(report.read_text())
    assert found["constraints"] == {"max_size": 8000}
    assert [one["met"] for one in found["requirements"]] == [True]


def test_a_pass_alone_takes_constraints_too(linear_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    done = run("quantize", linear_model, "--max-size", "8kB", "-o", output)
    assert done.exit_code == 0, done.output
    assert output.stat().st_size <= 8000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--max-size", "4XB"], "max size is '4XB'; expected a size, as 4GB"),
        (["--max-size", "0"], "expected a size"),
        (["--max-latency", "8m"], "max latency is '8m'; expected a time of one run, as 8ms"),
        (["--min-speedup", "0"], "min speedup is 0; expected how many times as fast"),
        (["--min-speedup", "nan"], "min speedup is nan"),
        (["--min-speedup", "2", "--goal", "size"], "leave the goal out"),
        (["--max-latency", "2", "--target", "webgpu"], "webgpu runs elsewhere: ask for a size"),
    ],
)
def test_what_means_nothing_is_refused(
    linear_model: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    done = run("optimize", linear_model, "-o", tmp_path / "o.onnx", *options)
    assert done.exit_code == 2
    assert says in message(done)
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("asked", "milliseconds"), [("8ms", 8.0), (8, 8.0), ("500us", 0.5), ("0.5 s", 500.0)]
)
def test_times_have_units(asked: str | float, milliseconds: float) -> None:
    assert Constraints.of(None, None, asked).max_latency == pytest.approx(milliseconds)


def test_a_recipe_with_a_wrong_constraint_names_its_line() -> None:
    text = 'version = 2\n[constraints]\nmax_size = "4XB"\n'
    with pytest.raises(onnxpress.errors.RecipeError, match=r"line 3.*max size is '4XB'"):
        Recipe.from_toml(text)


def test_the_slower_quartile_has_to_be_fast_enough() -> None:
    wanted = Constraints.of(None, 2.0, None)
    assert wanted.excess(0, Latency(1.0, 2.1, 2.1, 1.9, 2.3)) > 1
    assert wanted.excess(0, Latency(1.0, 2.3, 2.3, 2.1, 2.5)) < 1


def test_a_speed_that_is_not_timed_is_not_met() -> None:
    (found,) = Constraints.of(None, 2.0, None).requirements(1, None)
    assert not found.met
    with pytest.raises(UsageError):
        Constraints.of(None, -1.0, None)


@pytest.mark.parametrize("power", [0.5, 2.0, 0.1])
@pytest.mark.parametrize("needed", [0.9, 0.03, 2e-4])
def test_few_shares_find_the_one_that_is_needed(power: float, needed: float) -> None:
    """Where excess is a power of the share, of which steps of the search spend all."""

    def excess(share: float) -> float:
        return float((needed / share) ** power)

    bracket = _Bracket((1.0, excess(1.0)))
    tried = 0
    while (share := bracket.next()) is not None:
        tried += 1
        if excess(share) <= 1:
            bracket.high = share, excess(share)
        else:
            bracket.low = share, excess(share)
    assert tried <= 8
    assert needed <= bracket.high[0] * (1 + 1e-9)
    assert bracket.high[0] <= needed * 8.0**0.2 or excess(bracket.high[0]) > 0.97


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-size", "1MB", "--external-data"], "--max-size counts one file"),
        (["--time-limit", "nan"], "expected seconds, 0 or more"),
        (["--time-limit", "-5"], "expected seconds, 0 or more"),
    ],
)
def test_what_means_nothing_is_refused_before_any_work(
    linear_model: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = run("optimize", linear_model, "-o", tmp_path / "o.onnx", *arguments)
    assert done.exit_code == 2
    assert says in message(done)
    assert not (tmp_path / "o.onnx").exists()
