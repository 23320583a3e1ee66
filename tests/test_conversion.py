"""Making a model fit: what comes out answers as before, and what cannot be done is said."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from command_line import message, run
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxpress
from onnxpress.conversion import (
    Conversion,
    convert_form,
    convert_interface,
    convert_shapes,
    write_ort,
)
from onnxpress.conversion.opset import change_opset, raise_opset
from onnxpress.conversion.rewrites import drop_performed_activations, pool_by_window
from onnxpress.data import random_samples
from onnxpress.graph import standard_opset
from onnxpress.model_file import save, to_bytes
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS

FLOAT = onnx.TensorProto.FLOAT


def sqnr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / max(noise, 1e-300)))


def answers(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    (output,) = Session(model).run(feed).values()
    return output


def small(
    nodes: list[onnx.NodeProto], shape: list[object], initializers: list[tuple[str, npt.ArrayLike]]
) -> ir.Model:
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("x", FLOAT, shape)],  # type: ignore[arg-type]
        [onnx.helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in initializers],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize("request_", ["image=3x1x28x28", "batch=3"])
def test_a_fixed_shape_reaches_the_outputs(models: Path, request_: str) -> None:
    model = onnxpress.load(models / "fashion_cnn.onnx")
    fixed = convert_shapes(model, Conversion((request_,)))
    assert list(fixed.graph.inputs[0].shape or ()) == [3, 1, 28, 28]
    assert list(fixed.graph.outputs[0].shape or ()) == [3, 10]
    assert model.graph.inputs[0].shape is not None
    assert not model.graph.inputs[0].shape.is_static(), "the model that was given is unchanged"
    feed = {"image": np.random.default_rng(0).random((3, 1, 28, 28), np.float32)}
    np.testing.assert_array_equal(answers(fixed, feed), answers(model, feed))


def test_a_symbol_that_one_input_fixes_is_fixed_in_all() -> None:
    nodes = [onnx.helper.make_node("Add", ["x", "z"], ["y"])]
    model = small(nodes, ["batch", 4], [])
    proto = ir.to_proto(model)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("z", FLOAT, ["batch", 4]))
    fixed = convert_shapes(ir.from_proto(proto), Conversion(("x=2x4",)))
    assert [list(value.shape or ()) for value in fixed.graph.inputs] == [[2, 4], [2, 4]]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (["picture=1x1x28x28"], "no input and no dimension 'picture'"),
        (["imag=1x1x28x28"], "did you mean 'image'"),
        (["image=1x28x28"], "image has 4 dimensions [batch, 1, 28, 28], not 3"),
        (["image=1x3x28x28"], "axis 1 of image is 1 in the model, not 3"),
        (["image=1x1x28x28", "image=2x1x28x28"], "image was given 1x1x28x28 before"),
        (["image=2x1x28x28", "batch=3"], "'batch' would be 3 here and 2 elsewhere"),
        (["batch=1x2"], "batch is one dimension, not a shape"),
        (["image=axb"], "expected NAME=1x3x224x224"),
        (["image"], "expected NAME=1x3x224x224"),
        (["batch=0"], "sizes of at least 1"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    tmp_path: Path, models: Path, shapes: list[str], expected: str
) -> None:
    output = tmp_path / "out.onnx"
    options = [part for shape in shapes for part in ("--fix-shape", shape)]
    result = run("optimize", models / "fashion_cnn.onnx", *options, "-o", output)
    assert result.exit_code == 2
    assert expected in message(result)
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--target", "tensorrt", "--target", "nnapi"], "layouts is s8s8"),
        (["--target", "phone"], "there is no target 'phone'"),
        (["--float16", "keep-io", "--passes", "quantize"], "takes the place of quantize"),
        (["--per-target", "--json", "-"], "give --json a file name"),
        (["--target", "nnapi", "--external-data"], "weights in a file of their own"),
        (["--opset", "99"], "the newest that this model can be changed to is"),
    ],
)
def test_what_cannot_be_met_is_said(
    tmp_path: Path, linear_model: Path, options: list[str], expected: str
) -> None:
    result = run("optimize", linear_model, *options, "-o", tmp_path / "out.onnx")
    assert expected in " ".join(message(result).split())
    assert result.exit_code == 2
    assert not (tmp_path / "out.onnx").exists()


def test_the_newest_opset_that_is_named_can_be_had(tmp_path: Path, linear_model: Path) -> None:
    refused = message(run("optimize", linear_model, "--opset", "99", "-o", tmp_path / "out.onnx"))
    near = re.findall(r"--opset (\d+)", refused)[-1]
    result = run("simplify", linear_model, "--opset", near, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.output
    assert standard_opset(onnxpress.load(tmp_path / "out.onnx")) == int(near)


def test_an_opset_that_subgraphs_keep_from_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnxpress.save(SAMPLE_MODELS["if_body"](), path)
    result = run("optimize", path, "--opset", "20", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 2
    assert "subgraphs or functions" in message(result)
    assert "leave --opset out" in message(result)


def test_an_opset_that_the_result_misses_is_not_met(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnxpress.save(SAMPLE_MODELS["cnn_opset11"](), path)
    # Scales of channels need opset 13.
    result = run("quantize", path, "--opset", "11", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 1
    assert "opset 11 was asked for, and the model has" in " ".join(message(result).split())


def test_a_static_target_says_what_shapes_to_give(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    _, notes = convert_form(model, load_target("qnn"), Conversion(), [])
    assert any("--fix-shape image=1x1x28x28" in note for note in notes)


def test_opset_is_raised_without_changing_outputs() -> None:
    model = SAMPLE_MODELS["cnn_opset11"]()
    raised, reason = raise_opset(model, 13)
    assert reason is None
    assert standard_opset(raised) == 13
    assert raise_opset(raised, 13)[0] is raised
    feed = random_samples(Session(model), 1, 0).feeds[0]
    np.testing.assert_allclose(answers(raised, dict(feed)), answers(model, dict(feed)))


def test_a_newer_opset_is_lowered_to_what_the_target_knows(models: Path) -> None:
    original = onnxpress.load(models / "fashion_cnn.onnx")
    newer, reason = change_opset(original, 22)
    assert reason is None
    feeds = random_samples(Session(original), 2, 0).feeds
    lowered, notes = convert_form(newer, load_target("xnnpack"), Conversion(), feeds)
    assert not notes
    assert standard_opset(newer) == 22
    assert standard_opset(lowered) == 18
    wanted = answers(original, dict(feeds[0]))
    assert sqnr_db(wanted, answers(lowered, dict(feeds[0]))) > 100


def test_an_opset_without_an_adapter_is_kept_and_explained(models: Path) -> None:
    model = onnxpress.load(models / "fashion_cnn.onnx")
    kept, notes = convert_form(model, load_target("cpu"), Conversion(opset=13), [])
    assert standard_opset(kept) == 17
    assert "No Adapter" in notes[0]


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_mobile", "fashion_mlp"])
def test_half_precision_halves_the_weights_and_keeps_the_interface(models: Path, name: str) -> None:
    model = onnxpress.load(models / f"{name}.onnx")
    feeds = random_samples(Session(model), 2, 0).feeds
    fit = Conversion(float16="keep-io")
    half, notes = convert_form(model, load_target("cpu-arm64"), fit, feeds)
    assert not notes
    assert len(to_bytes(half)) < 0.55 * len(to_bytes(model))
    assert half.graph.inputs[0].dtype == ir.DataType.FLOAT
    wanted, found = answers(model, dict(feeds[0])), answers(half, dict(feeds[0]))
    assert found.dtype == np.float32
    # Eleven bits of fraction: about 66 dB a tensor, less through a network.
    assert sqnr_db(wanted, found) > 40

    whole, problems = convert_interface(half, Conversion(float16="all"), feeds)
    assert not problems
    assert whole.graph.inputs[0].dtype == ir.DataType.FLOAT16
    rounded = {key: array.astype(np.float16) for key, array in feeds[0].items()}
    # The last rounding, to half instead of float32, is all that differs.
    assert sqnr_db(found, answers(whole, rounded)) > 60


def test_half_precision_leaves_integers_alone() -> None:
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = small(nodes, [4], [("s", np.float32(0.1)), ("z", np.uint8(0))])
    same, notes = convert_form(model, load_target("cpu-arm64"), Conversion(float16="keep-io"), [])
    assert same is model
    assert "computes in integers already" in notes[0]


def between_pairs(activation: onnx.NodeProto, values: list[tuple[str, npt.ArrayLike]]) -> ir.Model:
    """An activation from x to a, and what stands behind it where a is quantized."""
    nodes = [
        activation,
        onnx.helper.make_node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return small(nodes, [4001], values)


@pytest.mark.parametrize(
    ("low", "high", "zero", "dropped"),
    [(0, 6, 0, 1), (-1, 7, 0, 1), (0, 6, 1, 0), (0, 5.9, 0, 0), (0.1, 6, 0, 0)],
)
def test_a_clip_is_left_out_where_the_integers_reach_no_further(
    low: float, high: float, zero: int, dropped: int
) -> None:
    values: list[tuple[str, npt.ArrayLike]] = [
        *(("s", np.float32(6 / 255)), ("z", np.uint8(zero))),
        *(("low", np.float32(low)), ("high", np.float32(high))),
    ]
    model = between_pairs(onnx.helper.make_node("Clip", ["x", "low", "high"], ["a"]), values)
    assert drop_performed_activations(model) == dropped


@settings(deadline=None, max_examples=60)
@given(
    scale=st.floats(0.01, 1),
    zero=st.integers(0, 255),
    ends=st.one_of(st.none(), st.tuples(st.floats(-40, 0), st.floats(0, 80))),
)
def test_an_activation_is_left_out_only_where_nothing_changes(
    scale: float, zero: int, ends: tuple[float, float] | None
) -> None:
    values: list[tuple[str, npt.ArrayLike]] = [("s", np.float32(scale)), ("z", np.uint8(zero))]
    activation = onnx.helper.make_node("Relu", ["x"], ["a"], name="act")
    if ends is not None:
        values += [("low", np.float32(ends[0])), ("high", np.float32(ends[1]))]
        activation = onnx.helper.make_node("Clip", ["x", "low", "high"], ["a"], name="act")
    model = between_pairs(activation, values)
    changed = model.clone()
    feed = {"x": np.linspace(-300, 300, 4001, dtype=np.float32)}
    dropped = drop_performed_activations(changed)
    same = np.array_equal(answers(model, feed), answers(changed, feed))
    assert same
    if ends is None:
        assert dropped == (zero == 0)


def test_pooling_over_everything_becomes_pooling_by_a_window() -> None:
    model = small([onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])], [2, 3, 5, 7], [])
    changed = model.clone()
    assert pool_by_window(changed) == 1
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)}
    np.testing.assert_allclose(answers(changed, feed), answers(model, feed), rtol=1e-6, atol=1e-7)
    dynamic = small([onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])], [2, 3, "h", 7], [])
    assert pool_by_window(dynamic) == 0


@pytest.mark.parametrize("target", ["web", "mobile"])
def test_the_ort_form_answers_as_the_model_and_lists_its_operators(
    tmp_path: Path, models: Path, target: str
) -> None:
    path = tmp_path / "model.onnx"
    save(onnxpress.load(models / "fashion_mobile.onnx"), path)
    written = write_ort(path, load_target(target))
    assert [file.name for file in written] == ["model.ort", "model.required_operators.config"]
    assert "ai.onnx" in written[1].read_text()
    feed = {"image": np.random.default_rng(0).random((2, 1, 28, 28), np.float32)}
    session = ort.InferenceSession(str(written[0]), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feed)
    assert sqnr_db(answers(onnxpress.load(path), feed), found) > 100
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.onnx",
        "model.ort",
        "model.required_operators.config",
    ]


def test_a_recipe_repeats_shapes_opset_and_target(tmp_path: Path, models: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    arguments = ["--fix-shape", "batch=2", "--opset", "19", "--target", "cpu", "--target", "web"]
    passes = ["--passes", "simplify"]
    result = run("optimize", models / "fashion_mlp.onnx", *arguments, *passes, "-o", first)
    assert result.exit_code == 0
    recipe = first.with_suffix(".recipe.toml")
    assert 'target = "cpu+web"' in recipe.read_text()
    run("optimize", models / "fashion_mlp.onnx", "--recipe", recipe, "-o", second)
    assert first.read_bytes() == second.read_bytes()
    model = onnxpress.load(second)
    assert standard_opset(model) == 19
    assert list(model.graph.outputs[0].shape or ()) == [2, 10]


def test_per_target_writes_one_model_each(tmp_path: Path, linear_model: Path) -> None:
    result = run(
        *("optimize", linear_model, "--target", "cpu", "--target", "mobile", "--per-target"),
        *("--fix-shape", "batch=1", "-o", tmp_path / "out.onnx", "--json", tmp_path / "r.json"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in tmp_path.iterdir() if file != linear_model) == [
        "out.cpu.onnx",
        "out.cpu.recipe.toml",
        "out.mobile.onnx",
        "out.mobile.ort",
        "out.mobile.recipe.toml",
        "out.mobile.required_operators.config",
        "r.cpu.json",
        "r.mobile.json",
    ]
