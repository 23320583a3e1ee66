"""Files appear together or not at all, and nothing but regular files is replaced."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxpress import model_file
from onnxpress.costs import RecordedClock
from onnxpress.errors import OutputError
from onnxpress.output_file import FileSet, check_output, replace_file, rewriting
from onnxpress.runtime import compare_latency


def write(path: Path, text: str) -> None:
    with replace_file(path) as temporary:
        temporary.write_text(text)


def test_set_is_renamed_only_when_all_is_there(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("old")

    def both() -> None:
        with FileSet() as files:
            with files.stage(first) as temporary:
                temporary.write_text("new")
            assert first.read_text() == "old"
            with files.stage(second) as temporary:
                raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device; nothing was written"):
        both()
    assert first.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_first_staged_exists_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    replace = Path.replace

    def told(self: Path, target: Path) -> Path:
        order.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", told)
    with FileSet() as files:
        for name in ("model", "recipe", "report"):
            with files.stage(tmp_path / name) as temporary:
                temporary.write_text(name)
    assert order == ["model", "recipe", "report"]


def device(folder: Path) -> Path:
    return Path(os.devnull)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def bound(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "s"))
    return folder / "s"


def linked_device(folder: Path) -> Path:
    (folder / "link").symlink_to(os.devnull)
    return folder / "link"


@pytest.mark.parametrize("make", [device, fifo, bound, linked_device])
def test_what_is_no_regular_file_is_never_replaced(
    tmp_path: Path, linear_model: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    before = path.stat()
    said = "is a device, a pipe or a socket"
    with pytest.raises(OutputError, match=said):
        check_output(path)
    with pytest.raises(OutputError, match=said):
        write(path, "x")
    with pytest.raises(OutputError, match=said):
        model_file.save(model_file.load(linear_model), path)
    assert path.stat().st_ino == before.st_ino


def test_symbolic_link_is_written_through(tmp_path: Path, linear_model: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.onnx"
    link.symlink_to("real/model.onnx")
    model = model_file.load(linear_model)
    for _ in range(2):
        model_file.save(model, link)
        assert link.is_symlink()
        assert model_file.load(tmp_path / "real/model.onnx").graph.name == "linear"
    with pytest.raises(OutputError, match=r"not be found through it; give .*real/model\.onnx"):
        model_file.save(model, link, external_data=True)


def test_link_in_a_circle_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="circle"):
        check_output(tmp_path / "a")


def test_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        check_output(tmp_path / ("x" * 300))


def test_longest_name_can_be_written(tmp_path: Path) -> None:
    write(tmp_path / ("x" * 255), "content")
    assert (tmp_path / ("x" * 255)).read_text() == "content"


def test_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from onnxpress.output_file import FileSet\n"
        "with FileSet() as files, files.stage(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [found.name.startswith(".onnxpress-") for found in tmp_path.iterdir()] == [True]
    write(path, "whole")
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


def test_what_a_living_run_stages_is_left(tmp_path: Path) -> None:
    with FileSet() as files, files.stage(tmp_path / "a") as temporary:
        temporary.write_text("a")
        write(tmp_path / "b", "b")
        assert temporary.read_text() == "a"
    assert (tmp_path / "a").read_text() == "a"


_COUNTS = """
import sys, time
from pathlib import Path
from onnxpress.output_file import rewriting
path = Path(sys.argv[1])
for _ in range(50):
    with rewriting(path):
        number = int(path.read_text())
        time.sleep(0.002)
        path.write_text(str(number + 1))
"""


def test_processes_with_other_temporary_folders_rewrite_a_file_one_at_a_time(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    counter = shared / "counter"
    counter.write_text("0")
    (tmp_path / "link").symlink_to(counter)
    running = []
    for name, path in (("first", counter), ("second", tmp_path / "link")):
        (tmp_path / name).mkdir()
        given = {**os.environ, "TMPDIR": str(tmp_path / name)}
        running.append(subprocess.Popen([sys.executable, "-c", _COUNTS, path], env=given))
    assert [process.wait() for process in running] == [0, 0]
    assert counter.read_text() == "100"
    # No lock is left behind.
    left = [path for name in ("shared", "first", "second") for path in (tmp_path / name).iterdir()]
    assert left == [counter]


def test_a_folder_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot be written: No such file.*O002"),
        rewriting(tmp_path / "nowhere" / "table.json"),
    ):
        pass


def test_a_clock_is_saved_where_there_is_no_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    RecordedClock({}, compare_latency).save(tmp_path / "timing.json")
    assert [path.name for path in tmp_path.iterdir()] == ["timing.json"]
