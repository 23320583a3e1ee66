"""Sensitivity, allocation, objective and the keys of timings, by tables."""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from fakes import FakeTrials, candidate, site
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.contract import Candidate, Context, Decision, Quota
from onnxpress.passes.prune import Prune
from onnxpress.passes.sparsify import Sparsify
from onnxpress.pool import Pool
from onnxpress.search.allocation import allocate, allocate_to, strongest
from onnxpress.search.layer_timing import timing_key
from onnxpress.search.objective import Objective
from onnxpress.search.sensitivity import hopeless, magnified, weighed
from onnxpress.search.trial import SearchOptions
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


def test_one_measured_candidate_scales_the_others_of_its_site() -> None:
    proposals = [site("a", candidate(0.02), candidate(0.2)), site("b", candidate(0.02))]
    true = {"a": 7.0, "b": 0.5}
    trials = FakeTrials(1.0, true=lambda d: d.candidate.predicted_error * true[d.site])
    found = {p.site: p for p in magnified(trials, proposals)}
    assert [c.predicted_error for c in found["a"].candidates] == pytest.approx([0.14, 1.4])
    assert found["b"].candidates[0].predicted_error == pytest.approx(0.01)
    assert trials.weighed == 2
    behind = FakeTrials(1.0, magnifications=trials.magnifications)
    (known, new) = magnified(behind, [site("a", candidate(0.04)), site("c", candidate(0.02))])
    assert known.candidates[0].predicted_error == pytest.approx(0.28), "as another way showed"
    assert new.candidates[0].predicted_error == pytest.approx(0.02)
    assert behind.weighed == 1


def test_dividing_finds_the_few_layers_that_matter_without_measuring_each() -> None:
    names = [f"layer{n}" for n in range(64)]
    proposals = [site(name, candidate(0.01)) for name in names]
    trials = FakeTrials(1.0, true=lambda d: 50.0 if d.site in ("layer17", "layer40") else 1e-6)
    found = weighed(trials, proposals, lambda _: True)
    worst = sorted(found, key=lambda p: -p.candidates[0].predicted_error)
    assert {p.site for p in worst[:2]} == {"layer17", "layer40"}
    assert worst[0].candidates[0].predicted_error == pytest.approx(50.0)
    assert trials.weighed <= 4 * 6 + 2


@pytest.mark.parametrize(("allowed", "expected"), [(1e-9, True), (0.024, True), (0.026, False)])
def test_a_budget_that_no_single_change_holds_is_hopeless(allowed: float, expected: bool) -> None:  # noqa: FBT001
    proposals = [site(f"layer{n}", candidate(0.1), candidate(0.05, 50)) for n in range(200)]
    trials = FakeTrials(allowed)
    assert hopeless(trials, proposals) is expected
    assert trials.tried == 0
    assert trials.weighed <= 4


def test_a_budget_is_not_hopeless_where_the_least_change_was_predicted_wrongly() -> None:
    proposals = [site("a", candidate(0.01)), site("b", candidate(0.02))]
    trials = FakeTrials(0.1, true=lambda d: {"a": 9.0, "b": 0.05}[d.site])
    assert not hopeless(trials, proposals)
    assert not hopeless(trials, [site("c", candidate(1.0, carried=True))])


def test_a_budget_is_not_hopeless_where_one_sensitive_site_offers_most_candidates() -> None:
    sensitive = site("a", *(candidate(0.0, 100 - k) for k in range(5)))
    trials = FakeTrials(0.1, true=lambda d: {"a": 9.0, "b": 0.0}[d.site])
    assert not hopeless(trials, [sensitive, site("b", candidate(0.0))])


def test_a_budget_is_not_hopeless_where_another_form_holds_than_the_one_predicted_best() -> None:
    proposals = [site(n, candidate(0.001), candidate(0.01, 50, "plain")) for n in "abcdefgh"]
    trials = FakeTrials(0.1, true=lambda d: 9.0 if d.candidate.family == "int8" else 0.01)
    assert not hopeless(trials, proposals)


