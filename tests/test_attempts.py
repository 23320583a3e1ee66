"""How much less of the budget a choice gets that broke on samples it had not seen."""

import math
from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK

import onnxpress
from onnxpress.attempts import seen_share
from onnxpress.judge import Measurement
from onnxpress.judge.measurement import ProbeFigure
from onnxpress.refinement import refitted


def measured(**levels: float) -> Measurement:
    probes = tuple(
        ProbeFigure(name, "y", level, least_db=17.0, number=3) for name, level in levels.items()
    )
    return Measurement({}, (), 8, "made", probes)


def test_what_was_seen_too_well_is_asked_for_beside_the_budget() -> None:
    share = seen_share(measured(sizes=24.4, stress=30.0), measured(sizes=15.0, stress=20.0))
    assert share == pytest.approx(10 ** (-(24.4 - 15.0) / 10))


@pytest.mark.parametrize(
    "judged",
    [measured(sizes=17.5), measured(), measured(other=3.0)],
    ids=["within", "none", "not seen by what chose"],
)
def test_probes_that_say_nothing_leave_the_budget_as_it_is(judged: Measurement) -> None:
    assert seen_share(measured(sizes=24.4), judged) == 1.0


def test_what_does_not_run_is_no_matter_of_decibels() -> None:
    assert seen_share(measured(sizes=20.0), measured(sizes=-math.inf)) == 1.0


def test_what_chose_the_same_is_no_reason() -> None:
    assert seen_share(measured(sizes=15.0), measured(sizes=16.0)) == 1.0


def test_way_that_loses_is_not_fitted_again(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refits: list[object] = []

    def counted(*args: Any, **given: Any) -> object:
        refits.append(args)
        return refitted(*args, **given)

    monkeypatch.setattr("onnxpress.pool.refitted", counted)
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
    )
    acted = [s for s in result.stages if s.pass_.stage.loses and s.decisions and s.pass_.refines]
    assert len(acted) > 1, "the way without the early passes was followed too, and lost"
    assert len(refits) == len(acted)
