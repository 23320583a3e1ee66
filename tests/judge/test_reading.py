"""What is read from graph, names, shapes and answers; and what a user may say instead."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from zoo.builder import Made, Net, floats, opened
from zoo.table import KINDS

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.errors import UsageError
from onnxpress.judge import Kind, Reading, read_outputs
from onnxpress.judge.detectors import detectors
from onnxpress.judge.evidence import Evidence
from onnxpress.judge.metrics import Metric, metrics_of
from onnxpress.runtime import Session

EXPECTED = {
    "classes, probabilities": "classification",
    "classes, logits": "classification",
    "labels": "multi-label",
    "regression": "values",
    "landmarks": "values",
    "embedding": "embedding",
    "segmentation": "segmentation",
    "masks": "segmentation",
    "class numbers": "segmentation",
    "heat maps": "values",
    "picture": "values",
    "class and depth": "classification values",
    "YOLOv8": "detection",
    "YOLOv5": "detection",
    "DETR": "detection detection",
    "PicoDet": "detection detection",
    "objects in lists": "detection detection detection",
    "objects in rows": "detection",
    "lines": "sequence",
    "tokens": "sequence",
    "gains": "values",
    "recurrent": "values state",
    "accumulator": "values state",
    "decoder": "sequence state state",
}


def by_graph(made: Made) -> dict[str, Reading]:
    return read_outputs(ir.serde.deserialize_model(made.model), None)


def by_answers(made: Made) -> dict[str, Reading]:
    session = opened(made.model)
    assert isinstance(session.model, ir.Model)
    answers = [session.run(feed) for feed in made.feeds[:16]]
    return read_outputs(session.model, session, answers)


def kinds(readings: Mapping[str, Reading]) -> str:
    return " ".join(str(reading.kind) for reading in readings.values())


def of(made: Made, **asked: object) -> dict[str, Reading]:
    session = opened(made.model)
    assert isinstance(session.model, ir.Model)
    answers = [session.run(feed) for feed in made.feeds[:16]]
    return read_outputs(session.model, session, answers, **asked)  # type: ignore[arg-type]


def test_every_kind_of_the_zoo_is_expected() -> None:
    assert set(EXPECTED) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_kind_is_read_from_the_graph_alone(name: str) -> None:
    assert kinds(by_graph(KINDS[name].make())) == EXPECTED[name]


@pytest.mark.parametrize("name", KINDS)
def test_kind_is_read_with_answers_too(name: str) -> None:
    assert kinds(by_answers(KINDS[name].make())) == EXPECTED[name]


@pytest.mark.parametrize("name", KINDS)
def test_forms_axes_and_roles_are_read_from_the_graph_as_from_answers(name: str) -> None:
    made = KINDS[name].make()
    graph, answers = by_graph(made), by_answers(made)
    for output, reading in answers.items():
        found = graph[output]
        assert (found.form, found.axis, found.role, found.partner, found.state_input) == (
            reading.form,
            reading.axis,
            reading.role,
            reading.partner,
            reading.state_input,
        )


def test_heads_are_described_with_their_sizes() -> None:
    assert by_answers(KINDS["YOLOv8"].make())["output0"].words == (
        "detector head, 4 boxes + 4 scores × 36 anchors"
    )
    head = by_answers(KINDS["YOLOv5"].make())["output0"]
    assert head.words == "detector head, 4 boxes + objectness + 4 scores × 36 anchors"
    assert (head.axis, head.classes, head.objectness) == (2, 4, True)


def test_detr_has_nothing_as_its_last_class() -> None:
    scores = by_answers(KINDS["DETR"].make())["logits"]
    assert (scores.form, scores.background) == ("logits", 4)


def test_logits_of_each_class_apart_have_no_class_for_nothing() -> None:
    net = Net()
    x = net.op("Transpose", "x", perm=[0, 2, 1])
    scores = net.op("Sub", net.op("MatMul", x, net.normal(8, 5, fan=8)), floats([3]))
    boxes = net.op("Sigmoid", net.op("MatMul", x, net.normal(8, 4, fan=8)))
    outputs = {
        "logits": (scores, "float", ["n", 20, 5]),
        "pred_boxes": (boxes, "float", ["n", 20, 4]),
    }
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 8, 20)).astype(np.float32)} for _ in range(8))
    made = Made(net.model({"x": ("float", ["n", 8, 20])}, outputs), feeds)
    found = by_answers(made)["logits"]
    assert (found.kind, found.form, found.background) == (Kind.DETECTION, "logits", None)


@pytest.mark.parametrize("read", [by_graph, by_answers])
def test_attentions_of_steps_to_steps_are_no_classes(
    read: Callable[[Made], Mapping[str, Reading]],
) -> None:
    net = Net()
    keys = net.op("MatMul", "x", net.normal(8, 8, fan=8))
    attention = net.op("Softmax", net.op("MatMul", "x", net.op("Transpose", keys, perm=[1, 0])))
    outputs = {"attention": (attention, "float", ["steps", "steps"])}
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((20, 8)).astype(np.float32)} for _ in range(8))
    made = Made(net.model({"x": ("float", ["steps", 8])}, outputs), feeds)
    assert kinds(read(made)) == "values"


def test_sizes_of_one_name_are_no_attentions_where_they_differ() -> None:
    """Some exporters call every size that they do not know alike."""
    net = Net()
    scores = net.op("Softmax", net.op("MatMul", "x", net.normal(8, 5, fan=8)))
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((2, 8)).astype(np.float32)} for _ in range(8))
    model = net.model({"x": ("float", ["None", 8])}, {"y": (scores, "float", ["None", "None"])})
    assert by_answers(Made(model, feeds))["y"].kind == Kind.CLASSIFICATION


@pytest.mark.parametrize(
    "pairs",
    [
        {"h0": "h0_out", "h1": "h1_out"},
        {"h1": "new_h1", "h0": "new_h0"},
        {"state0": "state0_out", "state1": "state1_out"},
    ],
)
def test_counted_states_go_each_to_its_own_input(pairs: dict[str, str]) -> None:
    net = Net()
    inputs: dict[str, tuple[str, Sequence[int | str]]] = {"x": ("float", ["n", 8])}
    outputs = {"y": (net.op("MatMul", "x", net.normal(8, 8, fan=8)), "float", ["n", 8])}
    for first, last in pairs.items():
        inputs[first] = ("float", ["n", 8])
        outputs[last] = (net.op("Tanh", net.op("Add", "x", first)), "float", ["n", 8])
    found = by_graph(Made(net.model(inputs, outputs), ()))
    assert {reading.state_input: name for name, reading in found.items() if name != "y"} == pairs


def test_boxes_and_scores_may_differ_in_number() -> None:
    rng = np.random.default_rng(0)
    many = [rng.standard_normal((1, boxes, 6)).astype(np.float32) for boxes in (5, 7)]
    scores, boxes = (
        Evidence(name, (1, "n", size), is_float=True, origins=frozenset(), examples=found)
        for name, size, found in (
            ("logits", 6, tuple(many)),
            ("boxes", 4, tuple(array[..., :4] for array in many)),
        )
    )
    found = detectors([scores, boxes], asked=True)
    assert {reading.role for reading in found} == {"scores", "boxes"}


def test_classes_of_pixels_with_channels_last_are_a_map_judged_as_with_channels_first() -> None:
    net = Net()
    scores = net.op("Softmax", net.op("MatMul", "x", net.normal(8, 3, fan=8)), axis=-1)
    outputs = {"map": (scores, "float", ["n", 6, 7, 3])}
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 6, 7, 8)).astype(np.float32)} for _ in range(8))
    made = Made(net.model({"x": ("float", ["n", 6, 7, 8])}, outputs), feeds)
    last = by_answers(made)["map"]
    assert (last.kind, last.axis) == (Kind.SEGMENTATION, 3)
    one, other = (rng.dirichlet([1, 1, 1], (1, 6, 7)).astype(np.float32) for _ in range(2))
    first = dataclasses.replace(last, axis=1)
    (by_last,) = metrics_of({"map": last}, None, [])
    (by_first,) = metrics_of({"map": first}, None, [])
    assert isinstance(by_last, Metric)
    assert isinstance(by_first, Metric)
    a, b = ({"map": np.moveaxis(array, 3, 1)} for array in (one, other))
    wanted = by_first.rows(a, b, None)
    assert wanted[:, 0].sum() < wanted[:, 1].sum()
    np.testing.assert_array_equal(by_last.rows({"map": one}, {"map": other}, None), wanted)


@pytest.mark.parametrize(("first", "last"), [("h0", "hN"), ("h_0", "h_n"), ("c0", "c")])
def test_states_that_are_counted_from_zero_are_carried_on(first: str, last: str) -> None:
    net = Net()
    state = net.op("Tanh", net.op("Add", "x", first))
    outputs = {
        "y": (net.op("MatMul", state, net.normal(8, 8, fan=8)), "float", ["n", 8]),
        last: (net.op("Identity", state), "float", ["n", 8]),
    }
    inputs: dict[str, tuple[str, Sequence[int | str]]] = {
        "x": ("float", ["n", 8]),
        first: ("float", ["n", 8]),
    }
    found = by_graph(Made(net.model(inputs, outputs), ()))[last]
    assert (found.kind, found.state_input) == (Kind.STATE, first)


@pytest.mark.parametrize("read", [by_graph, by_answers])
def test_four_logits_beside_their_softmax_are_no_boxes(
    read: Callable[[Made], Mapping[str, Reading]],
) -> None:
    net = Net()
    hidden = net.op("MatMul", net.op("Transpose", "x", perm=[0, 2, 1]), net.normal(8, 4, fan=8))
    by_step = net.op("Transpose", hidden, perm=[1, 0, 2])
    scores = net.op("Softmax", by_step, axis=-1)
    outputs = {
        "logits": (net.op("Identity", by_step), "float", ["t", "n", 4]),
        "probs": (scores, "float", ["t", "n", 4]),
    }
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 8, 20)).astype(np.float32)} for _ in range(8))
    made = Made(net.model({"x": ("float", ["n", 8, "t"])}, outputs), feeds)
    assert kinds(read(made)) == "sequence sequence"


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_mlp", "fashion_mobile"])
def test_fashion_models_are_classifiers(models: Path, name: str) -> None:
    model = model_file.load(models / f"{name}.onnx")
    (reading,) = read_outputs(model, None).values()
    assert (reading.kind, reading.form, reading.axis) == (Kind.CLASSIFICATION, "logits", 1)
    assert str(reading) == "logits: class logits, 10 classes"


def test_gains_between_0_and_1_are_no_classes() -> None:
    assert by_answers(KINDS["gains"].make())["gains"].kind == Kind.VALUES


def test_two_tables_of_probabilities_are_no_detector() -> None:
    """As of a transcriber of music: notes and their onsets, 88 keys in each of 172 frames."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 172, 88] x) => (float[n, 172, 88] notes, float[n, 172, 88] onsets)
        { notes = Sigmoid (x)  r = Relu (x)  onsets = Sigmoid (r) }""")
    assert kinds(read_outputs(model, None)) == "values values"
    session = Session(model)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 172, 88)).astype(np.float32)}
    assert kinds(read_outputs(model, session, [session.run(feed)])) == "values values"


def test_spelled_out_softmax_gives_classes() -> None:
    net = Net()
    power = net.op("Exp", net.op("MatMul", "x", net.normal(8, 5)))
    y = net.op("Div", power, net.op("ReduceSum", power, np.array([1]), keepdims=1))
    model = net.model({"x": ("float", ["n", 8])}, {"y": (y, "float", ["n", 5])})
    (reading,) = by_graph(Made(model, ())).values()
    assert (reading.kind, reading.form) == (Kind.CLASSIFICATION, "probabilities")


@pytest.mark.parametrize("read", [by_graph, by_answers])
def test_logarithms_of_probabilities_are_classes(
    read: Callable[[Made], dict[str, Reading]],
) -> None:
    net = Net()
    y = net.op("LogSoftmax", net.linear("x", (net.normal(8, 5, fan=8), floats(np.zeros(5)))))
    model = net.model({"x": ("float", ["n", 8])}, {"y": (y, "float", ["n", 5])})
    rng = np.random.default_rng(0)
    feeds = tuple({"x": floats(rng.standard_normal((1, 8)))} for _ in range(16))
    found = read(Made(model, feeds))["y"]
    assert (found.kind, found.form, found.axis) == (Kind.CLASSIFICATION, "logits", 1)


@pytest.mark.parametrize(
    ("size", "kind"), [(2, Kind.VALUES), (4, Kind.VALUES), (8, Kind.EMBEDDING)]
)
def test_angles_and_rotations_are_no_embeddings(size: int, kind: Kind) -> None:
    net = Net()
    y = net.op("LpNormalization", net.linear("x", (net.normal(8, size), floats([1] * size))))
    model = net.model({"x": ("float", ["n", 8])}, {"y": (y, "float", ["n", size])})
    session = opened(model)
    rng = np.random.default_rng(0)
    examples = [session.run({"x": floats(rng.standard_normal((1, 8)))}) for _ in range(4)]
    graph = ir.serde.deserialize_model(model)
    for known in (examples, []):
        assert read_outputs(graph, session, known)["y"].kind == kind


def test_asked_task_changes_the_outputs_that_it_fits() -> None:
    made = KINDS["class and depth"].make()
    found = of(made, task="regression")
    assert {reading.kind for reading in found.values()} == {Kind.REGRESSION}
    found = of(made, task="segmentation")
    assert kinds(found) == "classification segmentation"


def test_asked_kind_is_of_one_output() -> None:
    found = of(KINDS["class and depth"].make(), kinds={"depth": "signal"})
    assert kinds(found) == "classification signal"
    assert found["depth"].why == "as asked"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"task": "sequence"}, ["--task sequence fits none", "scores [1, 4]", "classification"]),
        ({"task": "clasification"}, ["there is no kind 'clasification'", "classification"]),
        ({"kinds": {"dept": "signal"}}, ["--output dept=signal", "depth"]),
        ({"kinds": {"scores": "segmentation"}}, ["scores [1, 4]", "cannot", "classification"]),
        ({"kinds": {"scores": "speech"}}, ["--output scores", "'speech'", "embedding"]),
    ],
)
def test_what_does_not_fit_is_refused_and_what_would_is_named(
    asked: Mapping[str, object], words: Sequence[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        of(KINDS["class and depth"].make(), **asked)
    for word in words:
        assert word in str(caught.value)


def test_state_is_told_by_name_type_and_shape() -> None:
    readings = by_answers(KINDS["decoder"].make())
    assert {r.output: r.state_input for r in readings.values()} == {
        "logits": None,
        "present.0.key": "past.0.key",
        "present.0.value": "past.0.value",
    }


def test_picture_that_is_given_back_is_no_state() -> None:
    node = helper.make_node("Relu", ["input"], ["output"])
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        for name in ("input", "output")
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (reading,) = by_graph(Made(model, ())).values()
    assert reading.kind == Kind.VALUES


PUBLIC = {
    "magika": ("classification", "214 classes"),
    "ocr_rec": ("sequence", "6625 classes"),
    "ocr_cls": ("classification", "2 classes"),
    "ocr_det": ("segmentation", "masks"),
    "silero_vad": ("values state", "values"),
    "nudenet": ("detection", "4 boxes + 18 scores"),
    "nsnet2": ("values", "161"),
    "open_nsfw": ("classification", "2 classes"),
    "vit_focus": ("segmentation", "masks"),
    "minilm": ("integers integers values values", "whole numbers"),
    "t5_decoder": ("sequence", "32128 classes"),
    "smart_turn": ("multi-label", "1 label"),
    "notes": ("values values values", "values"),
    "orientation": ("classification", "4 classes"),
    "secrets": ("multi-label", "1 label"),
}


@pytest.mark.public
@pytest.mark.parametrize("with_data", [False, True], ids=["graph", "answers"])
@pytest.mark.parametrize("name", [*PUBLIC, "layout"])
def test_public_model_is_read(models: Path, name: str, *, with_data: bool) -> None:
    folder = models / ".cache" / name
    if not (folder / "model.onnx").exists():
        pytest.skip("run models/fetch.py first")
    model = model_file.load(folder / "model.onnx")
    found = read_outputs(model, None)
    if with_data:
        if not (folder / "evaluation.npz").exists():
            pytest.skip("run models/make_data.py first")
        session = Session(folder / "model.onnx", threads=1)
        samples = load_samples(folder / "evaluation.npz", session.inputs)
        found = read_outputs(model, session, [session.run(f) for f in samples.feeds[:4]])
    if name == "layout":
        assert {reading.role for reading in found.values()} == {"scores", "distances"}
        assert len({r.partner for r in found.values() if r.partner}) == 4
        return
    wanted, words = PUBLIC[name]
    assert kinds(found).startswith(wanted)
    assert words in next(iter(found.values())).words
