"""A stranger's package is listed, named, configured and checked like any, and never in the way.

The package is `tests/plugin`, which `docs/authors.md` explains. It is installed for commands, in a
folder that only they see, so that no other test meets it.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxpress
from onnxpress import registry
from onnxpress.adapter import PressPass
from onnxpress.data import random_samples
from onnxpress.errors import RecipeError, UsageError
from onnxpress.layers import find_layers
from onnxpress.pool import Pool
from onnxpress.runtime import Session, executed_operators
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS, Check, parametrize_with_checks

PLUGIN = Path(__file__).with_name("plugin")
# Importable here; an entry point it has only where it is installed.
sys.path.insert(0, str(PLUGIN))
Minifloat: type[Any] = importlib.import_module("minifloat").Minifloat

EMPTY = {
    "constant_nodes": "its weights are Constant nodes until simplify lifts them",
    "float16": "its weights have 16 bits already",
}


@parametrize_with_checks([Minifloat()], empty={"minifloat": EMPTY})
def test_contract(check: Check) -> None:
    check()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copy(PLUGIN / "minifloat.py", folder)
    name, version = project["name"], project["version"]
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (information / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def command(folder: Path, *arguments: object, site: Path | None) -> str:
    """What the command line prints, run in a folder, with the package of `site` or without."""
    environment = {**os.environ, "HOME": str(folder), "COLUMNS": "100"}
    environment["PYTHONPATH"] = "" if site is None else str(site)
    done = subprocess.run(
        [sys.executable, "-m", "onnxpress", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passes_of(recipe: Path) -> dict[str, dict[str, Any]]:
    """The `[[pass]]` tables of a recipe by name."""
    table = tomllib.loads(recipe.read_text(encoding="utf-8"))
    return {stage["name"]: stage for stage in table["pass"]}


def operators(model: Path) -> list[str]:
    return [node.op_type for node in onnx.load(model).graph.node]


def test_it_is_listed_with_the_first_line_of_its_module(site: Path, tmp_path: Path) -> None:
    line = "Store weights as floats of 8 or 16 bits, expanded once when the model is loaded"
    assert line in " ".join(command(tmp_path, "passes", site=site).split())
    assert line in " ".join(command(tmp_path, "--help", site=site).split())
    assert "minifloat" not in command(tmp_path, "passes", site=None)


def test_its_settings_are_options_with_bounds_and_choices(site: Path, tmp_path: Path) -> None:
    text = " ".join(command(tmp_path, "minifloat", "--help", site=site).split())
    assert "--form [auto|float8|float16]" in text
    assert "Without: the budget decides (above 0, below 0.75)." in text
    assert "(above 0, at most 1). [default: 0.01]" in text
    assert "--layers TEXT" in text
    assert "--refinement / --no-refinement" in text


def test_its_command_writes_what_its_recipe_repeats(
    site: Path, tmp_path: Path, linear_model: Path
) -> None:
    first, again = tmp_path / "first.onnx", tmp_path / "again.onnx"
    recipe = tmp_path / "first.recipe.toml"
    command(tmp_path, "minifloat", linear_model, "--form", "float16", "-o", first, site=site)
    (decision,) = passes_of(recipe)["minifloat"]["decision"]
    assert (decision["site"], decision["family"]) == ("weight", "float16")
    assert passes_of(recipe)["minifloat"]["form"] == "float16"
    command(tmp_path, "optimize", linear_model, "--recipe", recipe, "-o", again, site=site)
    assert again.read_bytes() == first.read_bytes()
    assert operators(first) == ["Cast", "Mul", "Gemm"]
    assert first.stat().st_size < 0.7 * linear_model.stat().st_size


def test_a_recipe_may_leave_the_decisions_to_the_search(
    site: Path, tmp_path: Path, linear_model: Path
) -> None:
    recipe, output = tmp_path / "own.toml", tmp_path / "out.onnx"
    recipe.write_text(
        'version = 2\ntarget = "cpu"\nseed = 0\n[[pass]]\nname = "minifloat"\nlayers = ["weight"]\n'
    )
    command(tmp_path, "optimize", linear_model, "--recipe", recipe, "-o", output, site=site)
    assert len(passes_of(tmp_path / "out.recipe.toml")["minifloat"]["decision"]) == 1


def test_optimize_takes_it_by_name(site: Path, tmp_path: Path, linear_model: Path) -> None:
    output, report = tmp_path / "out.onnx", tmp_path / "report.json"
    options = ["--passes", "minifloat", "--json", report, "-o", output]
    command(tmp_path, "optimize", linear_model, *options, site=site)
    chosen = passes_of(tmp_path / "out.recipe.toml")
    assert len(chosen["minifloat"]["decision"]) == 1
    assert "quantize" not in chosen
    assert "minifloat" in [stage["pass"] for stage in json.loads(report.read_text())["stages"]]


def test_installing_it_changes_no_default_run(
    site: Path, tmp_path: Path, linear_model: Path
) -> None:
    written = []
    for name, installed in (("without", None), ("with", site)):
        output = tmp_path / f"{name}.onnx"
        text = command(tmp_path, "optimize", linear_model, "-o", output, site=installed)
        written.append((output.read_bytes(), (tmp_path / f"{name}.recipe.toml").read_bytes()))
    assert written[0] == written[1]
    assert "minifloat" not in text


def test_a_configuration_lets_it_take_part(site: Path, tmp_path: Path, linear_model: Path) -> None:
    (tmp_path / "onnxpress.toml").write_text('[passes]\ndefault = ["minifloat"]\n')
    output = tmp_path / "out.onnx"
    text = command(tmp_path, "optimize", linear_model, "-o", output, site=site)
    chosen = passes_of(tmp_path / "out.recipe.toml")
    assert "minifloat" in chosen
    assert "quantize" in chosen
    sites = [d["site"] for name in ("minifloat", "quantize") for d in chosen[name]["decision"]]
    assert sites == ["weight"]
    assert "comes from another package" not in " ".join(text.split())


def test_it_is_not_installed_for_the_other_tests() -> None:
    assert "minifloat" not in registry.names()


def test_onnxruntime_expands_the_weights_when_it_loads_them() -> None:
    model = SAMPLE_MODELS["mlp_opset21"]()
    pressed = PressPass(Minifloat())(model).model
    assert executed_operators(pressed) == executed_operators(model)


def test_a_share_is_reached_and_not_exceeded_by_a_whole_layer() -> None:
    model = SAMPLE_MODELS["mlp_opset21"]()
    whole = sum(layer.nbytes for layer in find_layers(model))
    pressed = PressPass(Minifloat(share=0.6))(model).model
    kept = sum(
        value.const_value.nbytes
        for value in pressed.graph.initializers.values()
        if value.const_value is not None and len(value.const_value.shape) == 2
    )
    assert 0.26 * whole < kept <= 0.4 * whole


def test_the_search_saves_no_more_than_the_share_either() -> None:
    result = onnxpress.optimize(SAMPLE_MODELS["mlp_opset21"](), passes=[Minifloat(share=0.3)])
    families = {
        decision.candidate.family
        for stage in result.stages
        for decision in stage.decisions
        if stage.pass_.name == "minifloat"
    }
    assert families == {"float16"}


def test_the_bias_takes_up_the_mean_of_the_error() -> None:
    model = SAMPLE_MODELS["mlp_opset21"]()
    context = Pool((Minifloat(),)).context(
        model, load_target("cpu"), random_samples(Session(model), 400, seed=1)
    )
    layer = next(layer for layer in context.layers if layer.op_type == "Gemm")
    moments = context.moments(layer)
    assert moments is not None
    fitted = importlib.import_module("minifloat").fit(context, layer, "float8")
    lost = (fitted.weights - layer.read()) @ moments.mean[0]
    assert np.abs(lost).max() > 1e-5
    np.testing.assert_allclose(fitted.offset, -lost, rtol=1e-6)


def test_a_plan_made_with_calibration_data_is_not_carried_out_without() -> None:
    model = SAMPLE_MODELS["mlp_opset21"]()
    pool, target = Pool((Minifloat(),)), load_target("cpu")
    context = pool.context(model, target, random_samples(Session(model), 400, seed=1))
    decisions = strongest(pool, context, pool.offer(context))
    with pytest.raises(RecipeError, match="give it with --calibration"):
        pool.rewrite(pool.context(model, target), decisions)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match=r"minifloat: share is 0\.6, but float16 saves half"):
        Minifloat(form="float16", share=0.6)
