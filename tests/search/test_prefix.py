"""A changed model that is run from where it differs gives what the whole gives."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from block_runs import check_exact
from bodies import if_model, loop_model, nested_model, scan_model
from built_graphs import STEPS, Builder, build
from generated import initialized
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.data import random_samples
from onnxpress.runtime import Session
from onnxpress.search import prefix as prefix_module
from onnxpress.search.prefix import Prefix, computed_alike

CHAIN = """
<ir_version: 9, opset_import: ["" : 18]>
chain (float[n, 8] x, float[8, 8] a, float[8, 8] b, float[8, 8] c) => (float[n, 8] y) {
   p = MatMul (x, a)
   q = Relu (p)
   r = MatMul (q, b)
   s = Relu (r)
   y = MatMul (s, c)
}
"""


def with_another(model: ir.Model, name: str) -> ir.Model:
    """The model with another constant of a name."""
    changed = model.clone()
    value = changed.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy()
    value.const_value = ir.Tensor((array * 1.25 + 0.125).astype(array.dtype), name=name)
    return changed


def check(model: ir.Model, changed: ir.Model) -> bool:
    """What is resumed gives what the whole gives; whether anything was."""
    session = Session(changed)
    feeds = random_samples(session, 3, 0, changed).feeds
    found = Prefix(model, feeds).resumed(changed, len(feeds))
    for feed in reversed(feeds):
        if found is not None:
            wanted, given_now = session.run(feed), found.run(feed)
            assert list(wanted) == list(given_now)
            for name, array in wanted.items():
                # Last bits, which deep random networks magnify.
                exact = np.asarray(array, np.float64)
                error = np.abs(np.asarray(given_now[name], np.float64) - exact).max(initial=0.0)
                assert error <= 1e-4 * np.abs(exact).max(initial=1e-6)
    return found is not None


@pytest.mark.parametrize(
    ("changed", "alike"),
    [("a", {"x", "b", "c"}), ("b", {"x", "a", "c", "p", "q"}), ("c", set("xabpqrs"))],
)
def test_alike_is_what_no_change_reaches(changed: str, alike: set[str]) -> None:
    model = initialized(CHAIN)
    assert computed_alike(model, with_another(model, changed)) == alike
    assert computed_alike(model, model.clone()) == set("xabcpqrsy")


def test_other_attributes_and_other_inputs_differ() -> None:
    model = initialized(CHAIN)
    other = model.clone()
    node = next(node for node in other.graph if node.outputs[0].name == "r")
    node.replace_input_with(1, other.graph.initializers["c"])
    assert "q" in computed_alike(model, other)
    assert "r" not in computed_alike(model, other)
    leaky = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) '
        "{ y = LeakyRelu <alpha: float = 0.5> (x) }"
    )
    steeper = leaky.clone()
    steeper.graph[0].attributes["alpha"] = ir.AttrFloat32("alpha", 0.25)
    assert computed_alike(leaky, leaky.clone()) == {"x", "y"}
    assert computed_alike(leaky, steeper) == {"x"}


def test_what_is_drawn_or_has_bodies_differs() -> None:
    noisy = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 18]> g (float[4] x) => (float[4] y) '
        "{ n = RandomNormalLike (x)  y = Add (x, n) }"
    )
    assert computed_alike(noisy, noisy.clone()) == {"x"}
    for make in (if_model, loop_model, nested_model, scan_model):
        model = make()
        kinds = {"If", "Loop", "Scan"}
        made = {v.name for n in model.graph if n.op_type in kinds for v in n.outputs}
        assert made
        assert not made & computed_alike(model, model.clone())


def test_another_default_of_an_input_differs() -> None:
    model = initialized(CHAIN)
    model.graph.inputs.append(model.graph.initializers["a"])
    assert "p" not in computed_alike(model, with_another(model, "a"))


def test_only_what_is_behind_the_change_is_run() -> None:
    model = initialized(CHAIN)
    changed = with_another(model, "c")
    feeds = random_samples(Session(changed), 2, 0, changed).feeds
    found = Prefix(model, feeds).resumed(changed, len(feeds))
    assert found is not None
    assert {spec.name for spec in found._session.inputs} <= {"r", "s"}
    check_exact(Session(changed).run(feeds[1]), found.run(feeds[1]))
    assert Prefix(model, feeds).resumed(with_another(model, "a"), 2) is None


def test_more_than_may_be_held_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = initialized(CHAIN)
    assert check(model, with_another(model, "c"))
    monkeypatch.setattr(prefix_module, "_HELD_BYTES", 60)
    assert not check(model, with_another(model, "c"))


@given(
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=5),
    st.integers(0, 1000),
)
def test_generated_graphs_give_the_same_from_anywhere(
    steps: list[Callable[[Builder], None]], seed: int
) -> None:
    model = build(steps, seed)
    names = sorted(
        name
        for name, value in model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT and not value.is_graph_input()
    )
    for name in names[seed % 2 :: 2]:
        check(model, with_another(model, name))


@pytest.mark.parametrize("make", [if_model, loop_model, nested_model, scan_model])
def test_models_with_bodies_give_the_same(make: Callable[[], ir.Model]) -> None:
    model = make()
    check(model, model.clone())
