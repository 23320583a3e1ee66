"""How files were prepared is kept in the recipe, and prepares others in the same way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from clocks import BY_WORK
from command_line import run
from PIL import Image

import onnxpress
from onnxpress.data import load_prepared, load_samples
from onnxpress.errors import DataError, RecipeError
from onnxpress.recipe import Recipe
from onnxpress.runtime import InputSpec

COLOR = InputSpec("x", "float32", ("batch", 3, 28, 28))


def pictures(folder: Path, *names: str, seed: int = 0, each: int = 2) -> Path:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def described(tmp_path: Path) -> Path:
    pictures(tmp_path / "first", "bag", "coat")
    (tmp_path / "d.toml").write_text(
        "[images]\npath = 'first'\nsize = [28, 28]\nfit = 'stretch'\ncolors = 'bgr'\n"
        "mean = [0.5, 0.4, 0.3]\ndeviation = [0.2, 0.2, 0.2]\n"
    )
    return tmp_path / "d.toml"


def test_other_pictures_are_prepared_as_the_first_were(described: Path) -> None:
    known = load_samples(described, [COLOR])
    again = load_prepared(described.parent / "first", [COLOR], known.preparation)
    assert len(again) == len(known)
    for one, other in zip(known.feeds, again.feeds, strict=True):
        assert np.array_equal(one["x"], other["x"])
    plain = load_samples(described.parent / "first", [COLOR])
    assert not np.array_equal(plain.feeds[0]["x"], known.feeds[0]["x"])
    assert any("prepared as the recipe says, [preprocessing.images]" in n for n in again.notes)


def test_classes_keep_their_numbers_where_a_subfolder_is_missing(described: Path) -> None:
    known = load_samples(described, [COLOR])
    others = pictures(described.parent / "second", "coat", seed=1)
    samples = load_prepared(others, [COLOR], known.preparation)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 1]
    unsorted = pictures(described.parent / "third", "", seed=1)
    assert load_prepared(unsorted, [COLOR], known.preparation).labels is None


def test_recordings_and_constants_are_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.linspace(-0.5, 0.5, 900), 16_000)
    (tmp_path / "d.toml").write_text(
        "[sounds]\npath = 'a.wav'\nseconds = 0.05\nplace = 'end'\nscale = 2.0\n"
        "[constants]\nstate = 0\nsr = 16000\n"
    )
    inputs = [
        InputSpec("signal", "float32", ("batch", "samples")),
        InputSpec("state", "float32", (2, 1, 8)),
        InputSpec("sr", "int64", ()),
    ]
    known = load_samples(tmp_path / "d.toml", inputs)
    assert known.preparation["constants"] == {"sr": 16000, "state": 0.0}
    again = load_prepared(tmp_path / "b.wav", inputs, known.preparation)
    assert np.array_equal(again.feeds[0]["signal"], known.feeds[0]["signal"])
    assert again.feeds[0]["state"].shape == (2, 1, 8)


def test_other_kinds_and_descriptions_are_read_as_ever(described: Path, tmp_path: Path) -> None:
    preparation = {"images": {"colors": "rgb"}}
    own = load_prepared(described, [COLOR], preparation)
    assert own.preparation["images"]["colors"] == "bgr"
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 3, 28, 28), np.float32))
    assert len(load_prepared(tmp_path / "s.npz", [COLOR], preparation)) == 2


def optimized(models: Path, described: Path) -> onnxpress.Result:
    return onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=described,
        passes=["quantize"],
        metric="none",
        clock=BY_WORK,
    )


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    pictures(tmp_path / "first", "bag", "coat", each=8)
    (tmp_path / "d.toml").write_text(
        "[images]\npath = 'first'\nsize = [28, 28]\nfit = 'stretch'\nmean = [0.3]\n"
        "deviation = [0.25]\n"
    )
    return tmp_path / "d.toml"


def test_a_recipe_keeps_it_through_its_text(models: Path, grey: Path) -> None:
    result = optimized(models, grey)
    text = result.recipe.to_toml()
    assert "[preprocessing.images]" in text
    again = Recipe.from_toml(text)
    assert again.preparation == result.recipe.preparation
    assert again.preparation["images"]["mean"] == [0.3]
    assert again.to_toml() == text


def test_new_pictures_judge_a_recipe_as_prepared(models: Path, grey: Path) -> None:
    result = optimized(models, grey)
    others = pictures(grey.parent / "second", "bag", "coat", seed=3, each=4)
    again = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        recipe=result.recipe,
        evaluation=others,
        metric="none",
        clock=BY_WORK,
    )
    assert again.validation is not None
    assert any("[preprocessing.images]" in w for w in (*again.validation.warnings, *again.warnings))
    assert again.recipe.to_toml() == result.recipe.to_toml(), "the same model, judged elsewhere"


def test_check_diff_and_data_prepare_by_a_recipe(models: Path, grey: Path) -> None:
    model, made = models / "fashion_mlp.onnx", grey.parent / "made.onnx"
    optimized(models, grey).save(made)
    recipe = made.with_suffix(".recipe.toml")
    others = pictures(grey.parent / "second", "bag", "coat", seed=3)
    shown = run("data", model, others, "--recipe", recipe)
    assert shown.exit_code == 0
    assert "prepared as the recipe says" in " ".join(shown.output.split())
    compared = run("diff", model, made, "--data", others, "--recipe", recipe, "--json", "-")
    assert compared.exit_code == 1
    checked = run("check", model, "--recipe", recipe, "--evaluation", others, "--metric", "none")
    assert checked.exit_code == 0, checked.output
    without = run("data", model, others)
    assert "nothing says how pictures are prepared" in " ".join(without.output.split())


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"image": {}}, r"'image' is no table of preprocessing; did you mean 'images'\?"),
        ({"images": {"colours": "bgr"}}, r"no setting 'colours'; did you mean 'colors'"),
        ({"images": {"size": [0, 1]}}, r"size"),
        ({"constants": {"x": 1}}, r"preprocessing of nothing; expected one of images"),
        ({"images": {}, "texts": {}}, r"preprocessing of images, texts; expected one of"),
    ],
)
def test_what_no_samples_are_prepared_by_is_refused(table: dict[str, Any], said: str) -> None:
    recipe = Recipe((), "cpu", 0, None, None, preparation=table)
    with pytest.raises(RecipeError, match=said):
        Recipe.from_toml(recipe.to_toml())


def test_a_constant_that_the_model_does_not_take_is_named(described: Path) -> None:
    preparation = {"images": {}, "constants": {"scale_factor": 1.0}}
    with pytest.raises(DataError, match=r"\[constants\] feeds 'scale_factor'"):
        load_prepared(described.parent / "first", [COLOR], preparation)
