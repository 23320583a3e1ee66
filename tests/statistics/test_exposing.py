"""Tensors inside If, Loop and Scan bodies are observed as often as they are computed."""

import numpy as np
import onnx_ir as ir
import pytest
from bodies import HEAD, built, draw, feeds, if_model, loop_model, scan_model

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.layers import find_layers
from onnxpress.passes.simplify import simplify
from onnxpress.runtime import Session
from onnxpress.statistics import Observations, Statistics, collect
from onnxpress.statistics.exposing import Observer, observable


def collected(model: ir.Model) -> Statistics:
    layers = find_layers(model)
    data = load_samples(draw(model), Session(model).inputs)
    names = frozenset(layer.name for layer in layers)
    return collect(model, layers, data, Observations(observable(model), names, gram=True))


def test_names_shared_by_branches_are_told_apart_or_left_out() -> None:
    model = if_model()
    assert not {"p", "q", "r"} & observable(model)
    simplify(model)
    assert {"p", "q", "r", "p_1", "q_1"} <= observable(model)
    found = collected(model)
    taken = {found.layers[name].rows for name in ("a", "c")}
    assert sum(taken) == 40
    assert found.tensors["p"].maximum != found.tensors["p_1"].maximum


def test_rows_of_a_weight_inside_a_body_are_counted() -> None:
    model = loop_model()
    body = next(model.graph.subgraphs())
    for name in ("w", "b"):
        body.register_initializer(model.graph.initializers.pop(name))
    assert collected(model).layers["w"].rows_per_sample == 3 * 36


def test_observed_iterations_are_what_the_loop_computes() -> None:
    model = loop_model()
    x = draw(model, 1)["x"][0]
    names = sorted(observable(model))
    seen = Observer(model, names).run({"x": x}, names)
    every = np.asarray(Session(model).run({"x": x})["all"], np.float32)
    assert [array.shape for array in seen["z"]] == [(1, 16, 6, 6)] * 3
    assert np.array_equal(np.stack(seen["each"]), every)
    assert np.array_equal(np.stack(seen["after"]), -every)
    assert np.array_equal(seen["all"][0], every)
    assert np.array_equal(np.stack(seen["before"]), np.stack([x, *-every[:-1]]))


def test_observed_iterations_are_what_the_scan_computes() -> None:
    model = scan_model()
    feed = feeds(draw(model, 1))[0]
    names = ["now", "after"]
    seen = Observer(model, names).run(feed, names)
    found = Session(model).run(feed)
    assert np.array_equal(np.stack(seen["now"]), feed["x"])
    assert np.array_equal(np.stack(seen["after"]), -np.asarray(found["all"], np.float32))
    assert np.array_equal(seen["after"][-1], found["last"])


DEEP = (
    HEAD
    + """ g (float[1, 4] x, float[3, 2] rows) => (float[1, 4] y, float[k, 1, 4] kept) {
        times = Constant <value = int64 {4}> ()  go = Constant <value = bool {1}> ()
        zero = Constant <value = int64 {0}> ()  two = Constant <value = int64 {2}> ()
        y, kept = Loop (times, go, x) <
            body = outer (int64 i, bool on, float[1, 4] before)
                => (bool still, float[1, 4] after, float[1, 4] each) {
                still = Identity (on)
                rest = Mod (i, two)  even = Equal (rest, zero)
                after = If (even) <
                    then_branch = yes () => (float[1, 4] r) {
                        r, many = Loop (i, on, before) <
                            body = inner (int64 j, bool more, float[1, 4] v)
                                => (bool again, float[1, 4] w, float[1, 4] o) {
                                again = Identity (more)  w = Add (v, v)  o = Neg (w) }
                        > },
                    else_branch = no () => (float[1, 4] r) {
                        low = Neg (before)
                        state, sums = Scan <num_scan_inputs = 1,
                            body = each (float[1, 4] s, float[2] row)
                                => (float[1, 4] t, float[2] u) { t = Neg (s)  u = Neg (row) }
                        > (before, rows)
                        r = Add (low, low) }
                >
                each = Identity (after) }
        > }"""
)


@pytest.mark.parametrize("opset", [13, 17])
def test_bodies_in_bodies_are_observed_as_often_as_they_run(opset: int) -> None:
    model = built(DEEP, opset)
    before = model_file.to_bytes(model)
    names = sorted(observable(model) - {"zero", "two", "times", "go"})
    feed = {"x": np.ones((1, 4), np.float32), "rows": np.arange(6, dtype=np.float32).reshape(3, 2)}
    seen = Observer(model, names).run(feed, names)
    assert model_file.to_bytes(model) == before
    # x: unchanged at i = 0, −2 times at 1, twice doubled at 2, −2 times at 3.
    assert [float(array[0, 0]) for array in seen["before"]] == [1, 1, -2, -8]
    assert [float(array[0, 0]) for array in seen["w"]] == [-4, -8]
    assert [float(array[0, 0]) for array in seen["low"]] == [-1, 8]
    assert [array.shape for array in seen["many"]] == [(0, 1, 4), (2, 1, 4)]
    assert [array.tolist() for array in seen["u"]] == 2 * [[0, -1], [-2, -3], [-4, -5]]
    assert float(seen["y"][0][0, 0]) == 16
