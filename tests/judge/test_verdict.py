"""How far a judgement carries, users' metrics, and what the samples cannot show."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from zoo.builder import Made, Net, floats, opened
from zoo.faults import chosen, constant, noisy, rare, scaled
from zoo.pictures import classifier, discs, feeds_of
from zoo.table import KINDS

from onnxpress.data import Samples, random_samples
from onnxpress.errors import BudgetError, DataError, UsageError
from onnxpress.judge import Budget, Evaluator, Verdict, judgement
from onnxpress.judge.budget import DEFAULT_MIN_SQNR
from onnxpress.runtime import Session

CLASSES = 4


def samples_of(made: Made, number: int | None = None) -> Samples:
    return Samples(made.feeds[:number], None, "made")


def many(number: int) -> Made:
    """The classifier with more samples."""
    made = classifier()
    images, _ = discs(99, number, each=1, colours=CLASSES - 1)
    return replace(made, feeds=feeds_of(images))


def verdict(made: Made, candidate: onnx.ModelProto, budget: Budget | None = None) -> object:
    judge = Evaluator(opened(made.model), samples_of(made), budget or Budget())
    return judgement(judge, judge.measure(opened(candidate)))


def test_all_alike_on_48_samples_is_held_on_the_samples_seen_and_299_would_decide() -> None:
    made = classifier()
    found = verdict(made, made.model)
    assert found.verdict == Verdict.SEEN  # type: ignore[attr-defined]
    # The rule of three: ln 0.05 / ln 0.99.
    assert found.samples_needed == 299  # type: ignore[attr-defined]
    assert str(found) == (
        "held on the samples seen: top-1 agreement may have dropped by up to 6.1 points "
        "(95% confidence, 48 samples); the budget is 1; about 299 samples would decide"
    )


def test_as_many_samples_as_were_said_to_decide_do() -> None:
    made = many(299)
    assert str(verdict(made, noisy(made))) == "held"


def test_broken_is_said_with_its_reason() -> None:
    made = classifier()
    found = verdict(made, scaled("scores", floats([1, 0, 1, 1]))(made))
    assert found.verdict == Verdict.BROKEN  # type: ignore[attr-defined]
    assert "top-1 agreement of output scores drops by" in str(found)


def test_random_inputs_carry_no_bound() -> None:
    made = classifier()
    original = opened(made.model)
    judge = Evaluator(original, random_samples(original, 4, 0), Budget())
    assert judgement(judge, judge.measure(original)).verdict == Verdict.SEEN


def test_confidence_keeps_a_distance_from_the_budget() -> None:
    made = classifier()
    original = opened(made.model)
    few = Evaluator(original, samples_of(made), Budget(confidence=0.95))
    assert "may drop by up to 6.05 points (95% confidence)" in few.broken(
        few.measure(opened(noisy(made)))
    )
    enough = Evaluator(original, samples_of(many(299)), Budget(confidence=0.95))
    assert not enough.broken(enough.measure(opened(noisy(made))))


def test_one_wrong_of_48_is_beyond_a_point_and_within_three() -> None:
    made = classifier()
    candidate = rare("scores", "image", 1, lambda net, x: net.op("Sub", floats(1.0), x))(made)
    assert "drops by 2.08 points" in str(verdict(made, candidate))
    wide = Budget(max_drop=3.0, min_sqnr=-math.inf)
    judge = Evaluator(opened(made.model), samples_of(made), wide)
    measured = judge.measure(opened(candidate))
    assert judge.holds(measured)
    # Clopper & Pearson of one in 48.
    assert measured.metrics[0].interval == pytest.approx((0.107, 9.51), rel=0.01)


def test_masks_that_are_alike_on_48_samples_may_be_lost_on_others() -> None:
    made = KINDS["class numbers"].make()
    judge = Evaluator(opened(made.model), samples_of(made), Budget())
    (figure,) = judge.measure(opened(noisy(made))).metrics
    assert 0 < figure.drop < 0.3
    # Of all-or-nothing losses: 1 − 0.05^(1/48) = 6 points.
    assert 3 < figure.interval[1] < 7


def test_looks_at_the_same_samples_widen_the_bound() -> None:
    made = classifier()
    original = opened(made.model)
    judge = Evaluator(original, samples_of(made), Budget())
    once = judge.measure(original).metrics[0].interval[1]
    judge.looks = 5
    assert judge.measure(original).metrics[0].interval[1] > once
    assert judge.confidence == pytest.approx(0.99)


def test_bound_on_fidelity_is_wider_where_one_sample_errs_most() -> None:
    made = KINDS["gains"].make()
    one_bad = rare("gains", "spectrum", 1, lambda net, x: net.op("Mul", x, floats(0.75)))(made)
    found = verdict(made, one_bad)
    assert found.verdict == Verdict.SEEN  # type: ignore[attr-defined]
    assert "output gains may keep no more than" in str(found)


def test_own_metric_decides_alone() -> None:
    made = classifier()
    budget = Budget(metric="zoo.scoring:first_value")
    halved = scaled("scores", 0.5)(made)
    assert str(verdict(made, halved)) != "held"
    judge = Evaluator(opened(made.model), samples_of(made), budget)
    assert judge.metric_names == ("zoo.scoring:first_value",)
    assert judge.holds(judge.measure(opened(halved)))
    swapped = chosen("scores", [1, 0, 2, 3], 1)(made)
    assert "zoo.scoring:first_value drops" in judge.broken(judge.measure(opened(swapped)))


def test_metric_of_the_whole_set_is_called_once_with_all() -> None:
    made = classifier()
    budget = Budget(metric="set=zoo.scoring:correlation")
    judge = Evaluator(opened(made.model), samples_of(made), budget)
    (figure,) = judge.measure(opened(scaled("scores", 0.5)(made))).metrics
    assert figure.value == pytest.approx(100)
    (figure,) = judge.measure(opened(scaled("scores", -1.0)(made))).metrics
    assert figure.value == pytest.approx(-100)
    assert figure.drop == pytest.approx(200)


def test_metric_that_fails_names_the_sample() -> None:
    made = classifier()
    original = opened(made.model)
    answers = [int(original.run(feed)["scores"].argmax()) for feed in made.feeds]
    judge = Evaluator(original, samples_of(made), Budget(metric="zoo.scoring:picky"))
    with pytest.raises(UsageError) as caught:
        judge.measure(original)
    assert str(caught.value) == (
        f"made, sample {answers.index(2)}: metric zoo.scoring:picky: fails: "
        "ValueError: no thirds [U013]"
    )


def test_metric_that_gives_no_number_names_the_sample() -> None:
    made = classifier()
    original = opened(made.model)
    judge = Evaluator(original, samples_of(made), Budget(metric="zoo.scoring:no_number"))
    with pytest.raises(UsageError, match=r"made, sample 0: .*no_number: gives nan"):
        judge.measure(original)


@pytest.mark.parametrize("name", ["zoo.scoring:missing", "no_such_module:f"])
def test_metric_that_cannot_be_imported_is_refused(name: str) -> None:
    made = classifier()
    with pytest.raises(UsageError, match="cannot be imported"):
        Evaluator(opened(made.model), samples_of(made), Budget(metric=name))


def test_drop_without_a_metric_is_refused() -> None:
    made = KINDS["gains"].make()
    with pytest.raises(BudgetError, match="--max-drop needs a task metric"):
        Evaluator(opened(made.model), samples_of(made), Budget(max_drop=1.0))


def test_constant_output_is_noted() -> None:
    made = classifier()
    still = Made(constant("scores", 0.25)(made), made.feeds)
    judge = Evaluator(opened(still.model), samples_of(still), Budget())
    assert judge.notes == (
        "output scores is constant over these samples, which cannot show it works [W004]",
    )


def test_detector_that_finds_nothing_is_noted() -> None:
    made = KINDS["YOLOv8"].make()
    scores = np.repeat(floats([1, 0.2]), 4).reshape(-1, 1)
    blind = Made(scaled("output0", scores)(made), made.feeds)
    judge = Evaluator(opened(blind.model), samples_of(blind), Budget())
    assert (
        "the original finds no object in these samples: F1 says nothing here [W004]" in judge.notes
    )


def drawing() -> Session:
    """A model that adds noise to its input."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["n"], name="noise", scale=0.3),
        helper.make_node("Add", ["x", "n"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 16]) for name in "xy"
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Session(ir.serde.deserialize_model(model), threads=1)


