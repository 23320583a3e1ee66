"""Zeros in W and R of LSTM, GRU and RNN."""

from dataclasses import replace

import numpy as np
import pytest
from recurrent_models import GATES, Form, feed_of, recurrent_model

from onnxpress.contract import Context, Decision, Proposal
from onnxpress.data import Samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.sparsify import Sparsify
from onnxpress.runtime import Session
from onnxpress.statistics import collect
from onnxpress.targets import load_target


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_weights_that_stay_make_up_for_zeros(operator: str, direction: str, pattern: str) -> None:
    """With data the outputs are nearer than with the smallest weights gone."""
    form = Form(operator, direction, inputs=32, hidden=32)
    model = recurrent_model(form)
    mixing = np.random.default_rng(3).standard_normal((32, 32)) / 6

    def feed(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        x = np.asarray(feed_of(form, seed, steps=16, batch=8)["x"], float)
        return {"x": (x @ mixing).astype(np.float32)}

    samples = Samples(tuple(feed(seed) for seed in range(8)), None, "drawn")
    plain = np.asarray(Session(model).run(feed(99))["y"], float)
    errors = []
    for pass_ in (
        Sparsify(pattern=pattern, scope="layer", importance="magnitude", compensation="none"),
        Sparsify(pattern=pattern, scope="layer"),
    ):
        blind = Context(model, load_target("cpu"))
        statistics = collect(model, find_layers(model), samples, pass_.observes(blind))
        before = replace(blind, statistics=statistics, base_statistics=statistics)
        offered = [item for item in pass_.propose(before) if isinstance(item, Proposal)]
        clone = model.clone()
        after = replace(before, model=clone, base=model, layers=(), names=Names(clone))
        pass_.rewrite(after, [Decision(item.site, item.candidates[0]) for item in offered])
        layers = find_layers(clone)
        assert {layer.name for layer in layers} == {"W", "R"}
        assert all(0.45 < (layer.read() == 0).mean() < 0.55 for layer in layers)
        found = np.asarray(Session(clone).run(feed(99))["y"], float)
        errors.append(float(np.square(found - plain).sum()))
    assert errors[1] < 0.8 * errors[0]
