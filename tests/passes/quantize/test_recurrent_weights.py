"""Weights of LSTM, GRU and RNN in integers, against numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_models import (
    GATES,
    Form,
    feed_of,
    recurrent_model,
    reference_run,
    weights_of,
)

from onnxpress import model_file
from onnxpress.contract import Context, Decision, Proposal
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.integers import weight_only_integers
from onnxpress.runtime import Session
from onnxpress.statistics import Statistics, collect
from onnxpress.targets import load_target

FORMS = st.builds(
    Form,
    operator=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    layout=st.sampled_from([0, 1]),
    bias=st.booleans(),
    start=st.booleans(),
    linear_before_reset=st.sampled_from([0, 1]),
    states_only=st.booleans(),
    opset=st.sampled_from([14, 17, 21, 22]),
)


def contexts(model: ir.Model, statistics: Statistics | None) -> tuple[Context, Context]:
    """To propose on, and to rewrite."""
    before = Context(model, load_target("cpu"), statistics)
    clone = model.clone()
    return before, replace(before, model=clone, base=model, layers=(), names=Names(clone))


def quantized(model: ir.Model, statistics: Statistics | None = None) -> ir.Model:
    before, after = contexts(model, statistics)
    found = Quantize(form="weight_only").propose(before)
    decisions = [Decision(p.site, p.candidates[0]) for p in found if isinstance(p, Proposal)]
    assert {decision.site for decision in decisions} == {"W", "R"}
    Quantize(form="weight_only").rewrite(after, decisions)
    return after.model


@settings(deadline=None)
@given(form=FORMS, seed=st.integers(0, 1 << 16))
def test_integers_compute_what_their_dequantized_weights_do(form: Form, seed: int) -> None:
    model = recurrent_model(form, seed)
    context, _ = contexts(model, None)
    weights = weights_of(model)
    for layer in context.layers:
        weights[layer.name] = weight_only_integers(context, layer).weight.dequantize()
    result = quantized(model)
    proto = ir.to_proto(result)
    onnx.checker.check_model(proto, full_check=True)
    folded = {value.name: value for value in result.graph.initializers.values()}
    assert {folded[f"{n}_quantized"].dtype for n in "WR"} == {ir.DataType.INT8}
    feed = feed_of(form, seed)
    wanted = reference_run(form, weights, feed)
    if not form.layout:
        # onnxruntime has no kernel for batch first.
        (y,) = Session(result).run(feed).values()
        expected = wanted.last if form.states_only else wanted.y
        np.testing.assert_allclose(np.asarray(y, float), expected, atol=1e-4)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_every_row_of_every_direction_has_its_own_scale(operator: str, direction: str) -> None:
    form = Form(operator, direction)
    model = recurrent_model(form)
    context, _ = contexts(model, None)
    for layer in context.layers:
        weight = weight_only_integers(context, layer).weight
        assert weight.broadcast_scales().shape == (form.directions, layer.shape[1], 1)
        assert (np.abs(weight.values.astype(int)).max(axis=2) == 127).all()


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_data_makes_integers_nearer(operator: str, direction: str) -> None:
    """On other samples than those that were observed."""
    form = Form(operator, direction, inputs=48, hidden=48)
    model = recurrent_model(form)
    feeds = tuple(feed_of(form, seed, steps=20, batch=8) for seed in range(8))
    samples = Samples(feeds, None, "drawn")
    wanted = Quantize(form="weight_only").observes(contexts(model, None)[0])
    statistics = collect(model, find_layers(model), samples, wanted)
    feed = feed_of(form, 99, steps=20, batch=8)
    plain = np.asarray(Session(model).run(feed)["y"], float)
    errors = [
        np.square(np.asarray(Session(quantized(model, known)).run(feed)["y"], float) - plain).sum()
        for known in (None, statistics)
    ]
    # Independent inputs leave little to make up for.
    assert errors[1] < 0.9 * errors[0]


def test_weights_that_two_nodes_share_are_stored_once(tmp_path: Path) -> None:
    model = recurrent_model(Form("LSTM", inputs=24, hidden=24))
    first = model.graph[0]
    first.outputs[0].name = "first"
    flat = ir.node("Squeeze", [first.outputs[0], _axis(model)])
    flat.outputs[0].name = "flat"
    second = ir.node("LSTM", [flat.outputs[0], *first.inputs[1:]], attributes={"hidden_size": 24})
    second.outputs[0].name, second.outputs[0].type = "y", first.outputs[0].type
    model.graph.extend([flat, second])
    model.graph.outputs[0] = second.outputs[0]
    layers = find_layers(model)
    assert [len(layer.uses) for layer in layers] == [2, 2]
    result = quantized(model)
    assert len(model_file.to_bytes(result)) < 0.4 * len(model_file.to_bytes(model))
    feed = feed_of(Form(inputs=24))
    np.testing.assert_allclose(
        np.asarray(Session(result).run(feed)["y"], float),
        np.asarray(Session(model).run(feed)["y"], float),
        atol=0.05,
    )


def _axis(model: ir.Model) -> ir.Value:
    value = ir.Value(
        name="axis",
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([1]),
        const_value=ir.Tensor(np.ones(1, np.int64), name="axis"),
    )
    model.graph.register_initializer(value)
    return value