def noise_samples() -> Samples:
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 16)).astype(np.float32)} for _ in range(24))
    return Samples(feeds, None, "made")


def test_node_that_draws_random_numbers_is_named() -> None:
    judge = Evaluator(drawing(), noise_samples(), Budget())
    assert judge.random == (
        "the original itself draws random numbers (RandomNormalLike 'noise'): output y differs "
        "from run to run with the same inputs [W005]"
    )


def test_model_that_draws_is_held_to_what_it_differs_from_itself() -> None:
    judge = Evaluator(drawing(), noise_samples(), Budget())
    assert judge.least["y"] < 15  # type: ignore[operator]
    assert judge.holds(judge.measure(drawing()))


def test_labels_that_no_sample_holds_are_not_held_by_any_bound() -> None:
    net = Net()
    y = net.op("Sigmoid", net.linear("x", (net.normal(8, 4, fan=80), floats(np.full(4, -5)))))
    model = net.model({"x": ("float", ["batch", 8])}, {"y": (y, "float", ["batch", 4])})
    rng = np.random.default_rng(0)
    made = Made(model, tuple({"x": floats(rng.standard_normal((1, 8)))} for _ in range(320)))
    found = verdict(made, model)
    assert found.verdict == Verdict.SEEN  # type: ignore[attr-defined]
    assert "none of the 320 samples holds what F1 of labels counts" in str(found)
    # Log-odds are all there is to judge by, and are held to as much as other values.
    assert Evaluator(opened(model), samples_of(made), Budget()).least["y"] == DEFAULT_MIN_SQNR


