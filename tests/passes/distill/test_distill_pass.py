"""`distill` as a pass: what it brings back, what it leaves, and that a recipe gives the bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Stage
from onnxpress.errors import RecipeError, UsageError
from onnxpress.layers import find_layers
from onnxpress.recipe import Recipe
from onnxpress.registry import create

pytestmark = pytest.mark.slow
KEPT = "head.weight"


@pytest.fixture(scope="module")
def samples(models: Path) -> dict[str, Any]:
    """Some of the images to train with, and others to choose by and to judge on."""
    found = {}
    for name, number in (("calibration", 96), ("evaluation", 100)):
        with np.load(models / f"fashion_{name}.npz") as archive:
            found[name] = {key: archive[key][:number] for key in archive.files}
    return found


def pressed(models: Path, samples: dict[str, Any], passes: list[Any], **options: Any) -> Any:
    return onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=passes,
        max_drop=100,
        min_sqnr=-50,
        goal="size",
        threads=1,
        **{**samples, **options},
    )


@pytest.fixture(scope="module")
def sparse(models: Path, samples: dict[str, Any]) -> Any:
    return pressed(models, samples, [create("sparsify", {"sparsity": 0.8})], keep=[KEPT])


@pytest.fixture(scope="module")
def trained(models: Path, samples: dict[str, Any]) -> Any:
    passes = [create("sparsify", {"sparsity": 0.8}), create("distill", {"steps": 60})]
    return pressed(models, samples, passes, keep=[KEPT])


def test_untouched_samples_show_what_came_back(sparse: Any, trained: Any) -> None:
    before, after = (one.validation.measurement.worst_sqnr_db for one in (sparse, trained))
    assert after > before + 1


def test_zeros_stay_and_what_is_kept_is_not_trained(models: Path, trained: Any) -> None:
    original = {
        layer.name: layer.array
        for layer in find_layers(model_file.load(models / "fashion_mlp.onnx"))
    }
    stage = next(s for s in trained.stages if s.pass_.stage == Stage.RECOVERY)
    assert "fc1.weight" in {decision.site for decision in stage.decisions}
    assert {KEPT, "head.bias"}.isdisjoint(decision.site for decision in stage.decisions)
    assert (KEPT, "kept as asked [L005]") in {(s.site, s.reason) for s in stage.left}
    for value in trained.model.graph.initializers.values():
        if value.name == KEPT:
            np.testing.assert_array_equal(value.const_value.numpy(), original[KEPT])


def test_recipe_gives_the_same_bytes_again(
    models: Path, samples: dict[str, Any], trained: Any
) -> None:
    recipe = Recipe.from_toml(trained.recipe.to_toml())
    again = onnxpress.optimize(
        models / "fashion_mlp.onnx", recipe=recipe, threads=1, max_drop=100, **samples
    )
    assert model_file.to_bytes(again.model) == model_file.to_bytes(trained.model)


def test_recipe_that_names_two_numbers_of_steps_is_refused(
    models: Path, samples: dict[str, Any], trained: Any
) -> None:
    text = trained.recipe.to_toml().replace("steps = 60,", "steps = 60", 1)
    assert "steps = 60" in text
    first = text.index("steps = 60", text.index('family = "trained"'))
    other = text[:first] + "steps = 61" + text[first + len("steps = 60") :]
    with pytest.raises(RecipeError, match="several numbers of steps"):
        onnxpress.optimize(
            models / "fashion_mlp.onnx", recipe=Recipe.from_toml(other), threads=1, **samples
        )


@pytest.mark.parametrize(
    ("passes", "number", "reason"),
    [
        (["sparsify", "distill"], 8, "to train with; expected at least 16"),
        (["distill"], 96, "nothing was lost that could be brought back"),
    ],
)
def test_what_it_cannot_do_is_said_and_not_met(
    models: Path, samples: dict[str, Any], passes: list[str], number: int, reason: str
) -> None:
    few = {name: array[:number] for name, array in samples["calibration"].items()}
    found = pressed(models, samples, passes, calibration=few)
    assert not found.within_budget
    assert any(reason in problem for problem in found.problems), found.problems


def test_no_other_package_may_take_the_name_of_the_command(monkeypatch: Any) -> None:
    monkeypatch.setattr("onnxpress.registry.package_of", lambda _: "stranger")
    with pytest.raises(UsageError, match="which is a command of onnxpress"):
        create("distill")
