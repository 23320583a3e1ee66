"""No output takes the place of the input or of another output."""

import os
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
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


@pytest.mark.parametrize("output", ["-o", "--report", "--json"])
def test_weights_beside_the_model_are_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load(linear_model)
    onnx.save(
        model, "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0
    )
    before = Path("apart.data").read_bytes()
    done = run("optimize", "apart.onnx", "-o", "out.onnx", "--force", output, "apart.data")
    assert done.exit_code == 2
    assert "would overwrite weights of the input" in " ".join(message(done).split())
    assert Path("apart.data").read_bytes() == before


def test_a_link_to_the_input_is_the_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.json").symlink_to(linear_model)
    done = run("optimize", linear_model, "-o", "out.onnx", "--json", "link.json")
    assert done.exit_code == 2
    assert "would overwrite the input" in " ".join(message(done).split())


def test_recipe_written_by_hand_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Path("out.recipe.toml")
    recipe.write_text('version = 2\n[[pass]]\nname = "simplify"\n')
    before = recipe.read_bytes()
    done = run("simplify", linear_model, "-o", "out.onnx")
    assert done.exit_code == 2
    assert "the recipe would overwrite a file that onnxpress has not written" in message(done)
    assert recipe.read_bytes() == before
    assert not Path("out.onnx").exists()


def test_recipe_of_an_earlier_run_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run("simplify", linear_model, "-o", "out.onnx").exit_code == 0


@pytest.mark.parametrize("blocked", ["out.recipe.toml", "r.json", "r.html"])
def test_nothing_is_written_where_one_file_of_the_set_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path, blocked: str
) -> None:
    """Not even where the folder appears while the model is optimized."""
    monkeypatch.chdir(tmp_path)
    Path("out.onnx").write_bytes(b"good old file")
    monkeypatch.setattr("onnxpress.cli.outputs.Outputs.check", lambda *_: None)
    Path(blocked).mkdir()
    done = run("simplify", linear_model, "-o", "out.onnx", "--json", "r.json", "--report", "r.html")
    assert done.exit_code == 2
    assert Path("out.onnx").read_bytes() == b"good old file"
    assert {path.name for path in tmp_path.iterdir()} == {linear_model.name, "out.onnx", blocked}


def test_targets_of_one_name_do_not_share_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    source = resources.files("onnxpress.targets").joinpath("cpu.toml").read_text("utf-8")
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "mine.toml").write_text(source)
    targets = ("--target", "a/mine.toml", "--target", "b/mine.toml")
    done = run("simplify", linear_model, "-o", "out.onnx", "--per-target", *targets)
    assert done.exit_code == 2
    assert "the model would overwrite the same file of another target" in message(done)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{model}"],
        ["validate", "{model}", "--reference", "{model}"],
        ["targets", "check", "{model}", "--target", "cpu"],
    ],
)
def test_findings_never_overwrite_what_they_are_about(
    linear_model: Path, command: list[str]
) -> None:
    before = linear_model.read_bytes()
    given = [word.format(model=linear_model) for word in command]
    done = run(*given, "--json", linear_model)
    assert done.exit_code == 2
    assert "--json would overwrite an input" in message(done)
    assert linear_model.read_bytes() == before


def test_device_is_never_replaced(linear_model: Path, tmp_path: Path) -> None:
    for option in (["-o"], ["-o", tmp_path / "out.onnx", "--json"]):
        done = run("simplify", linear_model, *option, os.devnull)
        assert done.exit_code == 2
        assert "is a device" in message(done)
