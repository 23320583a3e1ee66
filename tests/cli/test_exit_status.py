"""Exit statuses 2, 3 and 130, and what is printed with them."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnxpress import registry
from onnxpress.cli import cli
from onnxpress.entry_points import LeftOutWarning
from onnxpress.errors import DataError, PassError


def passes_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Result:
    """`onnxpress passes`, in which something goes wrong once it runs."""
    monkeypatch.setattr("onnxpress.cli.passes.registry", Failing(error))
    return CliRunner().invoke(cli, ["passes"])


class Failing:
    """Stands for the registry."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def names(self) -> list[str]:
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (DataError("x.npz: holds no array"), 2, "error[D000]: x.npz: holds no array\n"),
        (KeyError("x"), 3, "this is a fault of onnxpress: KeyError: 'x'; report it with"),
        (PassError("acme", "wrote", "fc"), 3, "this is a fault of a pass: pass acme, site fc"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "/a"), 2, "error: /a: Permission denied\n"),
        (OSError(36, "File name too long", "xx"), 2, "error: xx: File name too long\n"),
        (OSError(5, "Input/output error"), 3, "this is a fault of onnxpress: OSError: "),
        (ValueError("No.\nStacktrace:\n" + "#0 f\n" * 99), 3, "this is a fault of onnxpress: Valu"),
    ],
)
def test_error_becomes_one_sentence_and_a_status(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, expected: str
) -> None:
    result = passes_raising(error, monkeypatch)
    assert result.exit_code == status
    assert result.stderr.startswith(expected)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_wrong_option_is_2() -> None:
    assert CliRunner().invoke(cli, ["passes", "--absent"]).exit_code == 2


@pytest.mark.parametrize(("options", "traceback"), [([], False), (["--debug"], True)])
@pytest.mark.parametrize(("error", "status"), [("ValueError", 3), ("UsageError", 2)])
def test_traceback_is_shown_with_debug_alone(
    options: list[str], error: str, status: int, *, traceback: bool
) -> None:
    code = (
        "import sys, types\nfrom onnxpress.errors import UsageError\n"
        f"def names(): raise {error}('no')\n"
        "import onnxpress.cli.passes\nfrom onnxpress.cli import main\n"
        "onnxpress.cli.passes.registry = types.SimpleNamespace(names=names)\n"
        f"sys.argv = ['onnxpress', 'passes', *{options!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert ("Traceback" in done.stderr) is traceback
    assert done.stderr.splitlines()[-1].startswith(("this is a fault", "error[U000]: no"))


def test_interrupt_while_optimizing_leaves_nothing(tmp_path: Path, linear_model: Path) -> None:
    output = tmp_path / "folder" / "out.onnx"
    output.parent.mkdir()
    code = (
        "import os, signal, sys\nimport onnxpress.pipeline as pipeline\n"
        # A shell starts what runs in the background with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def interrupted(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
        "pipeline.judged_attempt = interrupted\nfrom onnxpress.cli import main\n"
        f"sys.argv = ['onnxpress', 'optimize', {str(linear_model)!r}, '-o', {str(output)!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/a.onnx"])
@pytest.mark.parametrize("command", ["inspect", "optimize", "bench"])
def test_name_that_is_too_long_is_one_sentence(command: str, name: str) -> None:
    result = CliRunner().invoke(cli, [command, name])
    assert result.exit_code == 2
    assert "File name too long" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_left_out_is_one_line_of_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> list[str]:
        warnings.warn("'parquet' is left out", LeftOutWarning, stacklevel=1)
        return []

    monkeypatch.setattr(registry, "names", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(cli, ["passes"])
    assert result.exit_code == 0
    assert "none is installed" in result.stdout
    assert set(result.stderr.splitlines()) == {"warning: 'parquet' is left out"}


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxpress", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("onnxpress, version ")
