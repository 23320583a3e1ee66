"""What is collected, against sums over what onnx's reference evaluator computes."""

from dataclasses import fields

import numpy as np
import onnx.reference
import onnx_ir as ir
import pytest

from onnxpress.data import random_samples
from onnxpress.layers import find_layers
from onnxpress.runtime import Session
from onnxpress.statistics import Observations, Statistics, collect
from onnxpress.testing import SAMPLE_MODELS


@pytest.mark.parametrize(
    ("name", "checked"),
    [("mlp_opset17", 1), ("gemm_trans_b_0", 1), ("cnn_opset17", 2)],
)
def test_matrix_times_input_rows_is_the_layers_output(name: str, checked: int) -> None:
    """tr(W·H·Wᵀ) times the rows is the mean energy of what the operator really puts out."""
    model = SAMPLE_MODELS[name]()
    # So few that every row is drawn.
    samples = random_samples(Session(model), 2, seed=3)
    # A bias is no part of W, and the outputs of ConvTranspose are sums of several rows' outputs.
    layers = [
        layer
        for layer in find_layers(model)
        if len(layer.node.inputs) == 2 and layer.op_type != "ConvTranspose"
    ]
    assert len(layers) == checked
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    statistics = collect(model, layers, samples, wanted)
    for layer in layers:
        watched = model.clone()
        name_out = str(layer.node.outputs[0].name)
        output = next(n for n in watched.graph if n.outputs[0].name == name_out).outputs[0]
        if not output.is_graph_output():
            output.type = ir.TensorType(ir.DataType.FLOAT)
            watched.graph.outputs.append(output)
        evaluator = onnx.reference.ReferenceEvaluator(ir.to_proto(watched))
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


def parts(*counts: int) -> tuple[Statistics, list[Statistics]]:
    """Collected at once, and from as many samples each in turn."""
    model = SAMPLE_MODELS["mlp_opset17"]()
    samples = random_samples(Session(model), sum(counts), seed=4)
    layers = find_layers(model)
    wanted = Observations(frozenset({"x", "h"}), frozenset(x.name for x in layers), gram=True)
    ends = np.cumsum(counts).tolist()
    some = [
        collect(model, layers, samples.take(range(end - count, end)), wanted)
        for count, end in zip(counts, ends, strict=True)
    ]
    return collect(model, layers, samples, wanted), some


def check_alike(found: Statistics, whole: Statistics) -> None:
    assert found.samples == whole.samples
    assert found.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        other = found.tensors[name]
        assert (other.minimum, other.maximum) == (tensor.minimum, tensor.maximum)
        assert other.exponent == tensor.exponent
        np.testing.assert_array_equal(other.counts, tensor.counts)
    assert found.layers.keys() == whole.layers.keys()
    for name, layer in whole.layers.items():
        for field in fields(layer):
            one, other = getattr(layer, field.name), getattr(found.layers[name], field.name)
            assert (one is None) == (other is None), field.name
            # What halves tell is another estimate of the same (`test_sampling`).
            if one is not None and "noise" not in field.name:
                # Sums in another order, of float32 numbers.
                np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6, err_msg=field.name)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    whole, (first, second, third) = parts(4, 5, 1)
    check_alike(first.merged(second).merged(third), whole)
    check_alike(first.merged(second.merged(third)), whole)
    check_alike(third.merged(first).merged(second), whole)


def contents(statistics: Statistics) -> dict[object, object]:
    """Copies of everything in it."""
    found: dict[object, object] = {"samples": statistics.samples}
    for name, tensor in statistics.tensors.items():
        ends = (tensor.minimum, tensor.maximum, tensor.exponent)
        found[name] = (*ends, tensor.counts.tolist())
    for name, layer in statistics.layers.items():
        for field in fields(layer):
            value = getattr(layer, field.name)
            found[name, field.name] = value.tolist() if hasattr(value, "tolist") else value
    return found


def test_merging_changes_none_of_what_is_merged() -> None:
    _, known = parts(4, 5, 1)
    before = [contents(one) for one in known]
    first, second, third = known
    together = first.merged(second)
    halfway = contents(together)
    together.merged(third)
    alone = Statistics().merged(third)
    for name, tensor in alone.tensors.items():
        # What is still collected goes on with its own.
        tensor.update(-1e3, 1e3, np.zeros(1, np.float32))
        together.merged(alone).tensors[name].merge(tensor)
    assert contents(together) == halfway
    assert [contents(one) for one in known] == before


def test_arrays_of_layers_cannot_be_written_to() -> None:
    _, (first, second) = parts(2, 2)
    for statistics in (first, first.merged(second)):
        for layer in statistics.layers.values():
            arrays = [getattr(layer, field.name) for field in fields(layer)]
            frozen = [array.flags.writeable for array in arrays if isinstance(array, np.ndarray)]
            assert frozen
            assert not any(frozen)


READ_TWICE = """
<ir_version: 8, opset_import: ["" : 17]>
twice (float[7, 6] x) => (float[7, 4] a, float[7, 3] b, float[7, 5] c, float[6, 4] d)
<float[6, 4] query = {0}, float[6, 3] key = {0}, float[5, 6] gemm = {0}, float[7, 4] g = {0}>
{
  a = MatMul (x, query)
  b = MatMul (x, key)
  c = Gemm <transB = 1> (x, gemm)
  t = Transpose <perm = [1, 0]> (x)
  d = MatMul (t, g)
}
"""


def test_layers_that_read_a_tensor_alike_share_what_is_observed() -> None:
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(READ_TWICE)
    for name, value in model.graph.initializers.items():
        assert value.shape is not None
        drawn = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        value.const_value = ir.tensor(drawn, name=name)
    layers = find_layers(model)
    assert len(layers) == 4
    samples = random_samples(Session(model), 8, seed=1)
    by_weight = {str(layer.weight.name): layer.name for layer in layers}
    wanted = Observations(layers=frozenset(by_weight.values()), gram=True)
    found = collect(model, layers, samples, wanted)
    query, key, gemm = (found.layers[by_weight[name]] for name in ("query", "key", "gemm"))
    assert query is key
    assert query is not gemm
    x = np.concatenate([feed["x"] for feed in samples]).astype(np.float64)
    for one in (query, gemm):
        assert one.gram is not None
        np.testing.assert_allclose(one.gram[0], x.T @ x / len(x), rtol=1e-5, atol=1e-6)
    alone = Observations(layers=frozenset({by_weight["key"]}), gram=True)
    only = collect(model, [x for x in layers if x.name == by_weight["key"]], samples, alone)
    np.testing.assert_array_equal(only.layers[by_weight["key"]].gram, key.gram)
    merged = found.merged(found)
    assert merged.layers[by_weight["query"]] is merged.layers[by_weight["key"]]
    arrays = sum(one.nbytes for one in {id(one): one for one in found.layers.values()}.values())
    assert found.nbytes == arrays
