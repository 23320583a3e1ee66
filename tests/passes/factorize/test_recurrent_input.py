"""W of LSTM, GRU and RNN at low rank: a MatMul before the operator."""

from dataclasses import replace

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

from onnxpress.contract import Context, Decision, Proposal, Skip
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.runtime import Session
from onnxpress.statistics import Statistics, collect
from onnxpress.targets import load_target

RANK = 8
FORMS = st.builds(
    Form,
    operator=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    bias=st.booleans(),
    start=st.booleans(),
    states_only=st.booleans(),
    opset=st.sampled_from([7, 11, 14, 22]),
)


def factorized(model: ir.Model, statistics: Statistics | None, pass_: Factorize) -> ir.Model:
    before = Context(model, load_target("cpu"), statistics)
    found = pass_.propose(before)
    skips = {item.site: item.reason for item in found if isinstance(item, Skip)}
    assert "inside the operator" in skips["R"]
    decisions = [Decision(p.site, p.candidates[0]) for p in found if isinstance(p, Proposal)]
    assert [decision.site for decision in decisions] == ["W"]
    clone = model.clone()
    after = replace(before, model=clone, base=model, layers=(), names=Names(clone))
    pass_.rewrite(after, decisions)
    return clone


def of_low_rank(form: Form, seed: int) -> ir.Model:
    """Whose W has rank `RANK`, over both directions together."""
    model = recurrent_model(form, seed)
    layer = next(layer for layer in find_layers(model) if layer.name == "W")
    u, s, vt = np.linalg.svd(layer.read(), full_matrices=False)
    layer.write((u[:, :RANK] * s[:RANK]) @ vt[:RANK])
    return model


@settings(deadline=None)
@given(form=FORMS, seed=st.integers(0, 1 << 16))
def test_weight_of_low_rank_is_replaced_without_loss(form: Form, seed: int) -> None:
    model = of_low_rank(form, seed)
    result = factorized(model, None, Factorize(rank=RANK, weighting="weights"))
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    shapes = {tuple(value.shape or ()) for value in result.graph.initializers.values()}
    rows = GATES[form.operator] * form.hidden
    assert {(form.inputs, RANK), (form.directions, rows, RANK)} <= shapes
    feed = feed_of(form, seed)
    wanted = reference_run(form, weights_of(model), feed)
    (y,) = Session(result).run(feed).values()
    expected = wanted.last if form.states_only else wanted.y
    np.testing.assert_allclose(np.asarray(y, float), expected, atol=1e-4)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_factors_follow_what_varies_in_the_input(operator: str, direction: str) -> None:
    """Inputs of few dimensions around a mean: W at that rank gives the same on other samples."""
    form = Form(operator, direction, inputs=32)
    model = recurrent_model(form)
    rng = np.random.default_rng(5)
    few, mean = rng.standard_normal((RANK, 32)), rng.standard_normal(32)

    def feed(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        drawn = np.random.default_rng(seed).standard_normal((9, 8, RANK))
        return {"x": (drawn @ few + mean).astype(np.float32)}

    samples = Samples(tuple(feed(seed) for seed in range(8)), None, "drawn")
    pass_ = Factorize(rank=RANK)
    layers = find_layers(model)
    statistics = collect(model, layers, samples, pass_.observes(Context(model, load_target("cpu"))))
    result = factorized(model, statistics, pass_)
    plain, found = (np.asarray(Session(m).run(feed(99))["y"], float) for m in (model, result))
    # 0.01 of ridge stands in for what samples have not shown.
    assert np.square(found - plain).mean() < 1e-3 * np.square(plain).mean()