def test_two_candidates_of_one_site_are_never_measured_together() -> None:
    proposals = [site("a", candidate(0.2), candidate(0.1, 50)), site("b", candidate(0.1))]
    groups = []
    trials = FakeTrials(1.0)
    usual = trials.noise

    def noise(decisions, samples):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        groups.append([d.site for d in decisions])
        return usual(decisions, samples)

    trials.noise = noise  # type: ignore[method-assign]
    weighed(trials, proposals, lambda _: True)
    assert all(len(set(group)) == len(group) for group in groups)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_no_other_choice_saves_as_much_for_less_than_one_on_the_ladder(
    offers: list[list[tuple[float, int]]],
) -> None:
    proposals = [
        site(f"s{n}", *(candidate(error, saved) for error, saved in own))
        for n, own in enumerate(offers)
    ]
    options = [
        [(0.0, 0), *((c.predicted_error, c.saved_bytes) for c in p.candidates)] for p in proposals
    ]
    everything = [
        (sum(e for e, _ in picked), sum(s for _, s in picked))
        for picked in itertools.product(*options)
    ]
    for rung in allocate(proposals, "saved_bytes"):
        error = sum(d.candidate.predicted_error for d in rung)
        saved = sum(d.candidate.saved_bytes for d in rung)
        assert not any(e < error - 1e-9 and s >= saved for e, s in everything)


@pytest.mark.parametrize(("goal", "cost"), [("size", 50.0), ("latency", 0.5), ("balanced", 25.0)])
def test_objective_weighs_what_its_name_says(goal: str, cost: float) -> None:
    objective = Objective(goal)  # type: ignore[arg-type]
    assert objective.cost(50, 0.5) == cost
    assert objective.accepts_slower is (goal == "size")


def test_candidates_that_differ_in_any_parameter_do_not_share_a_timing() -> None:
    layer = Context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu")).layers[0]
    one = Candidate({"rank": 16, "bits": 4}, family="a", pass_name="p")
    others = [
        dataclasses.replace(one, parameters={"rank": 16, "bits": 8}),
        dataclasses.replace(one, family="b"),
        dataclasses.replace(one, pass_name="q"),
        dataclasses.replace(one, timing_key=("bits", 4)),
    ]
    key = timing_key([layer], (1, 96), one)
    assert all(timing_key([layer], (1, 96), other) != key for other in others)
    assert timing_key([layer], (2, 96), one) != key
    assert timing_key([layer], (1, 96), dataclasses.replace(one, predicted_error=1.0)) == key


def test_of_steps_that_cost_the_same_for_each_unit_the_larger_is_taken() -> None:
    ladder = allocate([site("a", candidate(2.0, 20), candidate(1.0, 10))], "saved_bytes")
    assert [[d.candidate.saved_bytes for d in rung] for rung in ladder] == [[20]]


def test_candidates_that_save_nothing_in_the_unit_are_no_step() -> None:
    proposals = [site("a", candidate(1.0, 0)), site("b", candidate(1.0, 5))]
    assert [[d.site for d in rung] for rung in allocate(proposals, "saved_bytes")] == [["b"]]


