"""Removed channels against the same channels set to zero."""

from collections.abc import Callable

import onnx
import onnx_ir as ir
from built_graphs import STEPS, Builder, attention, build, neighbours, unknown
from cutting import SAME_DB, compared
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from onnxpress.layers import find_layers
from onnxpress.passes.prune.layout import Layout


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 1000))
@example([neighbours, neighbours], 0)
def test_generated_graph_is_cut_exactly(steps: list[Callable[[Builder], None]], seed: int) -> None:
    worst, _ = compared(build(steps, seed), 0.4)
    assert worst > SAME_DB


def test_operator_that_is_not_understood_blocks_what_it_reads_by_name() -> None:
    model = build([unknown], 0)
    layout = Layout(model, find_layers(model))
    reasons = {group.blocked for group in layout.groups.values()}
    assert any(reason and "Softmax" in reason for reason in reasons)
    assert None in reasons, "the others can still be cut"


def test_heads_and_the_input_side_of_a_gru_are_cut_exactly() -> None:
    worst, layout = compared(attention(), 0.5)
    assert worst > SAME_DB
    kinds = [(g.kind, len(g.units)) for g in layout.groups.values() if g.blocked is None]
    assert ("head", 4) in kinds
    assert ("channel", 12) in kinds, "what the GRU reads"


def test_bodies_of_if_nodes_are_cut_inside() -> None:
    inner = Builder(1, 3)
    inner.conv(8)
    inner.conv(3)
    nodes, weights = inner.nodes, inner.weights
    bodies = []
    for name in ("then", "other"):
        renamed = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        for node in renamed:
            node.input[:] = [f"{name}_{i}" if i != "x" else i for i in node.input]
            node.output[:] = [f"{name}_{o}" for o in node.output]
        held = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
        for weight in held:
            weight.name = f"{name}_{weight.name}"
        made = make_tensor_value_info(renamed[-1].output[0], TensorProto.FLOAT, [2, 3, 6, 6])
        bodies.append(make_graph(renamed, name, [], [made], held))
    node = make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    graph = make_graph(
        [node],
        "bodies",
        [
            make_tensor_value_info("c", TensorProto.BOOL, []),
            make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 6]),
        ],
        [make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 6, 6])],
    )
    proto = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=9)
    worst, layout = compared(ir.serde.deserialize_model(proto), 0.5)
    assert worst > SAME_DB
    assert sum(group.blocked is None for group in layout.groups.values()) == 2


def test_old_softmax_blocks_every_axis_behind_its_first() -> None:
    b = Builder(0, 3)
    b.conv(8)
    (b.value,) = b.add("Softmax", b.value)
    b.conv(4)
    model = b.model([2, 3, 6, 6], [2, 4, 6, 6], opset=11)
    layout = Layout(model, find_layers(model))
    assert all(group.blocked for group in layout.groups.values())


def test_split_of_an_old_opset_gets_its_sizes_as_an_attribute() -> None:
    b = Builder(0, 3)
    b.conv(8)
    halves = b.add("Split", b.value, outputs=2, axis=1)
    (b.value,) = b.add("Mul", *halves)
    b.channels = 4
    b.conv(4)
    worst, _ = compared(b.model([2, 3, 6, 6], [2, 4, 6, 6], opset=11), 0.5)
    assert worst > SAME_DB
