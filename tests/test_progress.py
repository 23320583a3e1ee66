"""Who watches is told how far a run is: a fraction of it, the time left, the best so far."""

import os
import pty
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from clocks import BY_WORK
from test_threads import in_use

import onnxpress
from onnxpress.cli.progress import line_of
from onnxpress.progress import Best, Progress, followed, part


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, by hand."""
    hand = [0.0]
    monkeypatch.setattr("onnxpress.progress.time.monotonic", lambda: hand[0])
    return hand


def test_parts_of_parts_are_fractions_of_the_whole() -> None:
    found: list[Progress] = []
    inner = part(part(found.append, 0.2, 0.6), 0.5, 1.0)
    inner(Progress("a"))
    inner(Progress("a", 1, 4))
    inner(Progress("a", 4, 4))
    inner(Progress("a", 0, 0))
    assert [event.fraction for event in found] == pytest.approx([0.4, 0.45, 0.6, 0.6])


def test_steps_without_an_end_come_nearer_to_it_and_never_there() -> None:
    fractions = [Progress("a", done).stage_fraction for done in (0, 1, 8, 1000)]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[2] == 0.5
    assert fractions[-1] < 1


def test_a_fraction_never_goes_back_and_the_best_stays(now: list[float]) -> None:
    found: list[Progress] = []
    tell = followed(found.append)
    best = Best(2.0, None, None, 30.0)
    for event in (Progress("a", fraction=0.5, best=best), Progress("b", fraction=0.2)):
        tell(event)
    tell(Progress("c"))
    assert [event.fraction for event in found] == [0.5, 0.5, 0.5]
    assert all(event.best == best for event in found)


def test_what_is_left_follows_from_what_is_done(now: list[float]) -> None:
    found: list[Progress] = []
    tell = followed(found.append)
    tell(Progress("a", fraction=0.0))
    now[0] = 30.0
    tell(Progress("b", fraction=0.25))
    assert [event.left_s for event in found] == [None, pytest.approx(90.0)]
    assert found[-1].elapsed_s == 30.0


def test_no_more_is_left_than_the_limit(now: list[float]) -> None:
    found: list[Progress] = []
    tell = followed(found.append, 60.0)
    tell(Progress("a", fraction=0.0))
    now[0] = 45.0
    tell(Progress("b", fraction=0.1))
    assert [event.left_s for event in found] == [60.0, 15.0]
    assert found[-1].fraction == 0.75


def test_where_the_whole_is_not_known_what_is_left_of_a_stage_is(now: list[float]) -> None:
    found: list[Progress] = []
    tell = followed(found.append)
    for second, done in ((0, 0), (10, 1), (20, 2)):
        now[0] = float(second)
        tell(Progress("statistics, block by block", done, 5))
    assert [event.stage_left_s for event in found] == [None, 40.0, 30.0]
    assert found[-1].left_s is None
    assert line_of(found[-1]) == "30 s left of this step; statistics, block by block: 2 of 5"


def test_a_line_has_percent_time_left_and_the_best_so_far() -> None:
    event = Progress(
        "quantize: models tried", 3, None, 0.424, 9.0, 600.0, best=Best(3.94, 2.1, 0.1, 30.0)
    )
    assert line_of(event) == (
        "42%, 10 min left; best 3.9x smaller, 2.10x faster; quantize: models tried: 3"
    )
    assert line_of(event, passed_s=590.0).startswith("42%, 10 s left; ")
    assert line_of(Progress("reading", fraction=1.0)) == "99%; reading", "it is not over"


def test_optimize_tells_how_far_it_is_and_of_the_best_model(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    found: list[onnxpress.Progress] = []
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
        progress=found.append,
    )
    fractions = [event.fraction for event in found]
    assert None not in fractions
    assert all(a <= b for a, b in pairwise(fractions))  # type: ignore[operator]
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert [event.stage for event in found].count("done") == 1
    assert any(0.2 < fraction < 0.8 for fraction in fractions if fraction)
    last = found[-1].best
    held = [row for row in result.frontier if row["model"] == "tried" and row["holds"]]
    assert last is not None
    assert any(
        row["size_ratio"] == pytest.approx(last.size_ratio, rel=0.02)
        and row["speedup"] == last.speed_ratio
        for row in held
    )
    assert found[0].best is None


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "when", ["reading", "quantize: statistics", "judging on untouched samples"]
)
def test_what_a_callback_raises_ends_the_run_as_it_is(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, error: BaseException
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = in_use()

    def progress(event: onnxpress.Progress) -> None:
        if event.stage == when:
            raise error

    with pytest.raises(type(error)) as raised:
        onnxpress.optimize(
            models / "fashion_mlp.onnx",
            passes=["quantize"],
            threads=1,
            clock=BY_WORK,
            progress=progress,
        )
    assert raised.value is error
    assert in_use() == before
    assert not list(tmp_path.iterdir())


def test_a_terminal_sees_percent_and_a_pipe_nothing(models: Path) -> None:
    model = str(models / "fashion_mlp.onnx")
    command = [sys.executable, "-m", "onnxpress", "diff", model, model]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
        os.close(theirs)
        shown = b""
        try:
            while piece := terminal.read(65536):
                shown += piece
        except OSError:
            # Linux says so when nobody holds the other end.
            pass
    assert b"comparing outputs" in shown
    assert b"%" in shown
    piped = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    assert piped.stderr == b""
