"""`onnxpress check`: what a team agreed on, met or not."""

import json
from pathlib import Path

import pytest
from clocks import TableClock
from command_line import message, run

from onnxpress import optimize
from onnxpress.checking import check
from onnxpress.constraints import Requirement
from onnxpress.errors import UsageError
from onnxpress.model_file import size_bytes, weight_bytes
from onnxpress.passes.quantize import Quantize

BY_BYTES = TableClock(weight_bytes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """The MLP in 8-bit weights, its recipe beside it."""
    file = tmp_path_factory.mktemp("made") / "model.onnx"
    result = optimize(models / "fashion_mlp.onnx", passes=["quantize"], clock=BY_BYTES)
    result.save(file)
    return file


def by_name(found: list[Requirement]) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in found}


@pytest.mark.parametrize("by_recipe", [True, False])
def test_all_that_was_agreed_on_is_compared(models: Path, made: Path, *, by_recipe: bool) -> None:
    found = by_name(
        check(
            models / "fashion_mlp.onnx",
            recipe=made.with_suffix(".recipe.toml") if by_recipe else None,
            optimized=None if by_recipe else made,
            evaluation=models / "fashion_evaluation.npz",
            max_size=size_bytes(made),
            min_speedup=2,
            clock=BY_BYTES,
        )
    )
    assert set(found) == {"budget", "size", "speedup"}
    assert all(requirement.met for requirement in found.values())
    assert found["size"].found == f"{size_bytes(made):,} bytes"
    assert "2,000 samples" in found["budget"].found.replace("2000", "2,000")


@pytest.mark.parametrize("apart", [True, False])
def test_recipe_that_names_samples_is_repeated(
    models: Path, tmp_path: Path, *, apart: bool
) -> None:
    evaluation = models / "fashion_evaluation.npz"
    result = optimize(
        models / "fashion_mlp.onnx",
        calibration=models / "fashion_calibration.npz",
        evaluation=evaluation if apart else None,
        passes=[Quantize(form="static")],
        clock=BY_BYTES,
    )
    result.save(tmp_path / "model.onnx")
    (budget,) = check(
        models / "fashion_mlp.onnx",
        recipe=tmp_path / "model.recipe.toml",
        evaluation=evaluation,
        clock=BY_BYTES,
    )
    assert budget.met


def test_one_byte_too_many_and_a_little_too_slow_are_not_met(models: Path, made: Path) -> None:
    found = by_name(
        check(
            models / "fashion_mlp.onnx",
            optimized=made,
            max_size=size_bytes(made) - 1,
            min_speedup=100,
            clock=BY_BYTES,
        )
    )
    assert found["budget"].met
    assert not found["size"].met
    assert not found["speedup"].met


def test_budget_that_does_not_hold_is_not_met(models: Path, made: Path) -> None:
    result = run(
        "check",
        models / "fashion_mlp.onnx",
        "--optimized",
        made,
        "--min-sqnr",
        "200",
        "--metric",
        "none",
        "--json",
        "-",
    )
    assert result.exit_code == 1
    document = json.loads(result.output)
    assert not document["met"]
    assert document["requirements"][0]["name"] == "budget"


def test_workflow_is_told_in_one_line_for_each(models: Path, made: Path) -> None:
    result = run(
        "check",
        models / "fashion_mlp.onnx",
        "--optimized",
        made,
        "--max-size",
        "1kB",
        "--format",
        "github",
    )
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("::notice title=onnxpress check::")
    assert lines[1].startswith("::error title=onnxpress check::")
    assert "at most 1,000 bytes" in lines[1]


@pytest.mark.parametrize("given", [{}, {"recipe": "r.toml", "optimized": "m.onnx"}])
def test_either_a_recipe_or_a_file_is_wanted(models: Path, given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="either --recipe"):
        check(models / "fashion_mlp.onnx", **given)  # type: ignore[arg-type]


def test_size_that_is_none_is_refused_before_any_work(models: Path, made: Path) -> None:
    result = run("check", models / "fashion_mlp.onnx", "--optimized", made, "--max-size", "big")
    assert result.exit_code == 2
    assert "max size is 'big'" in message(result)
