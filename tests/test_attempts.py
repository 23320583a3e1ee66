"""How much less of the budget a choice gets that broke on samples it had not seen."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx_ir as ir
import pytest
from clocks import BY_WORK, TableClock
from generated import initialized

import onnxpress
from onnxpress.attempts import Attempt, best_attempt, judged_attempt, seen_share
from onnxpress.contract import Candidate, Context, Decision
from onnxpress.judge import Evaluator, Measurement
from onnxpress.judge.measurement import ProbeFigure
from onnxpress.original import Run
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.recipe import RecipeStage
from onnxpress.runtime import Latency
from onnxpress.search import SearchOptions
from onnxpress.stage_result import StageResult
from onnxpress.stages import Variant
from onnxpress.validation import Validation


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


def test_ways_that_lose_are_not_fitted_again(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last pass: what earlier ones lose is missing to those behind them."""
    refits: list[set[str]] = []

    def counted(
        self: Pool, context: Context, decisions: Sequence[Decision], *args: Any, **given: Any
    ) -> ir.Model:
        refits.append({d.candidate.pass_name for d in decisions if d.candidate.refined})
        return rewrite_refined(self, context, decisions, *args, **given)

    rewrite_refined = Pool.rewrite_refined
    monkeypatch.setattr(Pool, "rewrite_refined", counted)
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
    )
    acted = [s for s in result.stages if s.pass_.stage.loses and s.decisions and s.pass_.refines]
    assert len(acted) > 1, "the way without the early passes was followed too, and lost"
    assert [found for found in refits if "quantize" in found] == [{"quantize"}]


def a_run(options: SearchOptions) -> Run:
    """Of two passes, with as much of it as decides which way is taken."""
    recipe = SimpleNamespace(
        stages=[RecipeStage(Prune(), None), RecipeStage(Quantize(), None)],
        conversion=SimpleNamespace(float16="no"),
    )
    evaluator = SimpleNamespace(noise=lambda measurement: -measurement.samples)
    request = SimpleNamespace(named=False, progress=lambda _: None)
    nothing: Any = None
    return Run(
        cast("Any", request),
        cast("Any", recipe),
        cast("Any", SimpleNamespace(model=weighing(8))),
        nothing,
        nothing,
        cast("Any", evaluator),
        options,
        nothing,
    )


def weighing(width: int) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[1, {width}] x, float[{width}, {width}] a) => (float[1, {width}] y) {{
        y = MatMul (x, a) }}"""
    return initialized(text)


def tried(
    monkeypatch: pytest.MonkeyPatch,
    alone: int,
    fitted: int,
    *,
    refining: bool = True,
    options: SearchOptions = SearchOptions(),  # noqa: B008 - frozen
    took: Callable[[], None] = lambda: None,
) -> list[tuple[bool, ...]]:
    """What is tried: without `prune`? rough? what was taken, fitted again? Last, what is given.

    Args:
        monkeypatch: puts attempts from a table in the place of those that are carried out.
        alone: the width of the model without `prune`; with, it is 16.
        fitted: the larger, the nearer it is fitted again; rough models are at 0.
        refining: whether the last pass fits again at all.
        options: of the search.
        took: is called for each way.
    """
    asked: list[tuple[bool, ...]] = []

    def attempt(_: Run, variant: Variant, timed: Latency | None = None) -> Attempt:
        asked.append((bool(variant.skipped), variant.rough, bool(variant.taken)))
        took()
        model = weighing(alone if variant.skipped else 16)
        decision = Decision("a", Candidate({}, 0.1, 10, keeps_kernels=True))
        last = Quantize(refinement=refining)
        stages = tuple(
            StageResult(pass_, model, (decision,), sated=True) for pass_ in (Prune(), last)
        )
        measurement = Measurement({}, (), fitted if variant.taken else 0, "made")
        assert bool(timed) is bool(variant.taken), "what has been timed is as fast fitted again"
        latency = timed or Latency(1.0, 1.0, 1.0, 1.0, 1.0)
        return Attempt(model, stages, within=True, measurement=measurement, latency=latency)

    monkeypatch.setattr("onnxpress.attempts.attempt_of", attempt)
    given = best_attempt(a_run(options))
    return [*asked, (given.measurement.samples > 0,)]


@pytest.mark.parametrize("alone", [8, 32])
def test_only_the_way_that_is_taken_is_fitted_again(
    alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [(True, True, False), (False, True, False)]
    assert tried(monkeypatch, alone, fitted=1) == [*both, (alone < 16, False, True), (True,)]


@pytest.mark.parametrize(
    ("alone", "limit", "looked"),
    [(16, math.inf, False), (17, math.inf, True), (16, 1e9, True), (8, math.inf, False)],
    ids=["gains nothing", "gains 11%", "with a time limit", "loses"],
)
def test_another_division_is_looked_for_where_the_early_passes_gain(
    alone: int, limit: float, *, looked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain weighs 16 by 16, the last pass alone `alone` by `alone`."""
    asked: list[Variant] = []

    def nothing_else(_: Run, even: Variant, first: Attempt, *_others: object) -> list[Any]:
        asked.append(even)
        return [(even, first)]

    monkeypatch.setattr("onnxpress.attempts.divided", nothing_else)
    tried(monkeypatch, alone, fitted=1, options=SearchOptions(deadline=limit))
    assert bool(asked) is looked


