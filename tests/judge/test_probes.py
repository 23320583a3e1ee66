"""Probes: what fails beside the samples is seen."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx_ir as ir
import pytest
from zoo.builder import Made, floats, opened
from zoo.faults import drifting, edited, failing_beyond, noisy, rounded, scaled
from zoo.table import KINDS

from onnxpress.data import Samples, random_samples
from onnxpress.judge import Budget, Evaluator, Measurement, OutputFidelity, ProbeFigure
from onnxpress.judge.faults import faults
from onnxpress.runtime import Session
from onnxpress.validation import _about


def evaluator(made: Made, number: int | None = None, budget: Budget | None = None) -> Evaluator:
    feeds = made.feeds[:number]
    return Evaluator(opened(made.model), Samples(feeds, None, "made"), budget or Budget())


def probe(measured: Measurement, name: str) -> ProbeFigure:
    return next(p for p in measured.probes if name in p.name)


def test_original_itself_is_right_everywhere() -> None:
    made = KINDS["decoder"].make()
    measured = evaluator(made).measure(opened(made.model))
    assert {p.name for p in measured.probes} == {"other sizes", "states carried over 64 steps"}
    assert all(p.sqnr_db == np.inf for p in measured.probes)


def test_drift_is_seen_after_many_steps_and_not_after_one() -> None:
    made = KINDS["accumulator"].make()
    judge = evaluator(made)
    measured = judge.measure(opened(drifting("h_out", 0.03)(made)))
    assert measured.outputs["h_out"].sqnr_db > 30
    assert measured.outputs["output"].sqnr_db == np.inf
    assert probe(measured, "carried").sqnr_db < 20
    assert "states carried over 64 steps" in judge.broken(measured)


def test_few_samples_are_run_again_until_64_steps() -> None:
    made = KINDS["accumulator"].make()
    judge = evaluator(made, 16)
    measured = judge.measure(opened(drifting("h_out", 0.03)(made)))
    assert probe(measured, "carried").number == 64
    assert "states carried" in judge.broken(measured)


@pytest.mark.parametrize("kind", ["classes, logits", "class numbers", "masks"])
def test_what_works_only_at_batch_1_is_refused(kind: str) -> None:
    made = KINDS[kind].make()
    judge = evaluator(made)
    output = next(iter(judge.readings))
    shape = opened(made.model).run(made.feeds[0])[output].shape
    broken = judge.broken(judge.measure(opened(failing_beyond(output, *shape)(made))))
    assert broken == "on other sizes the model does not run, or answers in another shape [V001]"


def test_what_answers_in_another_shape_at_other_sizes_is_refused() -> None:
    made = KINDS["gains"].make()

    def cut(net, x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return net.op("Slice", x, np.array([0]), np.array([40]), np.array([1]))

    judge = evaluator(made)
    measured = judge.measure(opened(edited("gains", cut)(made)))
    assert measured.outputs["gains"].sqnr_db == np.inf
    assert "on other sizes" in judge.broken(measured)


def test_whole_numbers_and_lists_are_judged_by_their_metric() -> None:
    made = KINDS["objects in lists"].make()
    judge = evaluator(made)
    measured = judge.measure(opened(scaled("boxes", 1.0, 20.0)(made)))
    figure = probe(measured, "stressed")
    assert figure.metric == "F1 of detections"
    assert figure.least_db == pytest.approx(10)
    assert figure.sqnr_db < 1
    messages = [m for m in faults(judge.limits, measured, 1.0) if "stressed" in m]
    assert messages == [
        "F1 of detections drops by 100.0 points on stressed inputs; the budget is 10 [V002]"
    ]


def test_budget_of_no_drop_is_held_by_the_original() -> None:
    made = KINDS["class numbers"].make()
    judge = evaluator(made, budget=Budget(max_drop=0.0))
    assert not judge.broken(judge.measure(opened(made.model)))


@pytest.mark.parametrize("metric", ["none", "zoo.scoring:first_value"])
def test_own_metric_and_no_metric_leave_probes_out(metric: str) -> None:
    made = KINDS["gains"].make()
    measured = evaluator(made, budget=Budget(metric=metric)).measure(opened(made.model))
    assert measured.probes == ()


def test_screening_on_a_few_samples_runs_no_probe() -> None:
    made = KINDS["gains"].make()
    assert evaluator(made).measure(opened(made.model), 8).probes == ()


def test_what_fails_on_other_inputs_is_known_after_a_few_samples() -> None:
    """One that does not is run on all, each probe once; a glance that holds runs none."""
    made = KINDS["masks"].make()
    judge = evaluator(made)
    shape = opened(made.model).run(made.feeds[0])["masks"].shape
    failing = judge.measure(opened(failing_beyond("masks", *shape)(made)), share=1.0)
    assert failing.samples == judge.screening < len(judge.samples)
    assert judge.clearly_fails(failing)
    assert judge.spent_anywhere(failing) > 1 > judge.spent(failing)
    right = judge.measure(opened(made.model), share=1.0)
    assert right.samples == len(judge.samples)
    assert [p.name for p in right.probes] == [
        p.name for p in judge.measure(opened(made.model)).probes
    ]
    glanced = judge.measure(opened(made.model), share=1.0, glance=True)
    assert glanced.samples == judge.screening
    assert glanced.probes == ()


def on_random_inputs(made: Made) -> tuple[Evaluator, Session]:
    original = opened(made.model)
    return Evaluator(original, random_samples(original, 4, 0), Budget()), original


def test_random_inputs_show_other_sizes_and_carried_states() -> None:
    judge, original = on_random_inputs(KINDS["accumulator"].make())
    assert [p.name for p in judge.measure(original).probes] == ["states carried over 64 steps"]
    made = KINDS["masks"].make()
    judge, original = on_random_inputs(made)
    assert [p.name for p in judge.measure(original).probes] == ["other sizes"]
    shape = original.run(made.feeds[0])["masks"].shape
    assert "other sizes" in judge.broken(
        judge.measure(opened(failing_beyond("masks", *shape)(made)))
    )


def test_random_inputs_show_that_no_object_is_found_where_it_was() -> None:
    made = KINDS["objects in rows"].make()
    judge, _ = on_random_inputs(made)
    assert not judge.broken(judge.measure(opened(noisy(made))))
    broken = judge.broken(judge.measure(opened(scaled("detections", 0.0)(made))))
    assert broken.startswith("F1 of detections drops by 100.0 points on random inputs")


def test_random_inputs_show_a_small_column_that_is_lost() -> None:
    made = KINDS["regression"].make()
    judge, _ = on_random_inputs(made)
    assert not judge.broken(judge.measure(opened(rounded(made))))
    assert judge.broken(judge.measure(opened(scaled("measures", floats([1, 0, 1]))(made))))


def test_original_that_is_not_finite_on_any_random_input_is_judged_by_what_is_left() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 8] x) => (float[n, 8] y, int64[n, 1] best) {
            zero = Sub (x, x)  less = Sub (zero, x)  root = Sqrt (less)  other = Sqrt (x)
            y = Add (root, other)  best = ArgMax <axis = 1> (x) }"""
    model = ir.from_onnx_text(text)
    session = Session(model)
    samples = random_samples(session, 4, seed=0)
    judge = Evaluator(session, samples, Budget(), model=model)
    measured = judge.measure(Session(model))
    assert judge.holds(measured)
    assert measured.probes == ()


@pytest.mark.parametrize(
    ("usual", "elsewhere", "told"), [(40.0, 25.0, True), (40.0, 35.0, False), (116.0, 99.0, False)]
)
def test_what_is_near_on_the_samples_alone_is_told_unless_it_is_rounding(
    usual: float, elsewhere: float, *, told: bool
) -> None:
    outputs = {"y": OutputFidelity(usual, 1.0, 0.0, 0.0)}
    probe = ProbeFigure("other sizes", "y", elsewhere, least_db=17.0, number=3)
    evaluator = cast("Evaluator", SimpleNamespace(random="", notes=()))
    found = list(_about(evaluator, Measurement(outputs, (), 8, "made", (probe,))))
    assert [line.startswith("specialized") for line in found] == [True] * told
