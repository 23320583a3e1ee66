"""What single decisions cost: measured without them, and only where there is time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from clocks import BY_WORK
from fakes import FakeTrials, candidate
from fashion import fashion_data

import onnxpress
from onnxpress.contract import Decision
from onnxpress.errors import PassError
from onnxpress.passes.prune import Prune
from onnxpress.report.document import document
from onnxpress.report.text import costly_layers
from onnxpress.search import Allowance, SearchOptions
from onnxpress.search.costliest import costliest

AMPLE = 1e9
"""Times what was spent: no limit."""


def decisions(**errors: float) -> list[Decision]:
    return [Decision(name, candidate(error)) for name, error in errors.items()]


def costs(trials: FakeTrials, chosen: Sequence[Decision], share: float = AMPLE) -> list[str]:
    allowance = Allowance(started=-1.0, share=share)
    return [cost.site for cost in costliest(trials, chosen, 4, allowance, 0.01)]


def test_what_is_told_is_the_signal_to_noise_with_and_without_a_decision() -> None:
    chosen = decisions(a=0.001, b=0.009)
    first, second = costliest(FakeTrials(1.0), chosen, 4, Allowance(-1.0, share=AMPLE), 0.01)
    assert (first.site, second.site) == ("b", "a")
    assert first.sqnr_db == pytest.approx(20.0)
    assert first.restored_sqnr_db == pytest.approx(30.0)


def test_measured_costs_decide_and_predicted_ones_only_who_is_measured() -> None:
    true = {"a": 0.001, "b": 0.02, "c": 0.01, "d": 0.5}
    trials = FakeTrials(1.0, true=lambda decision: true[decision.site])
    assert costs(trials, decisions(a=0.4, b=0.3, c=0.2, d=0.1)) == ["b"], "a, c under 0.1 dB"
    assert trials.weighed == 4


def test_what_is_carried_and_what_is_free_of_error_is_not_suspected() -> None:
    trials = FakeTrials(1.0)
    carried = Decision("b", candidate(0.5, carried=True))
    assert costs(trials, [*decisions(a=0.0), carried]) == []
    assert trials.weighed == 0


def test_nothing_is_measured_that_the_allowance_has_no_seconds_for() -> None:
    trials = FakeTrials(1.0)
    assert costs(trials, decisions(a=0.1, b=0.2), share=0.0) == []
    assert trials.weighed == 0


def test_nothing_is_measured_when_time_is_up() -> None:
    trials = FakeTrials(1.0, options=SearchOptions(deadline=-1.0))
    assert costs(trials, decisions(a=0.1, b=0.2)) == []
    assert trials.weighed == 0


def test_the_allowance_is_charged() -> None:
    allowance = Allowance(-1.0, share=AMPLE)
    costliest(FakeTrials(1.0), decisions(a=0.1, b=0.2), 4, allowance, 0.01)
    assert allowance.spent > 0


class Breaks(FakeTrials):
    """A model that lacks a decision does not run."""

    def noise(self, decisions: Sequence[Decision], samples: int) -> float:
        """Only with both."""
        if len(decisions) < 2:
            raise PassError("int8", "it does not run")
        return super().noise(decisions, samples)


def test_a_pass_that_fails_without_a_decision_costs_only_the_answer() -> None:
    assert costs(Breaks(1.0), decisions(a=0.1, b=0.2)) == []


def pressed(models: Path, **options: Any) -> onnxpress.Result:
    return onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=[Prune(ratio=0.5, importance="magnitude")],
        min_sqnr=1,
        clock=BY_WORK,
        **fashion_data(calibration=48, evaluation=64),
        **options,
    )


def test_keeping_the_costliest_layer_makes_the_model_better(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxpress.prepared.Allowance", lambda _: Allowance(-1.0, share=AMPLE))
    result = pressed(models)
    found = document(result)
    (stage,) = [stage for stage in found["stages"] if stage["pass"] == "prune"]
    costly = stage["costliest"][0]
    assert costly["restored_sqnr_db"] > costly["sqnr_db"]
    (first, *_) = costly_layers(found["stages"])
    gain = costly["restored_sqnr_db"] - costly["sqnr_db"]
    keep = costly["keep"]
    assert first == f"{costly['site']} (prune): {gain:.1f} dB; keep it with --keep {keep}"
    kept = pressed(models, keep=[costly["keep"]])
    (after,) = [stage for stage in kept.stages if stage.pass_.name == "prune"]
    assert costly["site"] not in {decision.site for decision in after.decisions}
