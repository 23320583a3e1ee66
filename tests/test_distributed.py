"""Workers of Dask: the same bytes as one process, a lost one, broken models, wrong use."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import BY_WORK, EndingParentOnce
from command_line import message, run

from onnxpress.apart import done_apart
from onnxpress.batch import Task
from onnxpress.distributed import done_by_workers, require_scheduler
from onnxpress.errors import UsageError
from onnxpress.model_file import save
from onnxpress.progress import Progress, unheard
from onnxpress.testing import SAMPLE_MODELS

pytestmark = [
    # What Dask and its server leave to be collected is theirs.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find what the tests define."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def tasks(folder: Path, out: str, **options: Any) -> list[Task]:
    """Six models and two files that are none."""
    found = []
    (folder / out).mkdir()
    for place, name in enumerate(["mlp_opset17", "cnn_opset17", "loop_body"] * 2):
        source = folder / f"{place}.onnx"
        if not source.exists():
            save(SAMPLE_MODELS[name](), source)
        found.append(Task(source, folder / out / source.name, {"clock": BY_WORK, **options}))
    (folder / "broken.onnx").write_bytes(b"no model")
    for name in ("broken.onnx", "missing.onnx"):
        found.insert(2, Task(folder / name, folder / out / name))
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_two_workers_make_the_bytes_of_one_process_and_lose_no_model(tmp_path: Path) -> None:
    """One worker is killed in the middle of a model, and two of eight models are broken."""
    here = [done_apart(task, unheard, lambda: False) for task in tasks(tmp_path, "here")]
    shared = tasks(tmp_path, "shared")
    ending = {"clock": EndingParentOnce(tmp_path / "ended")}
    shared[0] = Task(shared[0].source, shared[0].output, ending)
    events: list[Progress] = []
    found = done_by_workers(shared, "local:2", events.append, lambda: False)
    assert (tmp_path / "ended").exists(), "a worker was killed"
    assert [one.status for one in found] == [one.status for one in here]
    assert [one.status for one in found].count("failed") == 2
    assert [one.source for one in found] == [task.source for task in shared]
    for task in shared:
        if task.output.exists():
            other = tmp_path / "here" / task.output.name
            assert task.output.read_bytes() == other.read_bytes(), task.source
    assert len(list((tmp_path / "shared").glob("*.onnx"))) == 6
    assert (events[-1].done, events[-1].total) == (8, 8)


def searched(folder: Path, out: str) -> list[Task]:
    """A model whose layers are split and rounded by what samples show, with four seeds."""
    (folder / out).mkdir()
    source = folder / "mlp.onnx"
    if not source.exists():
        save(SAMPLE_MODELS["mlp_opset17"](), source)
    rows = np.random.default_rng(0).standard_normal((48, 96)).astype(np.float32)
    options = {"calibration": {"x": rows}, "threads": 1, "clock": BY_WORK}
    return [
        Task(source, folder / out / f"{seed}.onnx", {**options, "seed": seed}) for seed in range(4)
    ]


@pytest.mark.long
@pytest.mark.usefixtures("everywhere")
def test_any_number_of_workers_makes_the_bytes_of_one_process(tmp_path: Path) -> None:
    alone = [done_apart(task, unheard, lambda: False) for task in searched(tmp_path, "alone")]
    assert {one.status for one in alone} == {"within the budget"}
    for workers in (1, 2, 4):
        shared = searched(tmp_path, f"local {workers}")
        found = done_by_workers(shared, f"local:{workers}", unheard, lambda: False)
        assert [one.status for one in found] == [one.status for one in alone]
        for task in shared:
            for name in (task.output.name, f"{task.output.stem}.recipe.toml"):
                own, other = task.output.with_name(name), tmp_path / "alone" / name
                assert own.read_bytes() == other.read_bytes(), (workers, name)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_the_command_shares_models_out(linear_model: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(linear_model, tmp_path / name)
    report = tmp_path / "o.json"
    command = ("optimize", tmp_path / "a.onnx", tmp_path / "b.onnx", "-o", f"{tmp_path}/OUT/")
    done = run(*command, "--goal", "size", "--scheduler", "local:1", "--json", report)
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert found["scheduler"] == "local:1"
    assert [one["status"] for one in found["models"]] == ["within the budget"] * 2
    assert (tmp_path / "OUT" / "a.onnx").read_bytes() == (tmp_path / "OUT" / "b.onnx").read_bytes()


@pytest.mark.parametrize("scheduler", ["local", "local:0", "local:two", "10.0.0.1:8786", ""])
def test_what_is_no_scheduler_is_refused(scheduler: str) -> None:
    with pytest.raises(UsageError, match="expected local:N"):
        require_scheduler(scheduler)


def test_the_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"onnxpress\[distributed\]"):
        require_scheduler("local:2")


def test_one_model_needs_no_scheduler(linear_model: Path) -> None:
    done = run("optimize", linear_model, "--scheduler", "local:2")
    assert done.exit_code == 2
    assert "give several" in message(done)


def test_an_address_where_nothing_listens_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxpress.distributed._CONNECTING_S", 1)
    with pytest.raises(UsageError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        done_by_workers([], "tcp://127.0.0.1:9", unheard, lambda: False)
