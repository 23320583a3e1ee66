"""What of other systems can be shown on Linux: that nothing is asked for which they do not have.

A process takes away what Windows lacks (fork, process groups, signals, fcntl) and says that it is
Windows, once the libraries are loaded. `mypy --platform win32` of `.ci/run` sees to the rest.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AS_WINDOWS = """
import onnxpress
import ctypes, fcntl, os, signal, sys, time, types
from pathlib import Path
import click, rich.console, rich.progress, rich.table, numpy, onnx, onnx_ir, onnxruntime
import onnxscript.optimizer, onnxscript.rewriter, importlib.metadata, threadpoolctl, tempfile
import onnx_ir.passes.common, onnx.external_data_helper, onnx.version_converter, shutil

def locking(descriptor, mode, count):
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_LOCK, msvcrt.LK_NBLCK, msvcrt.locking = 1, 2, locking
sys.modules["msvcrt"] = msvcrt
sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["pwd"] = None
for name in ("fork", "killpg", "geteuid", "getppid", "sysconf", "O_DIRECTORY", "O_NOFOLLOW"):
    delattr(os, name)
for name in ("SIGHUP", "SIGQUIT", "SIGCHLD", "SIGKILL", "pthread_sigmask", "sigwaitinfo"):
    delattr(signal, name)

def fill(place):
    place._obj.free = 4_000_000_000

kernel = types.SimpleNamespace(GlobalMemoryStatusEx=fill)
ctypes.windll = types.SimpleNamespace(kernel32=kernel)
sys.platform = "win32"
"""


def as_windows(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", AS_WINDOWS + code],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        encoding="cp1252",
        check=False,
    )


@pytest.mark.slow
def test_optimize_asks_for_nothing_that_windows_lacks(tmp_path: Path) -> None:
    model = ROOT / "models" / "fashion_mobile.onnx"
    done = as_windows(
        f"sys.argv = ['onnxpress', 'optimize', {str(model)!r}, '-o', 'out.onnx']\n"
        "from onnxpress.cli.commands import main\nmain()\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "within the budget" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"out.onnx", "out.recipe.toml"}
    assert b"\r" not in (tmp_path / "out.recipe.toml").read_bytes()


def test_a_folder_in_use_stays_and_one_left_over_goes(tmp_path: Path) -> None:
    done = as_windows(
        "from onnxpress.temporary import TemporaryFolder\n"
        "place = Path('.').resolve()\n"
        "old, young = place / 'onnxpress-aaaaaaaa.tmp', place / 'onnxpress-bbbbbbbb.tmp'\n"
        "for one in (old, young):\n"
        "    one.mkdir()\n"
        "    (one / '.onnxpress-lock').touch()\n"
        "used = TemporaryFolder(place)\n"
        "for one in (old, used.path):\n"
        "    os.utime(one, (1, 1))\n"
        "other = TemporaryFolder(place)\n"
        "assert used.path.exists() and young.exists() and not old.exists()\n"
        "used.close()\n"
        "other.close()\n"
        "assert {path.name for path in place.iterdir()} == {young.name}, list(place.iterdir())\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_signs_that_a_pipe_cannot_write_are_no_fault(tmp_path: Path) -> None:
    done = as_windows(
        "sys.argv = ['onnxpress', 'explain', 'A→B']\n"
        "from onnxpress.cli.commands import main\nmain()\n",
        tmp_path,
    )
    assert done.returncode == 2
    assert "A?B" in done.stderr
    assert "Traceback" not in done.stderr
