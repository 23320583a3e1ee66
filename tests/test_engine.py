"""The engine's arithmetic against independent references, and its files."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress import model_file
from onnxpress.contract import Candidate, Decision
from onnxpress.conversion.opset import raise_opset
from onnxpress.data import load_samples, random_samples
from onnxpress.graph import standard_opset
from onnxpress.layers import find_layers
from onnxpress.passes.quantize.ranges import choose_range
from onnxpress.passes.quantize.weights import quantize_weight
from onnxpress.passes.simplify import simplify
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.reconstruction import low_rank, relative_error
from onnxpress.registry import create
from onnxpress.runtime import InputSpec, Session
from onnxpress.statistics import Observations, Statistics, TensorStatistics, collect
from onnxpress.testing import SAMPLE_MODELS


def run(session: Session, feed: Any, name: str) -> Any:
    return session.run(feed)[name]


@pytest.mark.parametrize("name", SAMPLE_MODELS)
def test_layer_matrix_survives_reading_and_writing(name: str) -> None:
    model = SAMPLE_MODELS[name]()
    simplify(model)
    before = model_file.to_bytes(model)
    layers = find_layers(model)
    assert layers
    for layer in layers:
        layer.write(layer.read())
    assert model_file.to_bytes(model) == before


@pytest.mark.parametrize("name", ["mlp_opset17", "gemm_trans_b_0", "cnn_opset17", "shared_weights"])
def test_matrix_times_input_rows_is_the_layers_output(name: str) -> None:
    """W·H·Wᵀ summed up is the mean energy of what the operator really puts out."""
    model = SAMPLE_MODELS[name]()
    # So few that every row is drawn.
    samples = random_samples(Session(model), 2, seed=3)
    layers = [layer for layer in find_layers(model) if len(layer.uses) == 1]
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    statistics = collect(model, layers, samples, wanted)
    for layer in layers:
        node = layer.node
        if len(node.inputs) > 2 or layer.op_type == "ConvTranspose":
            continue
        watched = model.clone()
        output = next(n for n in watched.graph if n.outputs[0].name == node.outputs[0].name)
        if not output.outputs[0].is_graph_output():
            output.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            watched.graph.outputs.append(output.outputs[0])
        evaluator = onnx.reference.ReferenceEvaluator(ir.to_proto(watched))
        name_out = str(node.outputs[0].name)
        energies = [
            np.square(np.asarray(next(iter(evaluator.run([name_out], dict(feed)))), float)).sum()
            for feed in samples
        ]
        found = statistics.layers[layer.name]
        gram = found.gram
        assert gram is not None
        matrix = layer.read().astype(np.float64).reshape(len(gram), -1, gram.shape[1])
        predicted = float(np.einsum("goi,gij,goj->", matrix, gram, matrix)) * found.rows_per_sample
        assert predicted == pytest.approx(float(np.mean(energies)), rel=1e-3)


def test_statistics_of_halves_merge_to_the_whole(tmp_path: Path) -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    samples = random_samples(Session(model), 10, seed=4)
    layers = find_layers(model)
    wanted = Observations(frozenset({"x", "h"}), frozenset(x.name for x in layers), gram=True)
    whole = collect(model, layers, samples, wanted)
    merged = collect(model, layers, samples.take(range(4)), wanted)
    merged.merge(collect(model, layers, samples.take(range(4, 10)), wanted))
    merged.save(tmp_path / "statistics.npz")
    merged = Statistics.load(tmp_path / "statistics.npz")
    assert merged.samples == 10
    for name, tensor in whole.tensors.items():
        assert (merged.tensors[name].minimum, merged.tensors[name].maximum) == (
            tensor.minimum,
            tensor.maximum,
        )
        assert merged.tensors[name].exponent == tensor.exponent
        np.testing.assert_array_equal(merged.tensors[name].counts, tensor.counts)
    for name, layer in whole.layers.items():
        gram = merged.layers[name].gram
        assert layer.gram is not None
        assert gram is not None
        # Sums in another order.
        np.testing.assert_allclose(gram, layer.gram, rtol=1e-5, atol=1e-6)


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), min_size=2, max_size=5
    )
)
def test_histogram_does_not_depend_on_the_order_of_merging(chunks: list[list[float]]) -> None:
    def seen(parts: list[list[float]]) -> TensorStatistics:
        found = TensorStatistics()
        for part in parts:
            array = np.asarray(part, np.float32)
            found.update(float(array.min()), float(array.max()), array)
        return found

    one, other = seen(chunks[:1]), seen(chunks[1:])
    other.merge(one)
    whole = seen(chunks)
    assert other.exponent == whole.exponent
    assert other.counts.sum() == whole.counts.sum() == sum(map(len, chunks))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**31))
def test_low_rank_predicts_its_own_error(out: int, inputs: int, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((out, inputs)), rng.standard_normal((rows, inputs)) + 0.5
    gram, mean = x.T @ x / rows, x.mean(axis=0)
    found = low_rank(w, gram, mean)
    for rank in range(1, min(out, inputs) + 1):
        first, second = found.factors(rank)
        y = x @ w.T
        changed = x @ (second @ first).T + found.bias_shift(rank)
        power = np.square(y - y.mean(axis=0)).sum()
        if power > 1e-9 * np.square(y).sum():
            measured = np.square(y - changed).sum() / power
            assert measured == pytest.approx(found.error(rank), rel=1e-6, abs=1e-9)
    assert found.error(min(out, inputs)) == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 2**31), st.sampled_from([7, 8]), st.booleans())
def test_quantized_weight_is_within_half_a_step(seed: int, bits: int, unsigned: bool) -> None:  # noqa: FBT001
    w = np.random.default_rng(seed).standard_normal((5, 7)).astype(np.float32)
    found = quantize_weight(w, 0, bits=bits, unsigned=unsigned)
    steps = np.abs(w - found.dequantize()) / found.broadcast_scales()
    assert steps.max() <= 0.5 + 1e-6
    assert np.abs(found.values.astype(int) - found.zero_point).max() <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("values", [0.0, 1e-42, np.finfo(np.float32).max])
def test_extreme_weights_stay_finite(values: float) -> None:
    found = quantize_weight(np.full((2, 3), values, np.float32), 0)
    assert np.isfinite(found.dequantize()).all()
    assert (found.scales > 0).all()


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=200), st.booleans())
def test_range_holds_zero_exactly_and_beats_or_equals_minmax(
    values: list[float],
    signed: bool,  # noqa: FBT001
) -> None:
    array = np.asarray(values, np.float32)
    statistics = TensorStatistics()
    statistics.update(float(array.min()), float(array.max()), array)
    found = choose_range(statistics, signed=signed)
    assert found is not None
    assert found.scale > 0
    assert (found.zero_point == 0) if signed else (0 <= found.zero_point <= 255)


def test_relative_error_of_everything_is_one() -> None:
    w = np.arange(6.0).reshape(2, 3)
    assert relative_error(-w, w, np.eye(3)[None]) == pytest.approx(1.0)


def test_recipe_text_survives_hostile_names() -> None:
    names = ['a"b', "back\\slash", "new\nline", "ünï/cødé", "[[pass]]", "tab\t", "\x7f"]
    values: itertools.cycle[Any] = itertools.cycle([1, 2.5, 1e-30, True, 'te"xt'])
    decisions = tuple(
        Decision(name, Candidate({"form": name, "value": value}, 0.0))
        for name, value in zip(names, values, strict=False)
    )
    recipe = Recipe((RecipeStage(create("quantize"), decisions),), "cpu", 3, None, None)
    again = Recipe.from_toml(recipe.to_toml())
    assert again == recipe
    assert again.digest == recipe.digest


def test_external_data_survives_and_is_replaced_whole(tmp_path: Path, linear_model: Path) -> None:
    target = tmp_path / "big.onnx"
    model = model_file.load(linear_model)
    model_file.save(model, target, external_data=True)
    assert target.stat().st_size < 2000
    read = model_file.load(target)
    assert model_file.weight_bytes(read) == model_file.weight_bytes(model)
    for layer in find_layers(read):
        layer.write(layer.read() * 2)
    model_file.save(read, target, external_data=True)
    assert len(list(tmp_path.glob("big.onnx.*.data"))) == 1
    assert model_file.size_bytes(target) > 64 * 64 * 4
    np.testing.assert_allclose(
        find_layers(model_file.load(target))[0].read(), find_layers(model)[0].read() * 2
    )


def test_bomb_is_not_materialized() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        bomb (float[4] x) => (float[4] y) {
            shape = Constant <value = int64[2] {1000000, 1000000}> ()
            huge = ConstantOfShape (shape)
            start = Constant <value = int64[2] {0, 0}> ()
            end = Constant <value = int64[2] {1, 4}> ()
            few = Slice (huge, start, end)
            axes = Constant <value = int64[1] {0}> ()
            row = Squeeze (few, axes)
            y = Add (x, row)
        }"""
    )
    simplify(model)
    assert "ConstantOfShape" in {node.op_type for node in model.graph}
    assert model_file.weight_bytes(model) < 1000


