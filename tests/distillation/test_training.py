"""Losses, steps, and what happens where a loss is no number or a gradient is wrong."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxpress.distillation.batches import Batches
from onnxpress.distillation.checking import Comparison, compare_gradients, require_agreement
from onnxpress.distillation.losses import LOSS, add_loss, targets_of
from onnxpress.distillation.problem import Problem
from onnxpress.distillation.rounded import Parameter
from onnxpress.distillation.training import Schedule, Trained, train
from onnxpress.errors import ModelError
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.runtime import Session


def log_softmax(z: np.ndarray, axis: int) -> np.ndarray:
    """In float64."""
    wide = z.astype(np.float64)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis, keepdims=True)))


class Bowl:
    """Stands for a session: loss Σ (w − 3)², and NaN in the steps that are named."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken, self.runs = broken, 0

    def run(self, feed: Any) -> dict[str, np.ndarray]:
        """The loss and its gradient."""
        self.runs += 1
        difference = feed["w"] - np.float32(3)
        loss = math.nan if self.runs in self.broken else float(np.sum(difference**2))
        return {LOSS: np.asarray(loss, np.float32), "dw": 2 * difference}


def problem_of(bowl: Any, mask: np.ndarray | None = None) -> Problem:
    """Of one weight of four elements."""
    one = Batches(({"x": np.zeros((1, 1), np.float32)},), ({},), 1, together=True)
    parameters = {"w": Parameter("w", "w", np.ones((2, 2), np.float32), mask)}
    scoring: Any = Bowl()
    return Problem(
        bowl,
        scoring,
        {"w": "dw"},
        parameters,
        (one, one),
        targets=(),
        left={},
        missing={},
        rounds=False,
        made_up=0,
    )


def trained(
    bowl: Bowl,
    *,
    steps: int = 300,
    rate: float = 0.05,
    mask: np.ndarray | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Trained:
    return train(problem_of(bowl, mask), Schedule(steps, rate, None, 0), stop=stop)


def test_steps_lead_to_the_least_loss() -> None:
    found = trained(Bowl())
    np.testing.assert_allclose(found.values["w"], 3, atol=0.01)
    assert found.steps == 300
    assert found.best < 1e-3 * found.before


def test_what_a_mask_covers_stays() -> None:
    mask = np.asarray([[True, False], [False, True]])
    found = trained(Bowl(), mask=mask)
    np.testing.assert_array_equal(found.values["w"][~mask], 1)
    np.testing.assert_allclose(found.values["w"][mask], 3, atol=0.1)


def test_loss_that_is_no_number_halves_the_rate_and_goes_on() -> None:
    found = trained(Bowl(broken=(5, 90)))
    assert found.halvings == 2
    assert found.steps == 300
    assert found.best < 0.05 * found.before


def test_loss_that_is_never_a_number_ends_with_the_student_as_it_was() -> None:
    found = trained(Bowl(broken=tuple(range(1, 1000))))
    assert found.ended == "the loss was no number at any rate"
    np.testing.assert_array_equal(found.values["w"], 1)


def test_wish_to_stop_ends_with_the_best_so_far() -> None:
    wishes = iter([False] * 100 + [True] * 9)
    found = trained(Bowl(), stop=lambda: next(wishes))
    assert found.ended == "it was stopped"
    assert found.steps == 100
    assert found.best < found.before


def test_state_that_is_kept_is_the_best_and_not_the_last() -> None:
    found = trained(Bowl(), rate=1.0, steps=40)
    best = min(check.chosen for check in found.checks)
    assert float(np.sum((found.values["w"] - 3) ** 2)) == pytest.approx(best, rel=1e-4)


def identity(shape: list[int | str], softmax: bool = False) -> ir.Model:  # noqa: FBT001, FBT002
    """Of y = x·w, or its Softmax along axis 1."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"])]
    nodes.append(
        helper.make_node("Softmax", ["m"], ["y"], axis=1)
        if softmax
        else helper.make_node("Identity", ["m"], ["y"])
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    weight = numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(nodes, "identity", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 18)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def loss_of(reading: Reading, student: np.ndarray, teacher: np.ndarray, **options: Any) -> float:
    model = identity(["n", *student.shape[1:]], **options)
    targets = targets_of({"y": reading}, [{"y": teacher}])
    add_loss(model, targets, 2.0)
    feed = {"x": student, targets[0].input: teacher}
    return float(Session(model, threads=1).run(feed)[LOSS])


@pytest.mark.parametrize("shape", [(6, 10), (2, 10, 3, 4)])
def test_logits_are_held_to_by_the_divergence_at_a_temperature(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    student, teacher = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    reading = Reading("y", Kind.CLASSIFICATION, "", "", "logits", 1)
    own, wanted = (log_softmax(z / 2, axis=1) for z in (student, teacher))
    expected = 4 * np.mean(np.sum(np.exp(wanted) * (wanted - own), axis=1))
    assert loss_of(reading, student, teacher) == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_held_to_through_the_logits_before_their_softmax() -> None:
    rng = np.random.default_rng(0)
    student, teacher = (rng.standard_normal((6, 10)).astype(np.float32) for _ in range(2))
    logits = Reading("y", Kind.CLASSIFICATION, "", "", "logits", 1)
    probabilities = Reading("y", Kind.CLASSIFICATION, "", "", "probabilities", 1)
    found = loss_of(
        probabilities,
        student,
        np.exp(log_softmax(teacher, axis=1)).astype(np.float32),
        softmax=True,
    )
    assert found == pytest.approx(loss_of(logits, student, teacher), rel=1e-4)


def test_columns_are_held_to_by_squares_over_their_own_variance() -> None:
    rng = np.random.default_rng(0)
    teacher = (rng.standard_normal((50, 2)) * [1, 100]).astype(np.float32)
    student = (teacher + rng.standard_normal((50, 2)) * [0.1, 10]).astype(np.float32)
    reading = Reading("y", Kind.REGRESSION, "", "", axis=1)
    wide = teacher.astype(np.float64)
    expected = np.mean(np.mean((student - wide) ** 2, axis=0) / wide.var(axis=0))
    assert loss_of(reading, student, teacher) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (1.3, False), (-1.0, False)])
def test_gradient_that_differences_contradict_is_refused(factor: float, *, agrees: bool) -> None:
    class Wrong(Bowl):
        def run(self, feed: Any) -> dict[str, np.ndarray]:
            found = super().run(feed)
            return {**found, "dw": np.float32(factor) * found["dw"]}

    session: Any = Wrong()
    parameters = {"w": Parameter("w", "w", np.ones((2, 2), np.float32), None)}
    found = compare_gradients(session, session, {"w": "dw"}, parameters, {})
    assert [each.agrees for each in found] == [agrees]


def test_refusal_names_the_parameter_and_both_figures() -> None:
    with pytest.raises(ModelError, match=r"'w' is 1 along itself by the rules and 2 by finite"):
        require_agreement([Comparison("w", 1.0, 2.0)])
