"""Ctrl-C: what is written, what is said, and the exit status; in processes of their own."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxpress
from onnxpress.cli.interruption import Interruption, interruptible
from onnxpress.model_file import save
from onnxpress.runtime import Session
from onnxpress.testing import SAMPLE_MODELS

SCRIPT = """
import os, signal, sys
# As a terminal starts a process; background jobs of a shell ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxpress.cli import main
from onnxpress import model_file
from onnxpress.search.measured import MeasuredTrials

place, times = sys.argv.pop(1), int(sys.argv.pop(1))
of, name = {"search": (MeasuredTrials, "measure"), "reading": (model_file, "load")}[place]
usual = getattr(of, name)

def interrupted(*arguments, **options):
    global times
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
    times = 0
    return usual(*arguments, **options)

setattr(of, name, interrupted)
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a model and samples."""
    save(SAMPLE_MODELS["cnn_opset17"](), tmp_path / "model.onnx")
    (spec,) = Session(tmp_path / "model.onnx").inputs
    shape = [24, *(dim if isinstance(dim, int) else 1 for dim in spec.shape[1:])]
    data = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    np.savez(tmp_path / "data.npz", **data)  # type: ignore[arg-type]
    return tmp_path


def interrupted(folder: Path, place: str, times: int) -> subprocess.CompletedProcess[str]:
    """`optimize`, with so many Ctrl-C at a place."""
    options = ["--calibration", "data.npz", "--goal", "size", "--json", "out.json"]
    command = ["optimize", "model.onnx", *options, "-o", "out.onnx"]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, place, str(times), *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_best_so_far_is_judged_and_written_with_status_130(folder: Path) -> None:
    done = interrupted(folder, "search", 1)
    assert done.returncode == 130, done.stderr
    assert "the best so far is judged and written" in done.stderr
    assert "Traceback" not in done.stderr
    onnx.checker.check_model(onnx.load(folder / "out.onnx"))
    report = json.loads((folder / "out.json").read_text())
    assert report["within_budget"]
    assert any("was stopped" in warning for warning in report["validation"]["warnings"])
    acted = {stage["pass"] for stage in report["stages"] if stage["decisions"]}
    assert "quantize" in acted, "what had been tried by then"


def test_a_second_one_ends_at_once_and_writes_nothing(folder: Path) -> None:
    done = interrupted(folder, "search", 2)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "data.npz"}


def test_before_the_search_the_first_one_ends_it(folder: Path) -> None:
    done = interrupted(folder, "reading", 1)
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "data.npz"}


def test_a_search_that_is_stopped_at_once_leaves_what_loses_nothing(folder: Path) -> None:
    result = onnxpress.optimize(
        folder / "model.onnx", calibration=folder / "data.npz", stop=lambda: True
    )
    assert result.within_budget
    acted = [stage.pass_.name for stage in result.stages if stage.decisions]
    assert acted == ["simplify"]
    notes = {stage.pass_.name: stage.note for stage in result.stages}
    assert notes["quantize"] == "left out: the search was stopped [L019]"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_is_put_back() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible() as found:
            assert signal.getsignal(signal.SIGINT) == found.handle
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_wish_is_only_taken_from_when_somebody_asks(capfd: pytest.CaptureFixture[str]) -> None:
    found = Interruption()
    with pytest.raises(KeyboardInterrupt):
        found.handle(signal.SIGINT, None)
    assert not found()
    found.handle(signal.SIGINT, None)
    assert found()
    assert "Ctrl-C again ends at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        found.handle(signal.SIGINT, None)