def test_where_nothing_is_fitted_again_nothing_is_carried_out_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *asked, _ = tried(monkeypatch, 8, fitted=1, refining=False)
    assert asked == [(True, True, False), (False, True, False)]


def test_without_time_the_last_pass_alone_stays_as_it_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = SearchOptions(deadline=-1.0)
    assert tried(monkeypatch, 32, fitted=1, options=over) == [(True, True, False), (False,)]


def test_the_chain_is_followed_where_as_much_time_is_left_as_the_last_pass_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that says 30 s more each time a way ends."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for limit, followed in ((59.0, False), (61.0, True)):
        now[0] = 0.0
        found = tried(
            monkeypatch,
            32,
            fitted=1,
            options=SearchOptions(deadline=limit),
            took=lambda: now.__setitem__(0, now[0] + 30.0),
        )
        assert ((False, True, False) in found) is followed


def test_where_early_passes_change_nothing_the_last_one_is_searched_once(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    """By a clock that finds nothing faster, which leaves rounded weights."""
    told: list[str] = []
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=TableClock(lambda _: 1.0),
        progress=lambda event: told.append(event.stage),
    )
    assert [s.pass_.name for s in result.stages if s.decisions and s.pass_.stage.loses] == [
        "quantize"
    ]
    assert [told.count(f"{name}: statistics") for name in ("prune", "quantize")] == [1, 1]
    (pruned,) = [stage for stage in result.stages if stage.pass_.name == "prune"]
    assert "by the clock" in pruned.note, "why it did nothing, not that it was left out"