def alarm(bias: float) -> Made:
    """Whether a score is above 0, and nothing else; no score at all is given out."""
    net = Net()
    score = net.linear("x", (net.normal(8, 1, fan=8), floats([bias])))
    y = net.op("Greater", net.op("Squeeze", score, np.array([1])), floats(0))
    model = net.model({"x": ("float", ["n", 8])}, {"alarm": (y, "bool", ["n"])})
    rng = np.random.default_rng(0)
    return Made(model, tuple({"x": floats(rng.standard_normal((1, 8)))} for _ in range(320)))


def test_alarms_that_are_rare_are_not_lost_among_others() -> None:
    made = alarm(-3.2)
    judge = Evaluator(opened(made.model), samples_of(made), Budget())
    silent = judge.measure(opened(alarm(-99).model))
    share = silent.outputs["alarm"].equal_share
    assert 0.99 <= share < 1
    assert not judge.holds(silent)
    assert judge.holds(judge.measure(opened(made.model)))


def test_decisions_that_are_all_alike_are_not_held_by_any_bound() -> None:
    made = alarm(-20)
    found = verdict(made, made.model)
    assert found.verdict == Verdict.SEEN  # type: ignore[attr-defined]
    assert "output alarm is decided alike in all 320 samples" in str(found)
    judge = Evaluator(opened(made.model), samples_of(made), Budget())
    assert any(note.startswith("output alarm is decided alike") for note in judge.notes)


