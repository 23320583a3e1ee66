"""Models of ai.onnx.ml: that nothing is to compress is said in a sentence; maps are judged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from command_line import message, run
from onnx import TensorProto, helper

from onnxpress import beyond_ir, model_file, unmeasured
from onnxpress.runtime import Session
from onnxpress.untreated import nothing_to_compress
from onnxpress.validation import validate

FEATURES, CLASSES = 6, ["a", "b", "c"]
ML, STANDARD = helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 15)
PROBABILITIES = helper.make_sequence_type_proto(
    helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, None))
)


def ml(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        operator, inputs, outputs, domain="ai.onnx.ml", name=operator, **attributes
    )


def model_of(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, onnx.TypeProto],
    initializers: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "ml",
        [helper.make_tensor_value_info("x", 1, ["n", FEATURES])],
        [helper.make_value_info(name, kind) for name, kind in outputs.items()],
        initializers or [],
    )
    model = helper.make_model(graph, opset_imports=[STANDARD, ML], ir_version=8)
    onnx.checker.check_model(model)
    return model


def tensor(element: int, *dims: str | int) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(element, dims)


def trees(number: int = 40, depth: int = 4) -> onnx.NodeProto:
    """Full binary trees, as converters write them."""
    rng = np.random.default_rng(0)
    inner, size = 2**depth - 1, 2 ** (depth + 1) - 1
    leaf = np.arange(size) >= inner
    leaves = np.flatnonzero(leaf)
    own = np.arange(size)
    return ml(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "p"],
        nodes_treeids=np.repeat(np.arange(number), size).tolist(),
        nodes_nodeids=np.tile(own, number).tolist(),
        nodes_featureids=rng.integers(0, FEATURES, number * size).tolist(),
        nodes_values=rng.standard_normal(number * size).tolist(),
        nodes_modes=np.where(np.tile(leaf, number), "LEAF", "BRANCH_LEQ").tolist(),
        nodes_truenodeids=np.tile(np.where(leaf, 0, 2 * own + 1), number).tolist(),
        nodes_falsenodeids=np.tile(np.where(leaf, 0, 2 * own + 2), number).tolist(),
        class_treeids=np.repeat(np.arange(number), len(leaves) * 3).tolist(),
        class_nodeids=np.tile(np.repeat(leaves, 3), number).tolist(),
        class_ids=np.tile(np.arange(3), number * len(leaves)).tolist(),
        class_weights=(rng.random(number * len(leaves) * 3) / number).tolist(),
        classlabels_strings=CLASSES,
    )


def zip_map() -> onnx.NodeProto:
    return ml("ZipMap", ["p"], ["maps"], classlabels_strings=CLASSES)


def forest() -> onnx.ModelProto:
    types = {"label": tensor(TensorProto.STRING, "n"), "maps": PROBABILITIES}
    return model_of([trees(), zip_map()], types)


def regression() -> onnx.ModelProto:
    scale = ml("Scaler", ["x"], ["s"], offset=[0.1] * FEATURES, scale=[2.0] * FEATURES)
    linear = ml("LinearRegressor", ["s"], ["y"], coefficients=[0.5] * FEATURES, intercepts=[1.0])
    return model_of([scale, linear], {"y": tensor(1, "n", 1)})


def vectors() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    svm = ml(
        "SVMRegressor",
        ["x"],
        ["y"],
        coefficients=rng.standard_normal(50).tolist(),
        support_vectors=rng.standard_normal(50 * FEATURES).tolist(),
        n_supports=50,
        kernel_type="RBF",
        kernel_params=[0.1, 0.0, 0.0],
        rho=[0.2],
    )
    return model_of([svm], {"y": tensor(1, "n", 1)})


def logistic() -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    linear = ml(
        "LinearClassifier",
        ["x"],
        ["label", "raw"],
        coefficients=rng.standard_normal(3 * FEATURES).tolist(),
        intercepts=[0.0, 0.1, 0.2],
        classlabels_strings=CLASSES,
        post_transform="SOFTMAX",
    )
    normalized = ml("Normalizer", ["raw"], ["p"], norm="L1")
    types = {"label": tensor(TensorProto.STRING, "n"), "maps": PROBABILITIES}
    return model_of([linear, normalized, zip_map()], types)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "forest": forest,
    "regression": regression,
    "vectors": vectors,
    "logistic": logistic,
}


@pytest.fixture(params=MODELS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file of a model without anything to compress."""
    onnx.save(MODELS[request.param](), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def answers(path: Path) -> list[object]:
    x = np.random.default_rng(3).standard_normal((5, FEATURES)).astype(np.float32)
    return list(ort.InferenceSession(path).run(None, {"x": x}))


def said(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("command", "status"), [("optimize", 0), ("quantize", 1), ("simplify", 0)])
def test_nothing_to_compress_is_said_and_the_model_answers_as_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, command: str, status: int, *, heavy: bool
) -> None:
    if heavy:
        monkeypatch.setattr(unmeasured, "_HEAVY_BYTES", 0)
    output = path.with_name("out.onnx")
    result = run(command, path, "-o", output)
    assert result.exit_code == status
    assert "nothing to compress: the model's parameters" in said(message(result))
    onnx.checker.check_model(onnx.load(output), full_check=False)
    for before, after in zip(answers(path), answers(output), strict=True):
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


