"""Hidden units of LSTM, GRU and RNN: cut as if they were zero, and chosen by who reads them."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from cutting import SAME_DB, compared
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_models import GATES, Form, feed_of, recurrent_model

from onnxpress.contract import Context, Decision, Proposal
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.prune import Prune
from onnxpress.passes.prune.layout import Layout
from onnxpress.runtime import Session
from onnxpress.statistics import collect
from onnxpress.targets import load_target

FORMS = st.builds(
    Form,
    operator=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    bias=st.booleans(),
    peepholes=st.booleans(),
    states_only=st.booleans(),
    opset=st.sampled_from([9, 13, 17]),
)


def with_reader(form: Form, seed: int = 0) -> ir.Model:
    """A MatMul behind Y or Y_h, over each direction's units."""
    model = recurrent_model(form, seed)
    rng = np.random.default_rng(seed)
    y = model.graph.outputs[0]
    y.name = "states"
    v = ir.Value(
        name="V",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([form.hidden, 10]),
        const_value=ir.Tensor(rng.standard_normal((form.hidden, 10)).astype(np.float32), name="V"),
    )
    model.graph.register_initializer(v)
    node = ir.node("MatMul", [y, v], name="reader")
    node.outputs[0].name, node.outputs[0].type = "y", y.type
    node.outputs[0].shape = ir.Shape([None] * (3 if form.states_only else 4))
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    return model


@settings(deadline=None)
@given(form=FORMS, seed=st.integers(0, 1 << 16))
def test_units_are_cut_exactly(form: Form, seed: int) -> None:
    samples = Samples((feed_of(form, seed), feed_of(form, seed + 1)), None, "drawn")
    worst, layout = compared(with_reader(form, seed), 0.4, samples)
    assert worst > SAME_DB
    group = layout.groups["W"]
    assert len(group.units) == form.hidden
    assert {"W", "R"} <= {name for name, _ in group.constants}
    assert set(layout.readers(group)) == {"R", "V"}
    assert set(layout.makers(group)) == {"W", "R"}


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Form("LSTM", start=True), "the model's input 'h0'"),
        (Form("LSTM", lengths=True), "end at different steps"),
        (Form("GRU", linear_before_reset=0), "the reset gate"),
    ],
    ids=["state from outside", "sequence_lens", "reset before"],
)
def test_units_that_cannot_go_are_named_with_the_reason(form: Form, reason: str) -> None:
    model = with_reader(form)
    group = Layout(model, find_layers(model)).groups["W"]
    assert group.blocked is not None
    assert reason in group.blocked


def test_function_that_makes_something_of_nothing_keeps_all_units() -> None:
    model = with_reader(Form("RNN"))
    model.graph[0].attributes["activations"] = ir.AttrStrings("activations", ["Sigmoid"])
    group = Layout(model, find_layers(model)).groups["W"]
    assert group.blocked is not None
    assert "sigmoid" in group.blocked


@pytest.mark.parametrize("operator", sorted(GATES))
def test_unit_that_nothing_reads_goes_without_data(operator: str) -> None:
    form = Form(operator, "bidirectional")
    model = with_reader(form)
    layers = {layer.name: layer for layer in find_layers(model)}
    r, v = layers["R"].read().copy(), layers["V"].read().copy()
    r[:, [3, 7]], v[:, [3, 7]] = 0, 0
    layers["R"].write(r)
    layers["V"].write(v)
    context = Context(model, load_target("cpu"))
    (offered,) = (p for p in Prune().propose(context) if isinstance(p, Proposal))
    assert offered.candidates[0].parameters["removed"] == "3,7"
    clone = model.clone()
    after = replace(context, model=clone, base=model, layers=(), names=Names(clone))
    Prune().rewrite(after, [Decision(offered.site, offered.candidates[0])])
    assert clone.graph[0].attributes["hidden_size"].as_int() == form.hidden - 2
    feed = feed_of(form)
    plain, found = (np.asarray(Session(m).run(feed)["y"], float) for m in (model, clone))
    np.testing.assert_allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_readers_make_up_for_units_that_go(operator: str, direction: str) -> None:
    """By reconstruction the outputs are nearer than by magnitude alone, on other samples."""
    form = Form(operator, direction, inputs=16, hidden=32)
    model = with_reader(form)
    feeds = tuple(feed_of(form, seed, steps=12, batch=8) for seed in range(16))
    feed = feed_of(form, 99, steps=12, batch=8)
    plain = np.asarray(Session(model).run(feed)["y"], float)
    errors = []
    for pass_ in (
        Prune(importance="magnitude", reconstruction=False, ratio=0.8, multiple=8),
        Prune(multiple=8),
    ):
        blind = Context(model, load_target("cpu"))
        known = collect(
            model, find_layers(model), Samples(feeds, None, "drawn"), pass_.observes(blind)
        )
        context = replace(blind, statistics=known, base_statistics=known)
        (offered,) = (
            p for p in pass_.propose(context) if isinstance(p, Proposal) and p.site == "W"
        )
        (chosen,) = (c for c in offered.candidates if c.parameters["kept"] == 24)
        clone = model.clone()
        after = replace(context, model=clone, base=model, layers=(), names=Names(clone))
        pass_.rewrite(after, [Decision("W", chosen)])
        found = np.asarray(Session(clone).run(feed)["y"], float)
        errors.append(float(np.square(found - plain).sum()))
    assert errors[1] < errors[0]
