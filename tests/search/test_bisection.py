"""How many measurements find the strongest choice that holds."""

import itertools
import time
from collections.abc import Callable

from fakes import FakeTrials, candidate
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.contract import Decision
from onnxpress.judge import Measurement, OutputFidelity
from onnxpress.search.bisection import Spending, bisected
from onnxpress.search.trial import Choice, SearchOptions, Trial

RUNGS = 400


def _ladder(errors: list[float]) -> list[Choice]:
    """One site with a choice for each error."""
    return [(Decision("site", candidate(error)),) for error in errors]


def _trials(allowed: float, true: Callable[[float], float]) -> FakeTrials:
    return FakeTrials(
        allowed, true=lambda d: true(d.candidate.predicted_error), options=SearchOptions()
    )


@given(
    st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=60),
    st.floats(1e-9, 1e3),
    st.floats(0.2, 4.0),
)
def test_the_strongest_rung_that_holds_is_found_whatever_the_power(
    errors: list[float], allowed: float, power: float
) -> None:
    ladder = _ladder(sorted(errors))
    trials = _trials(allowed, lambda error: error**power)
    held = [choice for choice in ladder[:-1] if trials.noise_of(choice) <= allowed]
    found = bisected(trials, ladder, [])
    assert (found and found.decisions) == (held[-1] if held else None)


def test_errors_that_add_up_by_another_power_take_less_than_half_of_bisection() -> None:
    ladder = _ladder([1.02**n for n in range(RUNGS)])
    trials = _trials(1.02**250.5, lambda error: 0.1 * error**1.2)
    bisected(trials, ladder, [])
    assert trials.tried <= 4, "bisection takes 9"


def test_predictions_that_say_nothing_take_four_times_bisection_at_most() -> None:
    ladder = _ladder([1e-9 * n for n in range(RUNGS)])
    trials = _trials(1.0, lambda error: 0.99 if error < 300e-9 else 1.01)
    found = bisected(trials, ladder, [])
    assert found is not None
    assert found.decisions[0].candidate.predicted_error == 1e-9 * 299
    assert trials.tried <= 4 * 9


def test_no_rung_is_begun_for_which_there_is_no_time_but_one_to_fall_back_on() -> None:
    ladder = _ladder([1.02**n for n in range(RUNGS)])
    trials = _trials(1.02**450.75, lambda error: error**1.5)
    trials.options = SearchOptions(deadline=time.monotonic() + 1000.0)
    trials.expected_s, trials.measured = 2000.0, [ladder[-1]]
    found = bisected(trials, ladder, [])
    assert found is not None
    assert trials.tried == 2, "the last rung was known to fail, and one more was tried"


def test_another_ladder_begins_where_the_first_one_ended() -> None:
    ladder = _ladder([1.02**n for n in range(RUNGS)])
    first, second = (_trials(1.02**450.75, lambda error: error**1.5) for _ in range(2))
    seen: list[Spending] = []
    bisected(first, ladder, seen)
    bisected(second, ladder, seen)
    assert second.tried == 2 < first.tried


def test_last_rung_that_was_measured_says_how_far_to_go() -> None:
    ladder = _ladder([1.02**n for n in range(RUNGS)])
    trials = _trials(0.5 * 1.02**380.5, lambda error: 0.5 * error)
    bisected(trials, ladder, [])
    assert trials.tried == 3
    trials.measured = [ladder[-1]]
    bisected(trials, ladder, [])
    assert trials.tried - 1 == 2


class _Hasty(FakeTrials):
    """Glances at samples that show only a part of the noise."""

    def glanced(self, decisions: Choice) -> Trial:
        """By a third of the noise."""
        part = self.noise_of(decisions) / 3
        fidelity = OutputFidelity(-part, 1.0, part, 0.0)
        return Trial(decisions, Measurement({"y": fidelity}, (), 0, "a glance"))

    def completed(self, trial: Trial) -> Trial:
        """Measured, where it was only glanced at."""
        return trial if trial.measurement.samples else self.measure(trial.decisions)

    def holds(self, trial: Trial) -> bool:
        """By what was seen."""
        return trial.measurement.outputs["y"].max_error <= self.allowed


def test_what_a_glance_took_for_good_is_measured_on_all_samples() -> None:
    ladder = _ladder([float(n) for n in range(1, 20)])
    found = bisected(_Hasty(allowed=5.0), ladder, [])
    assert found is not None
    assert found.measurement.samples == 1
    assert found.decisions[0].candidate.predicted_error == 5.0


def test_what_is_recalled_without_its_model_is_built_when_time_is_over() -> None:
    """Where another ladder measured the same choice before: it is weighed by its bytes next."""
    asked = itertools.count()
    options = SearchOptions(stop=lambda: next(asked) > 0)
    found = bisected(_Hasty(allowed=100.0, options=options), _ladder([1.0, 2.0, 3.0]), [])
    assert found is not None
    assert found.measurement.samples == 1, "completed"


def test_what_was_measured_before_serves_when_time_is_over() -> None:
    """For less of the budget, as where untouched samples broke the whole of it."""
    ladder = _ladder([float(n) for n in range(1, 20)])
    trials = _trials(12.5, lambda error: error)
    bisected(trials, ladder, [])
    measured = {choice[0].candidate.predicted_error for choice in trials.measured}
    trials.allowed, trials.options = 12.0, SearchOptions(deadline=-1.0)
    tried = trials.tried
    found = bisected(trials, ladder, [])
    assert found is not None
    assert found.decisions[0].candidate.predicted_error == max(e for e in measured if e <= 12.0)
    assert trials.tried == tried


def test_where_all_that_was_measured_is_too_strong_one_more_is_tried_when_time_is_over() -> None:
    ladder = _ladder([float(n) for n in range(1, 20)])
    trials = _trials(12.5, lambda error: error)
    bisected(trials, ladder, [])
    trials.allowed, trials.options = 6.0, SearchOptions(deadline=-1.0)
    tried = trials.tried
    found = bisected(trials, ladder, [])
    assert trials.tried == tried + 1
    assert found is not None
    assert 2.0 <= found.decisions[0].candidate.predicted_error <= 6.0


def test_without_time_or_anything_known_nothing_is_tried() -> None:
    trials = FakeTrials(1.0, options=SearchOptions(deadline=-1.0))
    assert bisected(trials, _ladder([0.1, 0.2]), []) is None
    assert trials.tried == 0