def test_inspect_says_that_nothing_is_to_compress(path: Path) -> None:
    result = run("inspect", path, "--json", "-")
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert any("nothing to compress" in problem for problem in found["problems"])
    assert found["passes"] == []


def test_a_large_ensemble_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmeasured, "_HEAVY_BYTES", 10_000)
    onnx.save(forest(), tmp_path / "model.onnx")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr("onnxruntime.InferenceSession", refused)
    result = run("optimize", tmp_path / "model.onnx", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert "was not run" in said(message(result))


def test_long_attributes_stay_packed_and_are_written_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beyond_ir, "_LONG", 100)
    proto = forest()
    wanted = {a.name: a for a in proto.graph.node[0].attribute}
    model = beyond_ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))
    packed = model.graph.node(0).attributes
    assert isinstance(packed["nodes_values"], beyond_ir.PackedAttribute)
    assert packed["nodes_modes"].as_strings()[0] == "BRANCH_LEQ"
    found = {a.name: a for a in beyond_ir.to_proto(model.clone()).graph.node[0].attribute}
    assert found == wanted


def test_a_network_behind_an_ensemble_is_something_to_compress() -> None:
    weight = np.random.default_rng(4).standard_normal((3, 2000)).astype(np.float32)
    nodes = [trees(), helper.make_node("MatMul", ["p", "w"], ["y"])]
    types = {"label": tensor(TensorProto.STRING, "n"), "y": tensor(1, "n", 2000)}
    model = model_of(nodes, types, [onnx.numpy_helper.from_array(weight, "w")])
    assert not nothing_to_compress(ir.from_proto(model))


def network(*, gain: float = 1.0) -> onnx.ModelProto:
    """A classifier with layers, its probabilities given as maps."""
    rng = np.random.default_rng(5)
    first, second = rng.standard_normal((FEATURES, 64)), rng.standard_normal((64, 3)) * gain / 8
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["z"], "second"),
        helper.make_node("Softmax", ["z"], ["p"], axis=-1),
        zip_map(),
    ]
    weights = [("first", first), ("second", second)]
    return model_of(
        nodes,
        {"maps": PROBABILITIES},
        [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights],
    )


def test_maps_are_judged_by_their_values(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    onnx.save(network(gain=1.001), tmp_path / "near.onnx")
    onnx.save(network(gain=-1), tmp_path / "far.onnx")
    near = validate(tmp_path / "near.onnx", tmp_path / "model.onnx")
    assert near.within_budget
    assert not validate(tmp_path / "far.onnx", tmp_path / "model.onnx").within_budget


def test_a_network_that_gives_maps_is_pressed_and_still_gives_them(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    output = tmp_path / "out.onnx"
    result = run("quantize", tmp_path / "model.onnx", "-o", output)
    assert result.exit_code == 0
    assert onnx.load(output).graph.output[0].type == PROBABILITIES
    (before,), (after,) = answers(tmp_path / "model.onnx"), answers(output)
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert [set(one) for one in before] == [set(one) for one in after]
    near = [abs(x[key] - y[key]) for x, y in zip(before, after, strict=True) for key in x]
    assert 0 < max(near) < 0.1


def test_maps_are_kept_beside_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    model = model_file.load(tmp_path / "model.onnx")
    model_file.save(model, tmp_path / "out.onnx", external_data=True)
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert written.graph.output[0].type == PROBABILITIES


def test_maps_are_an_array_with_a_column_for_each_key(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "model.onnx")
    session = Session(tmp_path / "model.onnx")
    found = session.run({"x": np.ones((4, FEATURES), np.float32)})["maps"]
    assert found.shape == (4, 3)
    np.testing.assert_allclose(np.asarray(found, np.float64).sum(axis=1), 1, rtol=1e-5)
