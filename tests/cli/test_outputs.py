"""No output takes the place of the input or of another output."""

from pathlib import Path

import numpy as np
import pytest
from command_line import message, run


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--json", "{model}"], "--json would overwrite the input"),
        (["--report", "{model}"], "--report would overwrite the input"),
        (["--json", "out.onnx"], "--json would overwrite the model"),
        (["--report", "out.recipe.toml"], "--report would overwrite the recipe"),
        (["--json", "x.html", "--report", "x.html"], "--json would overwrite --report"),
    ],
)
def test_outputs_that_are_one_file_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    linear_model: Path,
    arguments: list[str],
    wanted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = linear_model.read_bytes()
    given = [argument.format(model=linear_model) for argument in arguments]
    done = run("optimize", linear_model, "-o", "out.onnx", *given)
    assert done.exit_code == 2
    assert wanted in " ".join(message(done).split())
    assert linear_model.read_bytes() == before
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize("output", ["-o", "--report", "--json"])
@pytest.mark.parametrize("option", ["--calibration", "--evaluation"])
def test_samples_are_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path, option: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x=np.ones((4, 64), np.float32))
    before = Path("data.npz").read_bytes()
    done = run("optimize", linear_model, "-o", "out.onnx", option, "data.npz", output, "data.npz")
    assert done.exit_code == 2
    assert f"would overwrite {option}" in " ".join(message(done).split())
    assert Path("data.npz").read_bytes() == before


def test_a_link_to_the_input_is_the_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.json").symlink_to(linear_model)
    done = run("optimize", linear_model, "-o", "out.onnx", "--json", "link.json")
    assert done.exit_code == 2
    assert "would overwrite the input" in " ".join(message(done).split())