@pytest.mark.parametrize("copies", [1, 32])
def test_one_sample_and_copies_of_it_carry_no_bound(copies: int) -> None:
    made = KINDS["gains"].make()
    one = Made(made.model, made.feeds[:1] * copies)
    candidate = noisy(made)
    found = verdict(one, candidate)
    assert found.verdict == Verdict.SEEN  # type: ignore[attr-defined]
    assert "no bound" in str(found)
    assert verdict(one, made.model).verdict == Verdict.HELD  # type: ignore[attr-defined]
    assert verdict(made, candidate).verdict == Verdict.HELD  # type: ignore[attr-defined]


def test_labels_of_which_none_is_a_class_are_refused() -> None:
    made = classifier()
    samples = replace(samples_of(made), labels=np.full(len(made.feeds), -1))
    with pytest.raises(DataError, match=r"all labels are below 0"):
        Evaluator(opened(made.model), samples, Budget())


@pytest.mark.parametrize("form", ["logit", "probability"])
def test_yes_or_no_before_a_sigmoid_is_judged_as_behind_it(form: str) -> None:
    net = Net()
    y = net.linear("x", (net.normal(32, 1, fan=32), floats([-2])))
    y = net.op("Sigmoid", y) if form == "probability" else y
    model = net.model({"x": ("float", ["n", 32])}, {"y": (y, "float", ["n", 1])})
    rng = np.random.default_rng(0)
    feeds = tuple({"x": floats(rng.standard_normal((1, 32)))} for _ in range(200))
    original = opened(model)
    scores = np.concatenate([original.run(feed)["y"][:, 0] for feed in feeds])
    labels = (scores > (0.5 if form == "probability" else 0)).astype(np.int64)
    judge = Evaluator(original, Samples(feeds, labels, "made"), Budget())
    (figure,) = judge.measure(original).metrics
    assert figure.reference == 100
    # Noise is looked for in the scores of what is decided as no, too.
    found = judge.measure(opened(noisy(Made(model, feeds))))
    # Weights are off by a thousandth.
    assert found.outputs["y"].sqnr_db == pytest.approx(60, abs=6)


@pytest.mark.parametrize("kind", ["bool", "int64"])
def test_labels_of_decisions_give_their_accuracy(kind: str) -> None:
    made = alarm(0)
    if kind == "int64":
        net = Net()
        score = net.linear("x", (net.normal(8, 3, fan=8), floats([0, 0, 0])))
        y = net.op("ArgMax", score, axis=1, keepdims=0)
        model = net.model({"x": ("float", ["n", 8])}, {"label": (y, "int64", ["n"])})
        made = Made(model, made.feeds)
    original = opened(made.model)
    (name,) = original.output_names
    labels = np.concatenate([original.run(feed)[name] for feed in made.feeds]).astype(np.int64)
    wrong = np.where(np.arange(len(labels)) % 4 == 0, labels + 1, labels)
    judge = Evaluator(original, replace(samples_of(made), labels=wrong), Budget())
    figures = {figure.name: figure for figure in judge.measure(original).metrics}
    assert figures["accuracy"].reference == 75
    assert figures["F1 of decisions"].reference == 100


def test_scores_of_samples_of_one_class_are_held_to_as_much_as_other_values() -> None:
    net = Net()
    y = net.linear("x", (net.normal(8, 2, fan=80), floats([5, 0])))
    model = net.model(
        {"x": ("float", ["n", 8])}, {"prob": (net.op("Softmax", y), "float", ["n", 2])}
    )
    rng = np.random.default_rng(0)
    made = Made(model, tuple({"x": floats(rng.standard_normal((1, 8)))} for _ in range(32)))
    assert Evaluator(opened(model), samples_of(made), Budget()).least["prob"] == DEFAULT_MIN_SQNR
    far = floats(np.full((1, 8), 99))
    both = Made(model, (*made.feeds, {"x": far}, {"x": -far}))
    assert Evaluator(opened(model), samples_of(both), Budget()).least["prob"] == 15


