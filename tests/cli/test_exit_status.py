"""Exit statuses 2, 3 and 130, and what is printed with them."""

import subprocess
import sys
import warnings

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
        (DataError("x.npz: holds no array"), 2, "error: x.npz: holds no array\n"),
        (KeyError("x"), 3, "this is a fault of onnxpress: KeyError: 'x'; report it with"),
        (PassError("acme", "wrote", "fc"), 3, "this is a fault of a pass: pass acme, site fc"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
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
    assert done.stderr.splitlines()[-1].startswith(("this is a fault", "error: no"))


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