@pytest.mark.parametrize("fixed", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize(
    ("addend", "fused"), [((8,), True), ((1, 8), True), ((2, 1, 8), False), ((1,), False)]
)
def test_matmul_and_add_become_gemm_only_where_shapes_of_a_constant_prove_it(
    addend: tuple[int, ...], *, fused: bool, fixed: bool
) -> None:
    dims = ", ".join(map(str, addend))
    out = "2, 3, 8" if len(addend) == 3 else "3, 8"
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[3, 4] x, float[4, 8] w, float[{dims}] b) => (float[{out}] y) {{
            h = MatMul (x, w)
            y = Add (h, b)
        }}"""
    )
    if fixed:
        value = model.graph.inputs.pop()
        array = np.random.default_rng(0).standard_normal(addend).astype(np.float32)
        value.const_value = ir.Tensor(array, name="b")
        model.graph.register_initializer(value)
    original = Session(model)
    simplify(model)
    assert ("Gemm" in {node.op_type for node in model.graph}) is (fused and fixed)
    feed = random_samples(original, 1, 0).feeds[0]
    np.testing.assert_allclose(run(Session(model), feed, "y"), run(original, feed, "y"), rtol=1e-5)


def test_batchnorm_is_folded_through_a_separate_bias() -> None:
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[6, 3, 3, 3] w, float[1, 6, 1, 1] c, float[6] s, float[6] b,
           float[6] m, float[6] v) => (float[1, 6, 6, 6] out) {
            h = Conv (x, w)
            i = Add (h, c)
            j = BatchNormalization (i, s, b, m, v)
            k = Dropout (j)
            out = Relu (k)
        }"""
    )
    for value in list(model.graph.inputs)[1:]:
        assert value.shape is not None
        array = rng.random(tuple(value.shape.numpy())).astype(np.float32) + 0.1
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    original = Session(model, optimize=False)
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]
    feed = random_samples(original, 1, 0).feeds[0]
    np.testing.assert_allclose(
        run(Session(model), feed, "out"), run(original, feed, "out"), rtol=1e-4, atol=1e-5
    )


