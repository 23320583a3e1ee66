"""The same command gives the same bytes in two processes, whose sets are in different orders."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxpress.model_file import load, save
from onnxpress.runtime import Session
from onnxpress.testing import SAMPLE_MODELS

TIMED = {"seconds", "latency", "ms", "speedup", "costliest", "operators"}
"""Of the JSON: figures of the clock and their order, and what there was time to explain."""


def timeless(document: Any) -> Any:
    """Without what the clock says."""
    if isinstance(document, dict):
        return {key: timeless(value) for key, value in document.items() if key not in TIMED}
    if isinstance(document, list):
        return [timeless(item) for item in document if "times its speed" not in str(item)]
    return document


def outcome(folder: Path, hash_seed: str, *arguments: str) -> tuple[bytes, str, Any]:
    """Model, recipe and report of a process of its own, run in `folder`."""
    command = [sys.executable, "-m", "onnxpress", *arguments, "-o", "out.onnx"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [*command, "--json", "out.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return (
        (folder / "out.onnx").read_bytes(),
        (folder / "out.recipe.toml").read_text(encoding="utf-8"),
        timeless(json.loads((folder / "out.json").read_text(encoding="utf-8"))),
    )


def with_samples(folder: Path, number: int = 24) -> None:
    """Random samples for `model.onnx` in the folder, for calibration and evaluation."""
    inputs = Session(folder / "model.onnx").inputs
    for seed, name in enumerate(("calibration.npz", "evaluation.npz")):
        rng = np.random.default_rng(seed)
        shapes = {s.name: [d if isinstance(d, int) else 1 for d in s.shape[1:]] for s in inputs}
        arrays = {
            n: rng.standard_normal((number, *s)).astype(np.float32) for n, s in shapes.items()
        }
        np.savez(folder / name, **arrays)  # type: ignore[arg-type]


DATA = ("--calibration", "calibration.npz", "--evaluation", "evaluation.npz", "--goal", "size")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("cnn_opset17", ["optimize", "model.onnx", *DATA]),
        ("mlp_opset17", ["optimize", "model.onnx", *DATA, "--seed", "3"]),
        pytest.param(
            "fashion_mlp",
            ["optimize", "model.onnx", *DATA, "--passes", "factorize,quantize"],
            marks=pytest.mark.long,
        ),
        ("cnn_opset17", ["optimize", "model.onnx", *DATA, "--float16", "keep-io"]),
        ("loop_body", ["quantize", "model.onnx", "--goal", "size"]),
    ],
)
def test_the_same_command_gives_the_same_bytes(
    tmp_path: Path, models: Path, model: str, arguments: list[str]
) -> None:
    made = SAMPLE_MODELS[model]() if model in SAMPLE_MODELS else load(models / f"{model}.onnx")
    save(made, tmp_path / "model.onnx")
    with_samples(tmp_path)
    first = outcome(tmp_path, "0", *arguments)
    second = outcome(tmp_path, "4711", *arguments)
    assert first[0] == second[0], "the model"
    assert first[1] == second[1], "the recipe"
    assert first[2] == second[2], "the report"
    assert first[2]["stages"]


BY_TABLE = """
import sys
import onnxpress
from clocks import by_work
from fashion import fashion_data
given = fashion_data(calibration=48, evaluation=200)
result = onnxpress.optimize(sys.argv[1], goal=sys.argv[3], clock=by_work(), **given)
result.save(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["balanced", pytest.param("latency", marks=pytest.mark.long)])
def test_the_same_table_of_times_gives_the_same_bytes(
    tmp_path: Path, models: Path, goal: str
) -> None:
    """What the clock decides it decides alike where it says the same."""
    for hash_seed in ("0", "4711"):
        model, output = models / "fashion_mlp.onnx", tmp_path / f"{hash_seed}.onnx"
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        }
        command = [sys.executable, "-c", BY_TABLE, str(model), str(output), goal]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    first, second = (tmp_path / f"{seed}.onnx" for seed in ("0", "4711"))
    assert first.read_bytes() == second.read_bytes()
    recipes = [path.with_suffix(".recipe.toml").read_text() for path in (first, second)]
    assert recipes[0] == recipes[1]
    assert "[[pass.decision]]" in recipes[0]
