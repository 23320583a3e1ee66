"""What is chosen, by tables instead of models: milliseconds each."""

import pytest
from fakes import FakeTrials, candidate, site
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.contract import Candidate, Decision, Quota, Stage
from onnxpress.search.objective import Objective
from onnxpress.search.sensitivity import weighed
from onnxpress.search.strategy import choose, feasible, saved
from onnxpress.search.trial import SearchOptions

SIZE = SearchOptions(Objective("size"))
BALANCED = SearchOptions(Objective("balanced"))


def sites_of(trial_decisions: tuple[Decision, ...]) -> set[str]:
    return {decision.site for decision in trial_decisions}


def test_everything_is_taken_where_everything_holds() -> None:
    proposals = [site("a", candidate(0.1)), site("b", candidate(0.2))]
    trials = FakeTrials(allowed=1.0, options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    assert sites_of(found.trials[0].decisions) == {"a", "b"}
    assert trials.tried == 1, "nothing else is measured"


def test_the_worst_site_is_restored_by_its_true_error_not_by_the_predicted_one() -> None:
    proposals = [site(name, candidate(0.1)) for name in "abcd"]
    true = {"a": 0.01, "b": 5.0, "c": 0.02, "d": 0.03}
    trials = FakeTrials(allowed=0.1, true=lambda d: true[d.site], options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    best = max(found.trials, key=lambda t: len(t.decisions))
    assert sites_of(best.decisions) == {"a", "c", "d"}


def test_a_weaker_candidate_is_taken_where_the_strongest_errs_too_much() -> None:
    strong, weak = candidate(9.0, 100), candidate(0.01, 60, "float16", keeps_kernels=True)
    proposals = [site("a", strong, weak), site("b", candidate(0.01, 100))]
    trials = FakeTrials(allowed=0.1, options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    kept = max(found.trials, key=lambda t: len(t.decisions)).decisions
    assert {d.site: d.candidate.family for d in kept} == {"a": "float16", "b": "int8"}


def test_forms_that_run_slower_are_not_measured_at_all() -> None:
    static = candidate(0.1, 100, "static")
    plain = candidate(0.1, 90, "weight_only", keeps_kernels=True)
    proposals = [site("a", static, plain), site("b", static, plain)]
    trials = FakeTrials(allowed=1.0, speedup=lambda _: 0.7, options=BALANCED)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    families = {d.candidate.family for choice in trials.measured for d in choice}
    assert families == {"weight_only"}
    assert "0.70 times" in found.note


def test_of_whole_choices_alike_by_the_clock_the_nearest_is_taken() -> None:
    static, dynamic = candidate(0.4, 100, "static"), candidate(0.1, 100, "dynamic")
    proposals = [site("a", static, dynamic, candidate(0.1, 90, "plain", keeps_kernels=True))]

    def speedup(choice: tuple[Decision, ...]) -> float:
        return {"static": 2.0, "dynamic": 1.95}[choice[0].candidate.family]

    trials = FakeTrials(allowed=1.0, speedup=speedup, options=BALANCED)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    assert [d.candidate.family for d in found.trials[0].decisions] == ["dynamic"]


@pytest.mark.parametrize(("goal", "wanted"), [("latency", "static"), ("balanced", "plain")])
def test_the_goal_says_whether_bytes_make_up_for_time(goal: str, wanted: str) -> None:
    static = candidate(0.1, 100, "static")
    plain = candidate(0.1, 9_000, "plain", keeps_kernels=True)
    options = SearchOptions(Objective(goal))  # type: ignore[arg-type]
    trials = FakeTrials(allowed=1.0, speedup=lambda _: 1.5, options=options)
    found = feasible(trials, [site("a", static, plain)], Stage.QUANTIZATION)
    assert [d.candidate.family for d in found.trials[0].decisions] == [wanted]


def test_amounts_are_shared_out_by_what_they_cost_at_the_outputs() -> None:
    proposals = [site(name, candidate(0.4, 300), candidate(0.1, 100)) for name in ("cheap", "dear")]
    true = {"cheap": 0.1, "dear": 10.0}
    trials = FakeTrials(
        allowed=0.5,
        true=lambda d: d.candidate.predicted_error * true[d.site],
        options=SIZE,
    )
    found = feasible(trials, proposals, Stage.LOW_RANK)
    best = max(found.trials, key=lambda t: sum(d.candidate.saved_bytes for d in t.decisions))
    assert {d.site: d.candidate.saved_bytes for d in best.decisions} == {"cheap": 300}


@pytest.mark.parametrize(("numbers", "samples"), [(2, 32), (64, 16), (100_000, 8)])
def test_sites_are_weighed_on_as_many_samples_as_their_numbers_need(
    numbers: int, samples: int
) -> None:
    proposals = [site(name, candidate(0.4, 300), candidate(0.1, 100)) for name in "ab"]
    trials = FakeTrials(allowed=0.5, options=SIZE, numbers=numbers)
    feasible(trials, proposals, Stage.LOW_RANK)
    assert trials.asked == [samples] * 2


@pytest.mark.parametrize(("microseconds", "ladders"), [(5.0, 1), (0.0, 2)])
def test_time_by_the_clock_stands_for_multiply_adds(microseconds: float, ladders: int) -> None:
    def saving(error: float, microseconds: float) -> Candidate:
        return candidate(error, 0, saved_multiply_adds=1e6, saved_microseconds=microseconds)

    errors = {"a": 0.3, "b": 9.0}
    proposals = [site(name, saving(error, 5.0)) for name, error in errors.items()]
    proposals.append(site("c", saving(0.2, microseconds)))
    trials = FakeTrials(allowed=0.6, options=SIZE)
    assert len(feasible(trials, proposals, Stage.STRUCTURE).trials) == ladders


def test_a_quota_is_reached_and_hardly_exceeded() -> None:
    proposals = [
        site(
            f"layer{n}",
            *(candidate(0.01 * (k + 1), 10 * (k + 1)) for k in reversed(range(5))),
        )
        for n in range(6)
    ]

    def saving(decisions: object) -> float:
        return float(sum(d.candidate.saved_bytes for d in decisions))  # type: ignore[attr-defined]

    trials = FakeTrials(allowed=9.0, options=SIZE)
    quota = Quota("saved_bytes", 95)
    found = feasible(trials, proposals, Stage.SPARSITY, quota, saving)
    assert 95 <= saving(found.trials[0].decisions) <= 105


@given(
    st.lists(st.lists(st.floats(1e-6, 10), min_size=1, max_size=3), min_size=1, max_size=12),
    st.floats(1e-6, 20),
    st.sampled_from([Stage.QUANTIZATION, Stage.LOW_RANK]),
)
def test_whatever_is_found_holds_the_budget(
    errors: list[list[float]], allowed: float, stage: Stage
) -> None:
    proposals = [
        site(
            f"layer{n}",
            *(candidate(e, 100 - 10 * k) for k, e in enumerate(sorted(own, reverse=True))),
        )
        for n, own in enumerate(errors)
    ]
    trials = FakeTrials(allowed=allowed, options=SIZE)
    for trial in feasible(trials, proposals, stage).trials:
        assert trials.holds(trial)
        assert len(sites_of(trial.decisions)) == len(trial.decisions)


def test_a_tolerance_gives_every_site_its_strongest_candidate_within_it() -> None:
    proposals = [site("a", candidate(0.5, 9), candidate(0.1, 5)), site("b", candidate(0.3, 7))]
    taken = choose(proposals, lambda c: c.predicted_error, 0.2)
    assert {d.site: d.candidate.saved_bytes for d in taken} == {"a": 5}


def test_many_different_errors_are_bisected_in_few_measurements() -> None:
    proposals = [site(f"layer{n}", candidate(1 + n / 1000)) for n in range(300)]
    allowed = sum(1 + n / 1000 for n in range(150))
    trials = FakeTrials(allowed, options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    best = max(len(trial.decisions) for trial in found.trials)
    assert trials.tried <= 1 + 2 * 7
    # One of 64 tolerances is some five layers apart from the next.
    assert 145 <= best <= 150


def test_another_order_is_not_measured_where_nearly_all_is_saved() -> None:
    proposals = [site(f"layer{n}", candidate(0.1, 100)) for n in range(30)]
    proposals.append(site("bad", candidate(9.0, 1)))
    trials = FakeTrials(allowed=5.0, options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    assert len(found.trials) == 1
    assert "bad" not in sites_of(found.trials[0].decisions)


def test_layers_that_save_little_for_their_error_go_before_a_large_one() -> None:
    small = [site(f"small{n}", candidate(0.3, 1)) for n in range(5)]
    proposals = [*small, site("large", candidate(0.5, 1000))]
    trials = FakeTrials(allowed=0.6, options=SIZE)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    assert [sites_of(trial.decisions) for trial in found.trials] == [{"large"}]


def test_forms_that_keep_the_kernels_come_along_where_a_mixture_of_others_fails() -> None:
    static = candidate(0.5, 100, "static")
    plain = candidate(0.01, 90, "plain", keeps_kernels=True)
    proposals = [site(name, static, plain) for name in "abcd"]
    trials = FakeTrials(allowed=0.1, speedup=lambda _: 2.0, options=BALANCED)
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    families = [{d.candidate.family for d in trial.decisions} for trial in found.trials]
    assert {"plain"} in families
    assert all(len(trial.decisions) == 4 for trial in found.trials)


def test_carried_operators_alone_are_no_choice() -> None:
    alone = [site("add", candidate(0.1, carried=True))]
    assert feasible(FakeTrials(1.0, options=SIZE), alone, Stage.QUANTIZATION).trials == ()
    together = [*alone, site("conv", candidate(0.1))]
    trials = FakeTrials(0.2, options=SIZE)
    found = feasible(trials, together, Stage.QUANTIZATION)
    assert sites_of(found.trials[0].decisions) == {"add", "conv"}


def test_carried_operators_are_left_out_where_no_neighbour_changes_kernels() -> None:
    carried = site("add", candidate(0.1, carried=True))
    stored = site("conv", candidate(0.1, keeps_kernels=True))
    integer = site("gemm", candidate(0.1))
    assert sites_of(choose([carried, stored])) == {"conv"}
    assert sites_of(choose([carried, stored, integer])) == {"add", "conv", "gemm"}


def test_what_carried_operators_lose_is_not_laid_on_the_sites() -> None:
    errors = {f"layer{n}": 5e-3 if n == 11 else 1e-7 for n in range(32)}
    carried = site("add", candidate(0.5, carried=True))
    proposals = [carried, *(site(name, candidate(error)) for name, error in errors.items())]
    trials = FakeTrials(allowed=1.0, options=SIZE)
    found = weighed(trials, proposals, lambda _: True)
    by_site = {p.site: p.candidates[0].predicted_error for p in found[1:]}
    assert by_site == pytest.approx(errors, rel=1e-6, abs=1e-9)
    assert trials.weighed == 12, "the carried ones, all, and two halves down to the one that errs"


def test_what_a_choice_saves_counts_bytes_and_zeros_then_work_and_kernels() -> None:
    def made(**more: object) -> Decision:
        return Decision("s", candidate(0.1, 10, **more))  # type: ignore[arg-type]

    one = made(zeroed_weights=5, saved_multiply_adds=7.0)
    other = made(keeps_kernels=True)
    assert saved([one, other]) == (25, 8.0)


def test_a_family_that_keeps_the_kernels_and_saves_most_does_not_hide_a_faster_one() -> None:
    coarse = candidate(0.01, 300, "coarse", keeps_kernels=True)
    static = candidate(0.01, 200, "static")
    proposals = [site(name, coarse, static) for name in "ab"]
    trials = FakeTrials(
        allowed=1.0,
        speedup=lambda choice: 3.0 if choice[0].candidate.family == "static" else 1.0,
        options=BALANCED,
    )
    found = feasible(trials, proposals, Stage.QUANTIZATION)
    assert {d.candidate.family for d in found.trials[0].decisions} == {"static"}
