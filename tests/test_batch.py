"""Several models: where files go, that none stops the others, and how all ends."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK, ending
from command_line import message, run

import onnxpress
from onnxpress.apart import done_apart
from onnxpress.batch import AloneClock, Outcome, Task, filled, output_names
from onnxpress.progress import Progress, unheard


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/x.onnx", "b/y.onnx"], ["x.onnx", "y.onnx"]),
        (["a/m.onnx", "b/m.onnx", "c/n.onnx"], ["a-m.onnx", "b-m.onnx", "n.onnx"]),
        (["a/o/m.onnx", "b/o/m.onnx"], ["a-o-m.onnx", "b-o-m.onnx"]),
        (["/a/m.onnx", "/a/b/m.onnx"], ["a-m.onnx", "b-m.onnx"]),
        (["a/b.onnx", "c/b.onnx", "d/a-b.onnx"], None),
        (["a/M.onnx", "b/m.onnx"], ["a-M.onnx", "b-m.onnx"]),
        ([], []),
    ],
)
def test_models_of_one_name_are_told_apart(sources: list[str], names: list[str] | None) -> None:
    found = output_names([Path(source) for source in sources])
    assert names is None or found == names
    assert len({name.casefold() for name in found}) == len(sources)
    assert all(name.endswith(".onnx") and "/" not in name for name in found)


def test_paths_of_each_model_are_filled_in() -> None:
    options = {"calibration": "{folder}/{name}.npz", "recipe": Path("r/{name}.toml"), "seed": 0}
    found = filled(options, Path("a/bert.onnx"))
    assert found == {"calibration": "a/bert.npz", "recipe": Path("r/bert.toml"), "seed": 0}


def ran(task: Task, stop: Callable[[], bool] = lambda: False) -> Outcome:
    return done_apart(task, unheard, stop)


def test_a_process_of_its_own_writes_the_same_bytes(linear_model: Path, tmp_path: Path) -> None:
    events: list[Progress] = []
    options = {"goal": "size", "clock": BY_WORK}
    task = Task(linear_model, tmp_path / "apart.onnx", options)
    found = done_apart(task, events.append, lambda: False)
    assert found.status == "within the budget", found.message
    assert events
    onnxpress.optimize(linear_model, **options).save(tmp_path / "here.onnx")  # type: ignore[arg-type]
    assert (tmp_path / "apart.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_a_process_that_is_killed_is_an_outcome(linear_model: Path, tmp_path: Path) -> None:
    found = ran(Task(linear_model, tmp_path / "o.onnx", {"clock": ending}))
    assert found.status == "fault"
    assert "ended by SIGKILL" in found.message
    assert not (tmp_path / "o.onnx").exists()


def test_a_fault_of_ours_is_told_by_its_last_words(linear_model: Path, tmp_path: Path) -> None:
    found = ran(Task(linear_model, tmp_path / "o.onnx", {"no_such_option": 1}))
    assert found.status == "fault"
    assert "no_such_option" in found.message


def test_an_error_is_an_outcome_with_its_code(tmp_path: Path) -> None:
    found = ran(Task(tmp_path / "none.onnx", tmp_path / "o.onnx"))
    assert (found.status, found.code) == ("failed", "M001")


def test_a_wish_to_stop_reaches_the_process(models: Path, tmp_path: Path) -> None:
    given = {"calibration": str(models / "fashion_calibration.npz"), "goal": "size"}
    task = Task(models / "fashion_mlp.onnx", tmp_path / "o.onnx", given)
    found = ran(task, stop=lambda: True)
    assert found.report is not None, found.message
    assert "[L019]" in json.dumps(found.report)


def test_only_one_is_timed_at_a_time() -> None:
    running: list[int] = []
    most: list[int] = []

    def clock(*_: Any, **__: Any) -> Any:
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.05)
        running.pop()

    alone = AloneClock(clock)
    nothing: Any = None
    threads = [threading.Thread(target=alone, args=(nothing,) * 3) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


@pytest.fixture
def folder(linear_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models of one name, and a file that is none."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(linear_model, tmp_path / name / "m.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_broken_model_does_not_stop_the_others(folder: Path) -> None:
    done = run("optimize", "a/m.onnx", "broken.onnx", "b/m.onnx", "-o", "OUT/", "--json", "o.json")
    assert done.exit_code == 2, done.output
    for name in ("a-m.onnx", "a-m.recipe.toml", "b-m.onnx", "b-m.recipe.toml"):
        assert (folder / "OUT" / name).is_file()
    assert max(map(len, done.output.splitlines())) <= 80
    found = json.loads((folder / "o.json").read_text())["models"]
    assert [one["status"] for one in found] == ["within the budget", "failed", "within the budget"]
    assert found[0]["report"]["within_budget"] is True
    assert found[1]["code"] == "M002"


def test_all_within_the_budget_is_status_0_and_a_second_run_replaces_it(folder: Path) -> None:
    for _ in range(2):
        assert run("optimize", "a/m.onnx", "b/m.onnx", "-o", "OUT/").exit_code == 0


def test_what_lies_in_the_current_folder_is_not_imported(folder: Path) -> None:
    (folder / "queue.py").write_text("raise SystemExit('not ours')")
    assert run("optimize", "a/m.onnx", "b/m.onnx", "-o", "OUT/").exit_code == 0


def test_what_is_not_met_is_status_1(folder: Path) -> None:
    done = run("optimize", "a/m.onnx", "b/m.onnx", "-o", "OUT/", "--max-size", "1kB")
    assert done.exit_code == 1, done.output


def test_a_document_does_not_replace_a_result(folder: Path) -> None:
    (folder / "OUT").mkdir()
    done = run("optimize", "a/m.onnx", "b/m.onnx", "-o", "OUT/", "--json", "OUT/a-m.onnx")
    assert done.exit_code == 2
    assert "another output" in message(done)
    assert not list((folder / "OUT").iterdir())


def test_one_model_into_a_folder(folder: Path) -> None:
    assert run("optimize", "a/m.onnx", "-o", "OUT/").exit_code == 0
    assert (folder / "OUT" / "m.onnx").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a/m.onnx", "b/m.onnx"], "need a folder for their results: -o OUT/"),
        (["a/m.onnx", "b/m.onnx", "-o", "broken.onnx"], "this is a file"),
        (["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--report", "o.html"], "leave --report out"),
        (["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--frontier", "f"], "one at a time"),
        (["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--recipe", "r.toml"], "a recipe is of one model"),
        (["a/m.onnx", "b/m.onnx", "-o", "no/OUT/"], "no"),
        (["a/m.onnx", "broken.onnx", "-o", "a/"], "never overwritten"),
        (["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--json", "a/m.onnx"], "would overwrite an input"),
        (
            ["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--target", "coreml", "--external-data"],
            "coreml does not read weights",
        ),
        (["a/m.onnx", "b/m.onnx", "-o", "OUT/", "--target", "nothing"], "nothing"),
    ],
)
def test_what_several_models_cannot_have_is_refused_before_any_work(
    folder: Path, arguments: list[str], says: str
) -> None:
    done = run("optimize", *arguments)
    assert done.exit_code == 2, done.output
    assert says in message(done)
    assert not (folder / "OUT").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_begins_no_other(folder: Path) -> None:
    """A terminal sends the signal to the group of the command; children are in others."""
    script = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxpress.cli import main, several
usual = several.done_apart
def first(task, progress, stop):
    stop()
    found = usual(task, progress, stop)
    os.kill(os.getpid(), signal.SIGINT)
    return found
several.done_apart = first
main()
"""
    command = ["optimize", "a/m.onnx", "b/m.onnx", "-o", "OUT/", "--json", "o.json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 130, done.stderr
    found = json.loads((folder / "o.json").read_text())["models"]
    assert [one["status"] for one in found] == ["within the budget", "stopped"]
    assert (folder / "OUT" / "a-m.onnx").is_file()
