"""-q says one line, -v says all, NO_COLOR is kept, and shells complete names."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import run

from onnxpress.cli import cli
from onnxpress.cli.commands import COMMANDS
from onnxpress.report.saying import AMOUNT, Amount


@pytest.fixture
def cnn(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(models / "fashion_cnn.onnx", tmp_path / "cnn.onnx"))


def words_of(cnn: Path, models: Path) -> dict[str, list[str | Path]]:
    data = models / "fashion_calibration.npz"
    same = models / "fashion_cnn.onnx"
    return {
        "optimize": [cnn, "--passes", "quantize"],
        "optimize --dry-run": [cnn, "--dry-run"],
        "quantize": [cnn],
        "inspect": [cnn],
        "data": [cnn, data],
        "diff": [cnn, same],
        "validate": [cnn, "--reference", same],
        "bench": [cnn],
        "check": [cnn, "--optimized", same, "--max-size", "1GB"],
    }


@pytest.mark.parametrize(
    "command",
    [
        "optimize",
        "optimize --dry-run",
        "quantize",
        "inspect",
        "data",
        "diff",
        "validate",
        "bench",
        "check",
    ],
)
def test_quiet_prints_one_line(command: str, cnn: Path, models: Path) -> None:
    result = run(command.split(maxsplit=1)[0], *words_of(cnn, models)[command], "-q")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 1
    assert result.output.strip()


def test_quiet_prints_errors_all_the_same(tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "nothing.onnx", "-q")
    assert result.output.startswith("error[M001]: ")


@pytest.mark.parametrize("arguments", [["explain", "Q003"], ["targets"], ["passes"]])
def test_what_was_asked_for_is_printed_when_quiet_too(arguments: list[str]) -> None:
    assert run(*arguments, "-q").output == run(*arguments).output


def test_verbose_lists_all_reasons(models: Path) -> None:
    # A network with more kinds of reasons than are shown.
    usual = run("inspect", models / "fashion_cnn.onnx", "--target", "webgpu").output
    most = run("inspect", models / "fashion_cnn.onnx", "--target", "webgpu", "-v").output
    assert "-v lists all" not in most
    assert len(most.splitlines()) >= len(usual.splitlines())


def test_verbose_says_what_is_done_apart_from_the_result(models: Path, tmp_path: Path) -> None:
    arguments = ("quantize", models / "fashion_mlp.onnx", "-o", tmp_path / "o.onnx")
    result = run(*arguments, "-v")
    assert any(line.endswith("; simplifying") for line in result.stderr.splitlines())
    assert "simplifying" not in result.stdout
    assert not run(*arguments).stderr


def test_how_much_is_said_ends_with_the_command(models: Path) -> None:
    run("inspect", models / "fashion_cnn.onnx", "-q")
    assert AMOUNT.get() is Amount.USUAL


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_told_how_much_to_say(name: str) -> None:
    found = CliRunner().invoke(cli, [name, "--help"]).output
    assert "-q, --quiet" in found
    assert "-v, --verbose" in found


def _in_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """What a command prints where it may use colours."""
    code = "from onnxpress.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", **environment},
    )
    return done.stdout


def test_no_color_leaves_out_colours(models: Path) -> None:
    model = models / "fashion_cnn.onnx"
    assert "\x1b[32mthe same" in _in_a_terminal("diff", model, model)
    assert "\x1b[32m" not in _in_a_terminal("diff", model, model, NO_COLOR="1")


def _completed(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    environment = {"_ONNXPRESS_COMPLETE": "bash_complete"}
    output = CliRunner().invoke(cli, [], prog_name="onnxpress", env=environment).output
    return [line.partition(",")[2] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("onnxpress in", ["inspect"]),
        ("onnxpress qu", ["quantize"]),
        ("onnxpress optimize --dry", ["--dry-run"]),
        ("onnxpress optimize --passes quantize,pr", ["quantize,prune"]),
        ("onnxpress optimize --target web", ["web", "webgpu"]),
        ("onnxpress optimize --goal la", ["latency"]),
        ("onnxpress targets show open", ["openvino"]),
        ("onnxpress explain K", ["K001", "K002"]),
    ],
)
def test_names_are_completed(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _completed(words, monkeypatch) == expected
