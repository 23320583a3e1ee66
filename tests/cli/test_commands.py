"""The list of commands, and that each is imported only when it is asked for."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import run
from installed import install

import onnxpress.cli
from onnxpress import registry
from onnxpress.cli.commands import COMMANDS, cli

HEAVY = ("onnxruntime", "onnxscript", "onnx_ir", "onnx", "numpy", "rich")


def imported_by(*arguments: str) -> set[str]:
    """Which modules are loaded once a command has run in a process of its own."""
    probe = (
        "import sys\nfrom onnxpress.cli import cli\n"
        f"cli.main({list(arguments)!r}, standalone_mode=False)\nprint('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_lists_every_command_and_every_pass() -> None:
    lines = run("--help").output.splitlines()
    for name in (*COMMANDS, *registry.names()):
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_every_module_with_a_command_is_in_the_list() -> None:
    found = {
        module.name
        for module in pkgutil.iter_modules(onnxpress.cli.__path__)
        if hasattr(importlib.import_module(f"onnxpress.cli.{module.name}"), "command")
    }
    assert found == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_line_in_the_list_is_the_first_of_the_command_s_help(name: str) -> None:
    shown = " ".join(run("--help").output.split())
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n")[0].rstrip(".") in shown


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["passes"], ["passes", "--help"]])
def test_nothing_heavy_is_imported_to_list(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & set(HEAVY)


@pytest.mark.parametrize("part", ["search", "providers", "difference", "report.html"])
def test_inspection_loads_nothing_that_optimizes_or_compares(part: str, models: Path) -> None:
    loaded = imported_by("inspect", str(models / "fashion_cnn.onnx"))
    assert "onnxpress.inspection" in loaded
    assert f"onnxpress.{part}" not in loaded


def in_a_command_s_process(code: str, *arguments: str) -> str:
    """What code prints in a process in which modules are loaded late."""
    begun = "from onnxpress.cli.late_imports import load_late\nload_late()\n"
    command = [sys.executable, "-c", begun + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_inspection_does_not_load_sympy(models: Path) -> None:
    code = (
        "import sys\nfrom onnxpress.cli import cli\n"
        "cli.main(['inspect', sys.argv[1]], standalone_mode=False)\n"
        "print('sympy' in sys.modules, 'sympy.core' in sys.modules)"
    )
    said = in_a_command_s_process(code, str(models / "fashion_cnn.onnx"))
    assert said.splitlines()[-1] == "True False"


def test_dimensions_are_computed_with_where_sympy_is_loaded_late() -> None:
    code = "import onnx_ir as ir\nprint(ir.SymbolicDim('2*n') + 1)"
    assert in_a_command_s_process(code).strip() == "2*n + 1"


def test_command_imports_no_other() -> None:
    loaded = imported_by("passes")
    assert {name for name in COMMANDS if f"onnxpress.cli.{name}" in loaded} == {"passes"}


def test_help_names_a_pass_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_broken.py").write_text('"""Do what nobody can import."""\nimport absent\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    install(monkeypatch, registry.GROUP, ("broken", "acme_broken:Broken"))
    assert "Do what nobody can import" in run("--help").output


def test_pass_with_the_name_of_a_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, registry.GROUP, ("bench", "acme_absent:Bench"))
    result = run("bench", "--help")
    assert result.exit_code == 2
    assert "calls a pass 'bench', which is a command of onnxpress" in result.output


@pytest.mark.parametrize(
    ("word", "suggestion"), [("optimise", "optimize"), ("quantise", "quantize")]
)
def test_unknown_command_gets_the_nearest_as_a_suggestion(word: str, suggestion: str) -> None:
    result = run(word)
    assert result.exit_code == 2
    assert f"there is no command {word!r}; did you mean {suggestion!r}?" in result.output


def test_name_of_before_leads_to_the_command_of_now() -> None:
    result = run("shrink", "--help")
    assert result.exit_code == 0
    assert "shrink is called prune now" in result.output
    assert " prune [OPTIONS] " in result.output
