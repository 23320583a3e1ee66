"""`--recipe`: what a recipe may cause, and what it may not."""

import sys
from pathlib import Path

import pytest
from command_line import message, run

EVIL = """from pathlib import Path
Path('ran').touch()
def go():
    yield {}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("evil.py").write_text(EVIL)
    return tmp_path


@pytest.mark.parametrize("source", ["evil:go", "evil.sub:go", "os:getcwd"])
def test_recipe_never_imports(here: Path, linear_model: Path, source: str) -> None:
    Path("r.toml").write_text(
        f"version = 2\n[calibration]\nsource = {source!r}\ndigest = 'ab'\nheld_out = true\n"
        "[[pass]]\nname = 'simplify'\n"
    )
    result = run("optimize", linear_model, "--recipe", "r.toml", "-o", "out.onnx")
    assert result.exit_code == 2
    assert not Path("ran").exists()
    assert "evil" not in sys.modules
    assert f"r.toml: its samples come from code, {source}" in message(result)
    assert f"--calibration {source}" in message(result)


@pytest.mark.parametrize("key", ["target", "seed", "model_sha256"])
def test_no_other_entry_imports_either(here: Path, linear_model: Path, key: str) -> None:
    Path("r.toml").write_text(f"version = 2\n{key} = 'evil:go'\n[[pass]]\nname = 'evil:go'\n")
    assert run("optimize", linear_model, "--recipe", "r.toml", "-o", "out.onnx").exit_code == 2
    assert not Path("ran").exists()


def test_site_that_the_model_does_not_have_is_refused(here: Path, linear_model: Path) -> None:
    decision = "[[pass.decision]]\nsite = 'wieght'\nfamily = 'weight_only'\n"
    Path("r.toml").write_text(f"version = 2\n[[pass]]\nname = 'quantize'\n{decision}")
    result = run("optimize", linear_model, "--recipe", "r.toml", "-o", "out.onnx")
    assert result.exit_code == 2
    assert "decides for quantize about 'wieght', which the model does not have" in message(result)
    assert "did you mean 'weight'?" in message(result)
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    "parameters", ["rank = 8", "rank = 'four'\nfrom_statistics = false", "from_statistics = false"]
)
def test_parameters_that_a_pass_cannot_read_are_refused(
    here: Path, linear_model: Path, parameters: str
) -> None:
    Path("r.toml").write_text(
        "version = 2\n[[pass]]\nname = 'factorize'\n[[pass.decision]]\nsite = 'weight'\n"
        f"family = 'pair'\n[pass.decision.parameters]\n{parameters}\n"
    )
    result = run("optimize", linear_model, "--recipe", "r.toml", "-o", "out.onnx")
    assert result.exit_code == 2
    assert "decision cannot be carried out: pass factorize, site weight" in message(result)
    assert not Path("out.onnx").exists()


def test_function_given_by_the_user_is_called(here: Path, linear_model: Path) -> None:
    Path("r.toml").write_text("version = 2\n[[pass]]\nname = 'simplify'\n")
    run("optimize", linear_model, "--recipe", "r.toml", "--calibration", "evil:go", "-o", "o.onnx")
    assert Path("ran").exists()
    sys.modules.pop("evil")