def test_an_input_that_is_handed_on_carries_no_doubt() -> None:
    net = Net()
    y = net.linear("x", (net.normal(8, 4, fan=8), floats(np.zeros(4))))
    long = net.op("Cast", net.op("ReduceSum", "mask", np.array([1]), keepdims=0), to=7)
    held = net.op("Greater", "mask", floats(0.0))
    x = {"x": ("float", ["batch", 8]), "mask": ("float", ["batch", 3])}
    outputs: dict[str, tuple[str, str, list[str | int]]] = {
        "y": (y, "float", ["batch", 4]),
        "lengths": (long, "int64", ["batch"]),
        "held": (held, "bool", ["batch", 3]),
    }
    rng = np.random.default_rng(0)
    feeds = [
        {"x": floats(rng.standard_normal((1, 8))), "mask": floats(rng.integers(0, 2, (1, 3)))}
        for _ in range(12)
    ]
    made = Made(net.model(x, outputs), tuple(feeds))
    assert str(verdict(made, made.model)) == "held"


@pytest.mark.parametrize("number", [320, 16])
def test_frames_of_a_recording_are_one_sample_and_rows_of_a_batch_are_not(number: int) -> None:
    net = Net()
    row = net.linear("x", (net.normal(8, 6, fan=8), floats(np.zeros(6))))
    if number == 16:
        before = net.op("Slice", row, np.array([0]), np.array([-1]), np.array([0]))
        row = net.op("Add", row, net.op("Pad", before, np.array([1, 0, 0, 0])))
    y = net.op("Softmax", row, axis=-1)
    model = net.model({"x": ("float", ["n", 8])}, {"prob": (y, "float", ["n", 6])})
    rng = np.random.default_rng(0)
    made = Made(model, tuple({"x": floats(rng.standard_normal((20, 8)))} for _ in range(16)))
    judge = Evaluator(opened(model), samples_of(made), Budget())
    (figure,) = judge.measure(opened(model)).metrics
    # 1 − 0.05^(1/n), of samples.
    assert figure.interval[1] == pytest.approx(100 * (1 - 0.05 ** (1 / number)))


def residual(kind: str) -> tuple[Made, onnx.ModelProto]:
    """What adds a small part to its input, and the same without that part."""
    net = Net()
    small = (net.normal(64, 96, fan=64, gain=0.1), floats(np.zeros(96)))
    wide = net.op("Relu", net.linear("x", (net.normal(96, 64, fan=96), floats(np.zeros(64)))))
    part = net.linear(wide, small)
    y = net.op(kind, "x", part)
    y = net.reshaped(net.op("Clip", net.op("Add", y, floats(0.5)), floats(-9.0)), 0, 4, 24)
    spec = {"x": ("float", ["n", 96])}
    model = net.model(spec, {"y": (y, "float", ["n", 4, 24])})
    rng = np.random.default_rng(0)
    feeds = tuple({"x": floats(rng.standard_normal((1, 96)))} for _ in range(32))
    lost = onnx.ModelProto()
    lost.CopyFrom(model)
    for tensor in lost.graph.initializer:
        if tuple(tensor.dims) == (64, 96):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.zeros((64, 96), np.float32), tensor.name)
            )
    return Made(model, feeds), lost


@pytest.mark.parametrize("kind", ["Add", "Sub"])
def test_network_that_adds_little_to_its_input_is_not_lost(kind: str) -> None:
    made, lost = residual(kind)
    x = np.concatenate([feed["x"] for feed in made.feeds])
    one, other = (opened(m).run({"x": x})["y"].astype(np.float64) for m in (made.model, lost))
    # Of the whole output, 20 dB are kept without the network.
    assert 10 * math.log10(one.var() / np.mean((one - other) ** 2)) > 20
    judge = Evaluator(opened(made.model), samples_of(made), Budget())
    assert "output y" in judge.broken(judge.measure(opened(lost)))
    assert judge.measure(opened(lost)).outputs["y"].sqnr_db == pytest.approx(0, abs=1)
    assert judge.holds(judge.measure(opened(noisy(made))))