def test_initializer_that_may_be_overridden_stays_an_input(linear_model: Path) -> None:
    proto = onnx.load(linear_model)
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("weight", onnx.TensorProto.FLOAT, [64, 64])
    )
    model = ir.from_proto(proto)
    simplify(model)
    assert [value.name for value in model.graph.inputs] == ["x", "weight"]
    assert find_layers(model) == []


def test_opset_is_raised_without_changing_outputs() -> None:
    model = SAMPLE_MODELS["cnn_opset11"]()
    raised, reason = raise_opset(model, 13)
    assert reason is None
    assert standard_opset(raised) == 13
    feed = random_samples(Session(model), 1, 0).feeds[0]
    np.testing.assert_allclose(run(Session(raised), feed, "y"), run(Session(model), feed, "y"))


def test_test_data_folders_and_functions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = (InputSpec("x", "float32", ("batch", 3)), InputSpec("k", "int64", ()))
    for number in range(2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        for place, array in enumerate((np.full((1, 3), number, np.float32), np.asarray(number))):
            tensor = onnx.numpy_helper.from_array(array, inputs[place].name)
            (folder / f"input_{place}.pb").write_bytes(tensor.SerializeToString())
    assert [int(feed["k"]) for feed in load_samples(tmp_path, inputs)] == [0, 1]
    (tmp_path / "given.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for n in range(3):\n"
        "        yield {'x': np.zeros((1, 3), np.float32), 'k': np.asarray(n), '__labels__': n}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load_samples("given:samples", inputs)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]
