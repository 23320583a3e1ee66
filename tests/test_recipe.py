"""Recipes: every plan survives the text, and what is no recipe is refused by its place."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_passes import Rounds

from onnxpress.contract import Candidate, Decision
from onnxpress.conversion import Conversion
from onnxpress.data import Samples
from onnxpress.errors import OnnxpressError, RecipeError
from onnxpress.recipe import CalibrationSource, Recipe, RecipeStage, samples_digest
from onnxpress.registry import create
from onnxpress.runtime import Array

QUANTIZE, FACTORIZE = "quantize", "factorize"


def test_text_survives_hostile_names() -> None:
    names = ['a"b', "back\\slash", "new\nline", "ünï/cødé", "[[pass]]", "tab\t", "\x7f"]
    values: itertools.cycle[Any] = itertools.cycle([1, 2.5, 1e-30, True, 'te"xt'])
    decisions = tuple(
        Decision(
            name,
            Candidate(
                {"value": value, name: 1}, family=name, members=(name,), pass_name=Rounds.name
            ),
        )
        for name, value in zip(names, values, strict=False)
    )
    recipe = Recipe((RecipeStage(Rounds(), decisions),), "cpu", 3, None, None)
    again = Recipe.from_toml(recipe.to_toml(), classes={Rounds.name: Rounds})
    assert again == recipe
    assert again.digest == recipe.digest


def test_all_parts_survive() -> None:
    candidate = Candidate(
        {"rank": 4},
        family="pair",
        members=("a", "b"),
        refined=True,
        keeps_kernels=True,
        pass_name=FACTORIZE,
    )
    recipe = Recipe(
        (
            RecipeStage(create(FACTORIZE, {"ratio": 0.5}), (Decision("a", candidate),)),
            RecipeStage(create("sparsify", {"layers": ["x", "y,z"]}), None),
            RecipeStage(create(QUANTIZE), ()),
        ),
        "cpu+web",
        7,
        "ab" * 32,
        CalibrationSource("data.npz", "cd" * 32, held_out=True),
        Conversion(("batch=1",), "keep-io", 21),
    )
    again = Recipe.from_toml(recipe.to_toml())
    assert again == recipe
    assert again.stages[1].decisions is None
    assert again.stages[2].decisions == ()


def test_predictions_are_no_part_of_a_recipe() -> None:
    """What repeats a plan does not change with what was measured of it."""

    def text(error: float) -> str:
        candidate = Candidate({"rank": 4}, error, saved_bytes=int(9 * error), family="pair")
        stage = RecipeStage(create(FACTORIZE), (Decision("a", candidate),))
        return Recipe((stage,), "cpu", 0, None, None).to_toml()

    assert text(0.25) == text(0.75)


DECIDED = """version = 2
[[pass]]
name = 'quantize'
[[pass.decision]]
site = 'a'
family = 'static'
[[pass.decision]]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version = 1", r"mine: version is 1; expected 2, .*optimize again"),
        ("", "mine: version is None; expected 2"),
        ("version = ", "mine: is not TOML"),
        ("version = 2\nsed = 1", r"mine, line 2: unknown entry 'sed'; did you mean 'seed'\?"),
        ("version = 2\nseed = 'x'", "mine, line 2: seed is 'x'; expected a whole number"),
        ("version = 2\nseed = true", "mine, line 2: seed is True; expected a whole number"),
        ("version = 2\ntarget = 3", "mine, line 2: target is 3; expected text"),
        ("version = 2\npass = 3", r"mine, line 2: pass is 3; expected tables, \[\[pass\]\]"),
        ("version = 2\noverridable = 1", "line 2: overridable is 1; expected true or false"),
        ("version = 2\ncalibration = 'x'", "line 2: calibration is 'x'; expected a table"),
        (
            "version = 2\n[conversion]\nshapes = 'a'",
            "line 3: conversion: shapes is 'a'; exp",
        ),
        (
            "version = 2\n[conversion]\nfloat16 = 'a'",
            "line 3: conversion: float16 is 'a' .there are: ",
        ),
        ("version = 2\n[layers.'/a']\nkept = true", r'line 2: \[layers."/a"\]: unknown .* kept'),
        ("version = 2\n\n[[pass]]\nname = 'qantize'", "line 4: .* did you mean 'quantize'"),
        ("version = 2\n[[pass]]\nform = 'auto'", "mine, line 2: pass number 1: name is missing"),
        ("version = 2\n[[pass]]\nname = 'quantize'\nfrom = 1", "line 4: .*has no setting 'from'"),
        ("version = 2\n[[pass]]\nname = 'quantize'\nform = 'b'", "line 4: .*form is 'b'; expected"),
        ("version = 2\n[calibration]\nsource = 'x'", "line 2: calibration: digest is missing"),
        (DECIDED + "form = 'b'", "mine, line 8: pass number 1 decision number 2: unknown .*'form'"),
        (
            DECIDED + "family = 'static'\nsite = 3",
            "line 9: pass number 1 decision number 2: site is 3; expected text",
        ),
        (
            DECIDED + "family = 'static'\nmembers = 'a'",
            "line 9: .*members is 'a'; expected a list of texts",
        ),
        (
            DECIDED + "family = 'static'\nrefined = 1",
            "line 9: .*refined is 1; expected true or false",
        ),
        (DECIDED + "parameters = 1\nfamily = 'static'", "line 8: .*parameters is 1; expected a"),
        (DECIDED + "family = 'static'", "line 7: pass number 1 decision number 2: site is missing"),
        (DECIDED + "family = 'statics'", "line 8: .*'statics'; did you mean 'static'.*, dynamic,"),
        (DECIDED, "line 7: pass number 1 decision number 2: family is '' .quantize has static"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, expected: str) -> None:
    with pytest.raises(OnnxpressError, match=expected):
        Recipe.from_toml(text, "mine")


def test_file_that_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(b"PK\x03\x04\xe5")
    with pytest.raises(RecipeError, match=r"is no text; expected a recipe, as optimize writes"):
        Recipe.load(tmp_path / "samples.npz")


def test_missing_file_is_named() -> None:
    with pytest.raises(RecipeError, match=r"absent\.toml: there is no such file"):
        Recipe.load("absent.toml")


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.ones((2, 3), np.float64)},
        {"x": np.ones((2, 1, 3), np.float32)},
        {"z": np.ones((2, 3), np.float32)},
        {"x": np.asarray([[1, 1, 1], [1, 1, 2]], np.float32)},
    ],
    ids=["type", "shape", "name", "value"],
)
def test_digest_of_samples_is_of_all_but_their_labels(other: dict[str, Array]) -> None:
    def digest(arrays: Mapping[str, Array], labels: Array | None = None) -> str:
        feeds = [{name: array[at] for name, array in arrays.items()} for at in range(2)]
        return samples_digest(Samples(tuple(feeds), labels, "here"))  # type: ignore[arg-type]

    own = {"x": np.ones((2, 3), np.float32)}
    assert digest(own) == digest(own, np.asarray([1, 0]))
    assert digest(own) != digest(other)


def test_digest_of_strings_is_of_what_they_say() -> None:
    def digest(*words: str) -> str:
        feeds = tuple({"x": np.array([word], object)} for word in words)
        return samples_digest(Samples(feeds, None, "here"))

    # Made anew, so that equal strings do not share their place in memory.
    assert digest("a long word", "b") == digest("_a long word_".strip("_"), "b")
    assert digest("a", "b") != digest("a", "c")
