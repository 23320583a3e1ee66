"""Weights of LSTM, GRU and RNN as layers: found, named, read, and what is observed of them."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recurrent_models import (
    GATES,
    Floats,
    Form,
    feed_of,
    recurrent_model,
    reference_run,
    weights_of,
)

from onnxpress import model_file
from onnxpress.bias import shift_bias, takes_bias
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers, multiply_adds
from onnxpress.passes.prune.operators import analyse
from onnxpress.runtime import Array, Session
from onnxpress.selectable import selectable_sites
from onnxpress.statistics import Observations, Statistics, collect
from onnxpress.untreated import untreated_weights

FORMS = st.builds(
    Form,
    operator=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    bias=st.booleans(),
    start=st.booleans(),
    states_only=st.booleans(),
    opset=st.sampled_from([7, 9, 11, 13, 14, 21, 22]),
    hidden=st.sampled_from([3, 8]),
)
"""What onnxruntime runs: batch first it does not."""


def observed(model: ir.Model, *feeds: dict[str, Array]) -> Statistics:
    layers = find_layers(model)
    wanted = Observations(layers=frozenset(layer.name for layer in layers), gram=True)
    return collect(model, layers, Samples(feeds, None, "drawn"), wanted)


def rows_of(array: Floats) -> Floats:
    """`[directions, rows, hidden]` of `[steps, directions, batch, hidden]`."""
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1, array.shape[3])


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_both_weights_of_a_node_are_layers(operator: str, direction: str, layout: int) -> None:
    form = Form(operator, direction, layout)
    model = recurrent_model(form)
    before = model_file.to_bytes(model)
    layers = {layer.name: layer for layer in find_layers(model)}
    assert list(layers) == ["R", "W"]
    rows = form.directions * GATES[operator] * form.hidden
    assert layers["W"].read().shape == (rows, form.inputs)
    assert layers["R"].read().shape == (rows, form.hidden)
    assert layers["W"].groups == form.directions
    for layer in layers.values():
        layer.write(layer.read())
    assert model_file.to_bytes(model) == before
    assert untreated_weights(model) == {}
    assert {"cell", "W", "R"} <= set().union(*(s.all_names for s in selectable_sites(model)))


def test_multiply_adds_are_those_of_both_weights_in_every_step() -> None:
    model = recurrent_model(Form("LSTM", "bidirectional", inputs=20, hidden=24))
    x = model.graph.inputs[0]
    x.shape = ir.Shape([5, 2, 20])
    assert multiply_adds(model.graph[0]) == 5 * 2 * 2 * 4 * 24 * (20 + 24)


@given(form=FORMS, seed=st.integers(0, 1 << 16), steps=st.integers(2, 5))
def test_statistics_are_of_what_the_weights_multiply(form: Form, seed: int, steps: int) -> None:
    model = recurrent_model(form, seed)
    feed = feed_of(form, seed, steps)
    found = observed(model, feed)
    run = reference_run(form, weights_of(model), feed)
    x = feed["x"].reshape(-1, form.inputs).astype(np.float64)
    of_w = found.layers["W"]
    assert of_w.gram is not None
    assert of_w.rows_per_sample == len(x)
    for gram, mean in zip(of_w.gram, of_w.mean, strict=True):
        np.testing.assert_allclose(gram, x.T @ x / len(x), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-4, atol=1e-5)
    # Without an initial state the first step reads zeros, which are left out.
    fed = rows_of(run.fed)
    of_r = found.layers["R"]
    assert of_r.gram is not None
    np.testing.assert_allclose(
        of_r.gram * of_r.rows, fed.swapaxes(1, 2) @ fed, rtol=1e-3, atol=1e-4
    )
    assert of_r.rows == fed.shape[1] - (0 if form.start else 3)


def test_a_single_step_without_initial_state_says_nothing_of_r() -> None:
    form = Form("LSTM")
    found = observed(recurrent_model(form), feed_of(form, steps=1))
    assert set(found.layers) == {"W"}


@pytest.mark.parametrize(
    "form", [Form("LSTM", lengths=True), Form("GRU", linear_before_reset=0)], ids=str
)
def test_states_that_outputs_do_not_tell_are_not_observed(form: Form) -> None:
    found = observed(recurrent_model(form), feed_of(form))
    assert set(found.layers) == {"W"}


def test_r_inside_a_body_is_observed_as_often_as_it_runs() -> None:
    form = Form("LSTM", start=True, opset=17)
    inner = recurrent_model(form)
    feed = feed_of(form)
    plain = observed(inner, feed).layers["R"]
    in_body = observed(in_branch(inner), {**feed, "go": np.ones((), bool)}).layers["R"]
    assert plain.gram is not None
    assert in_body.gram is not None
    np.testing.assert_allclose(in_body.gram, plain.gram, rtol=1e-5, atol=1e-6)
    assert in_body.rows == plain.rows


def in_branch(model: ir.Model) -> ir.Model:
    """The model's nodes in the branch of an If that `go` takes; weights stay outside."""
    graph = model.graph
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    constants = list(graph.initializers.values())
    nodes = list(graph)
    for node in nodes:
        graph.remove(node)
    graph.inputs.clear()
    graph.outputs.clear()
    graph.initializers.clear()
    body = ir.Graph([], outputs, nodes=nodes, name="yes")
    zero = ir.node("Constant", [], attributes={"value": ir.tensor(np.zeros((1,) * 4, np.float32))})
    zero.outputs[0].name, zero.outputs[0].type = "nothing", outputs[0].type
    other = ir.Graph([], zero.outputs, nodes=[zero], name="no")
    go = ir.Value(name="go", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    choice = ir.node("If", [go], attributes={"then_branch": body, "else_branch": other})
    result = choice.outputs[0]
    result.name, result.type, result.shape = "chosen", outputs[0].type, outputs[0].shape
    outer = ir.Graph(
        [*inputs, go],
        [result],
        nodes=[choice],
        initializers=constants,
        opset_imports=dict(graph.opset_imports),
        name="outer",
    )
    return ir.Model(outer, ir_version=8)


@given(form=FORMS, seed=st.integers(0, 1 << 16))
def test_shifted_bias_is_what_inputs_of_one_more_would_add(form: Form, seed: int) -> None:
    form = replace(form, opset=14)
    model = recurrent_model(form, seed)
    w, r = (next(x for x in find_layers(model) if x.name == name) for name in "WR")
    assert takes_bias(w)
    assert not takes_bias(r)
    feed = feed_of(form, seed)
    wanted = weights_of(model)
    offset = np.random.default_rng(seed).standard_normal((w.read().shape[0],))
    halves = np.zeros((form.directions, 2 * len(offset) // form.directions))
    if form.bias:
        halves += wanted["B"]
    halves[:, : halves.shape[1] // 2] += offset.reshape(form.directions, -1)
    shift_bias(Names(model), model.graph, w.node, offset)
    run = reference_run(form, {**wanted, "B": halves}, feed)
    (y,) = Session(model).run(feed).values()
    np.testing.assert_allclose(
        np.asarray(y, float), run.last if form.states_only else run.y, atol=1e-4
    )


@pytest.mark.parametrize("inputs", [1, 2])
def test_node_that_lacks_weights_is_passed_over(inputs: int) -> None:
    """Such a file is refused later, by whoever runs it."""
    model = recurrent_model(Form())
    model.graph[0].resize_inputs(inputs)
    assert len(find_layers(model)) == inputs - 1
    assert selectable_sites(model, model)
    assert multiply_adds(model.graph[0]) == 0
    analyse(model)


def test_weight_without_elements_is_no_layer() -> None:
    model = recurrent_model(Form())
    empty = model.graph.initializers["R"]
    empty.const_value = ir.Tensor(np.zeros((1, 0, 0), np.float32), name="R")
    assert [layer.name for layer in find_layers(model)] == ["W"]
    analyse(model)
