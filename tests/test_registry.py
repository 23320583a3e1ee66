"""Which passes there are, which take part, and what a package may not do."""

import importlib.metadata
from pathlib import Path

import pytest
from installed import install

from onnxpress import registry
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.request import Request, planned

STRANGER = ("codebook", "test_pool:Codebook")


def test_ours_take_part_by_default_and_a_strangers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = registry.default_names()
    assert "quantize" in ours
    install(monkeypatch, registry.GROUP, STRANGER)
    assert "codebook" in registry.names()
    assert registry.default_names() == ours


def test_a_configuration_lets_it_take_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, registry.GROUP, STRANGER)
    monkeypatch.chdir(tmp_path)
    Path("onnxpress.toml").write_text('[passes]\ndefault = ["codebook"]\n')
    assert "codebook" in registry.default_names()
    passes = [stage.pass_.name for stage in planned(Request("m.onnx"), "").recipe.stages]
    assert "codebook" in passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[passes]\ndefault = ["codebok"]', "did you mean 'codebook'"),
        ("[passes]\ndefault = 3", "expected default"),
        ("passes = 3", "expected default"),
        ("[passes", "cannot be read as TOML"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    install(monkeypatch, registry.GROUP, STRANGER)
    monkeypatch.chdir(tmp_path)
    Path("onnxpress.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        registry.default_names()


def test_two_passes_of_one_name_are_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, registry.GROUP, ("quantize", "elsewhere:Quantize"))
    with pytest.raises(UsageError, match=r"onnxpress.*and.*elsewhere"):
        registry.names()


def test_a_pass_may_not_take_the_name_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, registry.GROUP, ("validate", "elsewhere:Validate"))
    with pytest.raises(UsageError, match="a command of onnxpress"):
        registry.names()


def test_a_package_that_cannot_be_imported_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, registry.GROUP, ("broken", "broken_package:Broken"))
    with pytest.raises(UsageError, match="RuntimeError: no licence"):
        registry.load("broken")
    monkeypatch.setattr(registry, "default_names", lambda _: ["broken", "quantize"])
    plan = planned(Request("m.onnx"), "")
    assert [stage.pass_ for stage in plan.recipe.stages] == [Quantize()]
    assert "broken" in plan.problems[0]
    assert "left out" in plan.problems[0]


def test_commands_are_those_of_the_command_line() -> None:
    folder = Path(registry.__file__).parent / "cli"
    modules = {
        file.stem
        for file in folder.glob("*.py")
        if "\ndef command(" in file.read_text() and file.stem != "single_pass"
    }
    assert set(registry.COMMANDS) == modules


def test_entry_points_are_read_anew() -> None:
    assert {e.name for e in importlib.metadata.entry_points(group=registry.GROUP)} == set(
        registry.names()
    )