@given(st.integers(1, 300))
def test_a_quota_takes_no_more_of_the_last_site_than_is_needed(amount: int) -> None:
    proposals = [
        site(f"s{n}", *(candidate(0.1 * (n + 1) * k, 10 * k) for k in (3, 2, 1))) for n in range(10)
    ]

    def saving(decisions: Sequence[Decision]) -> float:
        return float(sum(d.candidate.saved_bytes for d in decisions))

    ladder = allocate_to(proposals, Quota("saved_bytes", amount), saving)
    assert amount <= saving(ladder[-1]) < amount + 10
    assert all(saving(rung) < amount for rung in ladder[:-1])
    error = sum(d.candidate.predicted_error for d in ladder[-1])
    # The cheapest steps cost 0.1, 0.2, … for each ten bytes of the sites in order.
    best = sum(0.1 * (n // 3 + 1) for n in range(-(-amount // 10)))
    assert error == pytest.approx(best)


def test_a_quota_beyond_everything_gives_everything() -> None:
    proposals = [site("a", candidate(1.0, 5)), site("b", candidate(1.0, 7))]
    ladder = allocate_to(proposals, Quota("saved_bytes", 1e9), lambda _: 12.0)
    assert {d.site for d in ladder[-1]} == {"a", "b"}


def test_without_a_budget_the_strongest_are_taken_or_what_the_quota_asks_for() -> None:
    pool = Pool((Sparsify(sparsity=0.5, scope="layer"),))
    context = pool.context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu"))
    offer = pool.offer(context)
    taken = strongest(pool, context, offer)
    assert [d.candidate for d in taken] == [p.candidates[0] for p in offer.proposals]
    pruned = Pool((Prune(ratio=0.5, importance="magnitude"),))
    known = pruned.context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu"))
    decisions = strongest(pruned, known, pruned.offer(known))
    total = sum(known.multiply_adds(layer) for layer in known.layers)
    saved_share = pruned.saving(known, decisions, "saved_multiply_adds") / total
    assert 0.5 <= saved_share < 0.7


@pytest.mark.parametrize(("min_sqnr", "looks"), [(10.0, 7), (30.0, 13)])
def test_layers_are_told_apart_by_what_the_budget_allows(min_sqnr: float, looks: int) -> None:
    true = {f"layer{n}": 1e-3 if n else 1.0 for n in range(8)}
    proposals = [site(name, candidate(1.0)) for name in true]
    trials = FakeTrials(1.0, true=lambda d: true[d.site], floor=min_sqnr)
    found = weighed(trials, proposals, lambda _: True)
    assert trials.weighed == looks
    errors = {p.site: p.candidates[0].predicted_error for p in found}
    assert errors == pytest.approx(true)


@pytest.mark.parametrize(
    ("min_sqnr", "together", "looks"),
    [(10.0, 0.0060, 7), (10.0, 0.0065, 9), (13.0, 0.0030, 7), (13.0, 0.0033, 9)],
)
def test_layers_are_told_apart_from_a_sixteenth_of_what_the_budget_allows(
    min_sqnr: float, together: float, looks: int
) -> None:
    true = {"a": 1.0, "b": 0.0, "c": together / 2, "d": together / 2}
    true |= dict.fromkeys("efgh", 0.0)
    trials = FakeTrials(1.0, true=lambda d: true[d.site], floor=min_sqnr)
    weighed(trials, [site(name, candidate(1.0)) for name in true], lambda _: True)
    assert trials.weighed == looks


def test_half_of_the_time_goes_into_weighing_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that says a second more for each look; the worst group is divided first."""
    true = {f"layer{n}": 1.0 + n for n in range(16)}
    trials = FakeTrials(
        1.0, true=lambda d: true[d.site], floor=30.0, options=SearchOptions(deadline=20.0)
    )
    monkeypatch.setattr("time.monotonic", lambda: float(trials.weighed))
    found = weighed(trials, [site(name, candidate(1.0)) for name in true], lambda _: True)
    assert trials.weighed == 1 + 4 + 4 + 4
    errors = [p.candidates[0].predicted_error for p in found]
    assert errors[8:] == pytest.approx([9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0])
    assert errors[:8] == pytest.approx([2.5] * 4 + [6.5] * 4)


def test_layers_that_all_matter_take_a_third_more_looks_than_there_are() -> None:
    trials = FakeTrials(1.0, floor=30.0)
    weighed(trials, [site(f"layer{n}", candidate(1.0)) for n in range(64)], lambda _: True)
    assert trials.weighed == 64 + 16 + 4 + 1


def test_layers_that_were_weighed_in_another_way_are_not_weighed_again() -> None:
    true = {"a": 3.0, "b": 1e-9, "new": 0.5}
    trials = FakeTrials(1.0, true=lambda d: d.candidate.predicted_error * true[d.site], floor=10.0)
    weighed(trials, [site("a", candidate(1.0)), site("b", candidate(1.0))], lambda _: True)
    before = trials.weighed
    again = [site(name, candidate(error)) for name, error in (("a", 0.1), ("b", 1.0), ("new", 1.0))]
    found = weighed(trials, again, lambda _: True)
    assert trials.weighed - before == 1, "the new one"
    errors = {p.site: p.candidates[0].predicted_error for p in found}
    assert errors == pytest.approx({"a": 0.3, "b": 1e-9, "new": 0.5})


def test_layers_that_are_not_told_apart_share_their_error_as_predicted() -> None:
    idle = dict.fromkeys("efgh", 0.0)
    predicted = {"a": 1.0, "b": 1.0, "c": 0.3, "d": 0.1} | dict.fromkeys(idle, 1.0)
    true = {"a": 1.0, "b": 0.0, "c": 0.001, "d": 0.003} | idle
    trials = FakeTrials(1.0, true=lambda d: true[d.site], floor=10.0)
    found = weighed(
        trials, [site(name, candidate(error)) for name, error in predicted.items()], lambda _: True
    )
    errors = {p.site: p.candidates[0].predicted_error for p in found}
    assert errors == pytest.approx({"a": 1.0, "b": 0.0, "c": 0.003, "d": 0.001} | idle)
