"""An LSTM in onnxruntime's integer kernel: near the float one, and only where it is known to be."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_models import Form, feed_of, recurrent_model
from test_recurrent import in_branch

from onnxpress.contract import Candidate, Context, Decision, Proposal, Skip
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.runtime import Array, Session
from onnxpress.statistics import collect
from onnxpress.targets import load_target

FORMS = st.builds(
    Form,
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    bias=st.booleans(),
    start=st.booleans(),
    states_only=st.booleans(),
    opset=st.sampled_from([11, 13, 17, 22]),
)


def proposed(
    model: ir.Model, feeds: list[dict[str, Array]], form: str = "auto", target: str = "cpu"
) -> tuple[Context, list[Proposal | Skip]]:
    pass_ = Quantize(form=form)  # type: ignore[arg-type]
    blind = Context(model, load_target(target))
    samples = Samples(tuple(feeds), None, "drawn")
    known = collect(model, find_layers(model), samples, pass_.observes(blind))
    context = replace(blind, statistics=known, base_statistics=known)
    return context, pass_.propose(context)


def rewritten(context: Context, site: str, candidate: Candidate) -> ir.Model:
    clone = context.model.clone()
    after = replace(context, model=clone, base=context.model, layers=(), names=Names(clone))
    Quantize().rewrite(after, [Decision(site, candidate)])
    return clone


@settings(deadline=None)
@given(form=FORMS, seed=st.integers(0, 1 << 16))
def test_outputs_are_as_near_as_is_predicted(form: Form, seed: int) -> None:
    model = recurrent_model(form, seed)
    context, (offered,) = proposed(model, [feed_of(form, seed + n) for n in range(3)])
    assert isinstance(offered, Proposal)
    dynamic, stored = offered.candidates
    assert (dynamic.family, stored.family) == ("dynamic", "weight_only")
    assert set(dynamic.members) == set(stored.members) == {"W", "R"}
    feed = feed_of(form, seed + 9)
    (wanted,) = Session(model).run(feed).values()
    for candidate in (dynamic, stored):
        result = rewritten(context, offered.site, candidate)
        assert find_layers(result) == []
        (y,) = Session(result).run(feed).values()
        plain = np.asarray(wanted, float)
        noise = np.square(np.asarray(y, float) - plain).mean() / np.square(plain).mean()
        # Of what goes into the gates, carried from step to step.
        assert noise < 10 * candidate.predicted_error + 1e-5


def test_lstm_in_a_branch_computes_in_integers_too() -> None:
    form = Form(start=True)
    model = in_branch(recurrent_model(form))
    feed = {**feed_of(form), "go": np.ones((), bool)}
    context, (offered,) = proposed(model, [feed])
    assert isinstance(offered, Proposal)
    result = rewritten(context, offered.site, offered.candidates[0])
    assert [n.op_type for n in result.graph.all_nodes()].count("DynamicQuantizeLSTM") == 1
    plain, found = (np.asarray(Session(m).run(feed)["chosen"], float) for m in (model, result))
    assert np.square(found - plain).mean() < 1e-2 * np.square(plain).mean()


@pytest.mark.parametrize(
    ("form", "target", "reason"),
    [
        (Form("GRU"), "cpu", "no integer kernel for GRU"),
        (Form("RNN"), "cpu", "no integer kernel for RNN"),
        (Form("LSTM", lengths=True), "cpu", "end at different steps"),
        (Form("LSTM"), "openvino", "none for LSTM on this target"),
    ],
    ids=["GRU", "RNN", "sequence_lens", "target without the kernel"],
)
def test_where_there_is_no_kernel_or_no_evidence_weights_are_sites_of_their_own(
    form: Form, target: str, reason: str
) -> None:
    _, offered = proposed(recurrent_model(form), [feed_of(form)], target=target)
    assert [item.site for item in offered] == ["R", "W"]
    for item in offered:
        assert isinstance(item, Proposal)
        assert [candidate.family for candidate in item.candidates] == ["weight_only"]
        assert item.limit is not None
        assert reason in item.limit


def test_weight_that_the_user_keeps_leaves_the_other_a_site() -> None:
    form = Form("LSTM")
    context, _ = proposed(recurrent_model(form), [feed_of(form)])
    offered = Quantize().propose(replace(context, kept=frozenset({"R"})))
    assert [item.site for item in offered] == ["R", "W"]
    assert all(isinstance(p, Proposal) and not p.candidates[0].members for p in offered)
