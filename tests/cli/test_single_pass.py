"""The options of a pass alone are its settings."""

import ast
import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from annotated_types import Interval
from click.testing import CliRunner
from command_line import run

from onnxpress import registry
from onnxpress.cli import single_pass
from onnxpress.errors import UsageError
from onnxpress.settings import setting, settings_of


@dataclasses.dataclass(frozen=True)
class Shown:
    """A setting of each kind."""

    per_channel: bool = setting(default=True, help="A scale for each.")
    rank: int | None = setting(default=None, help="Instead of searching.")
    share: Annotated[float, Interval(gt=0, lt=1)] = setting(default=0.5, help="That stays.")
    form: Literal["auto", "static"] = setting(default="auto", help="Of the result.")
    layers: tuple[str, ...] = setting(default=(), help="By name.")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> click.Command:
    """The command of a pass with these settings, which prints what it would be made with."""
    monkeypatch.setattr(registry, "load", lambda _: Shown)
    monkeypatch.setattr(registry, "describe", lambda _: "Show settings")
    monkeypatch.setattr(registry, "create", lambda _, options: options)
    monkeypatch.setattr(
        single_pass, "optimize_and_write", lambda _, passes, **__: click.echo(repr(passes[0]))
    )
    return single_pass.command_of("shown")


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--no-per-channel"], {"per_channel": False}),
        (["--rank", "4"], {"rank": 4}),
        (["--share", "0.25"], {"share": 0.25}),
        (["--form", "static"], {"form": "static"}),
        (["--layers", "a", "--layers", "b,c"], {"layers": ("a", "b,c")}),
    ],
)
def test_options_become_settings(
    command: click.Command, arguments: list[str], changed: dict[str, Any]
) -> None:
    usual = {"per_channel": True, "share": 0.5, "form": "auto", "layers": ()}
    result = CliRunner().invoke(command, ["model.onnx", *arguments])
    assert ast.literal_eval(result.output) == {**usual, **changed}


def test_help_shows_choices_bounds_and_defaults(command: click.Command) -> None:
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "Show settings." in text
    assert "--per-channel / --no-per-channel A scale for each. [default: per-channel]" in text
    assert "--rank INTEGER Instead of searching. --share" in text
    assert "--share FLOAT That stays (above 0, below 1). [default: 0.5]" in text
    assert "--form [auto|static] Of the result. [default: auto]" in text
    assert "--layers TEXT By name. --calibration" in text


def test_choice_that_does_not_exist_is_2(command: click.Command) -> None:
    result = CliRunner().invoke(command, ["model.onnx", "--form", "dynamic"])
    assert result.exit_code == 2
    assert "'auto', 'static'" in result.output


def test_setting_may_not_hide_an_option_of_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    hiding = dataclasses.make_dataclass(
        "Hiding", [("seed", int, setting(default=0, help="Another."))], frozen=True
    )
    monkeypatch.setattr(registry, "load", lambda _: hiding)
    monkeypatch.setattr(registry, "describe", lambda _: "")
    with pytest.raises(UsageError, match="its setting 'seed' has the name of an option"):
        single_pass.command_of("hiding")


@pytest.mark.parametrize("name", registry.names())
def test_every_installed_pass_shows_all_its_settings(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    for declared in settings_of(registry.load(name)):
        assert f"--{declared.name.replace('_', '-')}" in result.output


def test_pass_alone_writes_a_model(tmp_path: Path, linear_model: Path) -> None:
    output = tmp_path / "out.onnx"
    result = run("quantize", linear_model, "--form", "weight_only", "-o", output)
    assert result.exit_code in (0, 1), result.output
    assert output.exists()
