"""A clock that remembers: what it was told once it says again, whatever the time."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from clocks import TableClock, by_work
from command_line import run
from costs_of import mlp

import onnxpress
from onnxpress.costs import RecordedClock, for_judging, node_keys, replaying
from onnxpress.errors import OutputError
from onnxpress.runtime import Latency, Session

FEED = {"x": np.ones((2, 64), np.float32)}


def asked(clock: RecordedClock, *hidden: int) -> Latency:
    first, second = (Session(mlp(width), threads=1) for width in hidden)
    return clock(first, second, FEED)


def counting(cost: Callable[[ir.Model], float]) -> tuple[TableClock, list[ir.Model]]:
    """A clock, and what it was asked about."""
    seen: list[ir.Model] = []

    def noted(model: ir.Model) -> float:
        seen.append(model)
        return cost(model)

    return TableClock(noted), seen


def rows_of(model: ir.Model) -> int:
    """The width of `mlp`."""
    held = model.graph.initializers["v"].const_value
    assert held is not None
    return int(held.numpy().shape[0])


def test_a_pair_is_measured_once() -> None:
    inner, seen = counting(lambda model: float(rows_of(model)))
    clock = RecordedClock({}, inner)
    assert asked(clock, 128, 64).speedup == pytest.approx(2.0)
    assert asked(clock, 128, 64).speedup == pytest.approx(2.0)
    assert len(seen) == 2
    assert asked(clock, 128, 32).speedup == pytest.approx(4.0)
    assert len(seen) == 4


def test_sessions_are_looked_at_once_however_often_they_are_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[ir.Model] = []

    def noted(model: ir.Model, *given: Any) -> Any:
        looked.append(model)
        return node_keys(model, *given)

    monkeypatch.setattr(replaying, "node_keys", noted)
    clock = RecordedClock({}, TableClock(lambda _: 1.0))
    first, second = (Session(mlp(width), threads=1) for width in (128, 64))
    for rows in (2, 2, 3):
        clock(first, second, {"x": np.ones((rows, 64), np.float32)})
    # Of other shapes they take other times.
    assert len(looked) == 4
    assert len(clock.known) == 2


def test_rounds_that_chose_are_not_told_to_who_judges() -> None:
    inner, seen = counting(lambda model: float(rows_of(model)))
    clock = RecordedClock({}, inner)
    asked(clock, 128, 64)
    judging = for_judging(clock)
    assert isinstance(judging, RecordedClock)
    for _ in range(2):
        asked(judging, 128, 64)
        assert len(seen) == 4
    assert len(clock.known) == 2
    again = RecordedClock(clock.known, inner)
    asked(again, 128, 64)
    asked(again.judging(), 128, 64)
    assert len(seen) == 4


def test_answers_within_noise_of_each_other_are_the_same() -> None:
    clocks = [RecordedClock({}, TableClock(taking)) for taking in (lambda _: 2.0, lambda _: 2.01)]
    assert asked(clocks[0], 128, 64) == asked(clocks[1], 128, 64)


def test_a_file_gives_the_answers_again(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    first = RecordedClock.of_file(path, TableClock(lambda _: 3.0))
    told = asked(first, 128, 64)
    first.save(path)
    inner, seen = counting(lambda _: 5.0)
    assert asked(RecordedClock.of_file(path, inner), 128, 64) == told
    assert seen == []


def answer(took: float) -> Latency:
    return Latency(took, 2 * took, 2.0, 2.0, 2.0)


def test_runs_at_once_that_write_one_file_keep_each_others_answers(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    clocks = [RecordedClock({f"pair {number}": answer(1.0)}) for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda clock: clock.save(path), clocks))
    assert set(RecordedClock.of_file(path).known) == {f"pair {number}" for number in range(16)}
    assert [file.name for file in tmp_path.iterdir()] == ["times.json"]


def test_what_others_wrote_of_a_pair_stays(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    first, second = RecordedClock({"pair": answer(1.0)}), RecordedClock({"pair": answer(3.0)})
    first.save(path)
    second.save(path)
    assert RecordedClock.of_file(path).known == {"pair": answer(1.0)}


def test_a_file_that_became_something_else_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    clock = RecordedClock.of_file(path)
    path.write_text("notes")
    with pytest.raises(OutputError, match=r"no table of times.*\[O004\]"):
        clock.save(path)
    assert path.read_text() == "notes"


OTHERS = ["", "{}", "[]", '{"format": "onnxpress timing 1"}', "\x00", "[" * 100_000]


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_a_file_of_something_else_is_refused_and_kept(content: str, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    with pytest.raises(OutputError, match=r"no table of times.*\[O004\]"):
        RecordedClock.of_file(path)
    result = run("optimize", "missing.onnx", "--timing", path)
    assert result.exit_code == 2
    assert path.read_text() == content


def test_the_same_table_gives_the_same_bytes_on_another_machine(
    models: Path, small_data: tuple[Path, Path], tmp_path: Path
) -> None:
    made = []
    path = tmp_path / "times.json"
    # The second machine is one whose integers are slow: by its own clock it would leave them out.
    for integers in (3.0, 0.2):
        clock = RecordedClock.of_file(path, by_work(integers=integers))
        result = onnxpress.optimize(
            models / "fashion_mlp.onnx",
            calibration=small_data[0],
            evaluation=small_data[1],
            passes=["quantize"],
            clock=clock,
            threads=1,
        )
        clock.save(path)
        result.save(tmp_path / "out.onnx")
        made.append((tmp_path / "out.onnx").read_bytes())
    assert made[0] == made[1]
    alone = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        passes=["quantize"],
        clock=by_work(integers=0.2),
        threads=1,
    )
    alone.save(tmp_path / "alone.onnx")
    assert (tmp_path / "alone.onnx").read_bytes() != made[0]


def test_the_command_writes_what_it_measured(models: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "times.json", tmp_path / "o.onnx"
    args = ("optimize", models / "fashion_mlp.onnx", "-o", out, "--passes", "quantize", "--force")
    assert run(*args, "--timing", path).exit_code == 0
    told = json.loads(path.read_text())
    assert told["format"] == "onnxpress timing 1"
    assert told["pairs"]
    before = out.read_bytes()
    assert run(*args, "--timing", path).exit_code == 0
    assert out.read_bytes() == before
    assert json.loads(path.read_text())["pairs"] == told["pairs"]