def test_a_short_limit_is_spent_on_the_last_pass(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that says a second more whenever something is told."""
    told: list[str] = []
    monkeypatch.setattr("time.monotonic", lambda: float(len(told)))

    def optimized(limit: float | None) -> onnxpress.Result:
        told.clear()
        return onnxpress.optimize(
            models / "fashion_mlp.onnx",
            calibration=small_data[0],
            evaluation=small_data[1],
            clock=BY_WORK,
            time_limit=limit,
            progress=lambda event: told.append(event.stage),
        )

    unlimited = optimized(None)
    assert {s.pass_.name for s in unlimited.stages if s.decisions} >= {"prune", "quantize"}
    early = told.index("prune: statistics")
    limited = optimized(early + 1.0)
    assert "prune: statistics" not in told
    by_name = {stage.pass_.name: stage for stage in limited.stages}
    assert by_name["quantize"].decisions
    assert "time was over" in by_name["prune"].note


def test_what_the_last_pass_took_alone_is_kept_for_it_in_the_chain() -> None:
    options = SearchOptions(deadline=1000.0 + time.monotonic())
    early = options.with_part_of_time(2, kept_s=400.0)
    assert early.left_s == pytest.approx(300.0, abs=1.0)


def test_what_was_taken_stays_when_the_search_is_stopped_while_it_is_fitted_again(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    """Nothing lost is nearer than anything taken, but it is not what was found."""
    stopped: list[str] = []

    def progress(event: onnxpress.Progress) -> None:
        stopped.extend([event.stage] if "fitting again" in event.stage else [])

    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
        progress=progress,
        stop=lambda: bool(stopped),
    )
    assert stopped
    acted = {s.pass_.name for s in result.stages if s.pass_.stage.loses and s.decisions}
    assert acted == {"factorize", "prune", "quantize"}


def test_what_is_farther_once_it_is_fitted_again_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *_, given = tried(monkeypatch, 8, fitted=-1)
    assert given == (False,)


def test_what_a_pass_fails_to_fit_again_stays_and_this_is_said(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = Quantize.rewrite

    def broken(self: Quantize, context: Context, decisions: Sequence[Decision]) -> None:
        assert not any(decision.candidate.refined for decision in decisions)
        rewrite(self, context, decisions)

    monkeypatch.setattr(Quantize, "rewrite", broken)
    calibration, evaluation = small_data
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx", calibration=calibration, evaluation=evaluation, clock=BY_WORK
    )
    (quantized,) = [stage for stage in result.stages if stage.pass_.name == "quantize"]
    assert quantized.decisions
    assert "rewrite failed: AssertionError" in quantized.note
    assert quantized.note.endswith("what was taken is not fitted again [W015]")


def test_a_choice_that_broke_is_made_again_by_what_is_known_when_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what breaks a third time leaves no more than rounded weights."""
    asked: list[tuple[float, float]] = []

    def best(
        run: Run, share: float = 1.0, _: Mapping[str, float] | None = None, *, why: str = ""
    ) -> Attempt:
        asked.append((share, run.options.deadline))
        decision = Decision("a", Candidate({}, 0.1, 10, keeps_kernels=True))
        stages = (StageResult(Quantize(), weighing(8), (decision,)),)
        latency = Latency(1.0, 1.0, 1.0, 1.0, 1.0)
        measurement = Measurement({}, (), 8, "made")
        return Attempt(weighing(8), stages, within=True, measurement=measurement, latency=latency)

    def weights_alone(run: Run, variant: Variant) -> Attempt:
        assert variant.kernel_preserving_only
        return best(run, -variant.share)

    def validated(*_: object) -> Validation:
        latency = Latency(1.0, 1.0, 1.0, 1.0, 1.0)
        return Validation(len(asked) == 4, "1 point", measured(), {}, latency, {})

    monkeypatch.setattr("onnxpress.attempts.best_attempt", best)
    monkeypatch.setattr("onnxpress.attempts.attempt_of", weights_alone)
    monkeypatch.setattr("onnxpress.attempts.judged", validated)
    judge = SimpleNamespace(broken=lambda _: "3 points are lost", spent=lambda _: 2.0, looks=1)
    now = time.monotonic()
    run = a_run(SearchOptions(deadline=now - 2.0))
    _, found = judged_attempt(run, cast("Evaluator", judge), again=now - 1.0)
    assert [share > 0 for share, _ in asked] == [True, True, True, False]
    assert [deadline - now for _, deadline in asked] == pytest.approx([-2.0, -1.0, -1.0, -1.0])
    assert any("[L029]" in warning for warning in found.warnings), "the search was cut"
    assert 1.0 > asked[1][0] > asked[2][0]


def test_a_choice_that_broke_is_not_made_again_where_that_would_end_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def best(run: Run, share: float = 1.0, why: str = "") -> Attempt:
        asked.append(share)
        decision = Decision("a", Candidate({}, 0.1, 10, keeps_kernels=True))
        stages = (StageResult(Quantize(), weighing(8), (decision,) if share else ()),)
        latency = Latency(1.0, 1.0, 1.0, 1.0, 1.0)
        measurement = Measurement({}, (), 8, "made")
        return Attempt(weighing(8), stages, within=True, measurement=measurement, latency=latency)

    def validated(*_: object) -> Validation:
        latency = Latency(1.0, 1.0, 1.0, 1.0, 1.0)
        return Validation(asked[-1] == 0, "1 point", measured(), {}, latency, {})

    monkeypatch.setattr("onnxpress.attempts.best_attempt", best)
    monkeypatch.setattr("onnxpress.attempts.judged", validated)
    judge = SimpleNamespace(broken=lambda _: "3 points are lost", spent=lambda _: 2.0, looks=1)
    now = time.monotonic()
    judged_attempt(a_run(SearchOptions(deadline=now - 30.0)), cast("Evaluator", judge), now - 20.0)
    assert asked == [1.0, 0]


def test_a_limit_that_is_over_leaves_a_judged_model_and_says_so(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that says twenty seconds more whenever something is told: nothing is searched."""
    told: list[str] = []
    monkeypatch.setattr("time.monotonic", lambda: 20.0 * len(told))
    found = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        clock=BY_WORK,
        time_limit=3.0,
        progress=lambda event: told.append(event.stage),
    )
    assert not any("models tried" in stage for stage in told)
    assert found.within_budget
    assert found.validation is not None
    assert found.validation.measurement.samples == 8
    warnings = " ".join(found.validation.warnings)
    assert "[L029]" in warnings
    assert "judged on 8 of 100 samples: time is short [W019]" in warnings
    notes = {s.note for s in found.stages if s.pass_.stage.loses and s.pass_.name != "sparsify"}
    assert any("[L010]" in note for note in notes)
