"""Where the time of a run goes: by nodes of onnxruntime's profile, bodies apart."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper, numpy_helper

import onnxpress
from onnxpress.runtime.profile import (
    NodeTime,
    by_operator,
    node_times,
    profiled,
    profiled_in_turn,
)


def kernel(name: str, operator: str, start: int, microseconds: int) -> dict[str, Any]:
    args = {"op_name": operator, "node_index": "3"}
    return {"name": f"{name}_kernel_time", "ts": start, "dur": microseconds, "args": args}


def a_run(start: int, *kernels: dict[str, Any]) -> list[dict[str, Any]]:
    return [*kernels, {"name": "model_run", "ts": start, "dur": 900}]


def five_runs(of: Any) -> list[dict[str, Any]]:
    """Two that are warm-ups, which take 100 times as long, and three that count."""
    return [
        event for number in range(5) for event in a_run(1000 * number, *of(1000 * number, number))
    ]


def test_warm_ups_do_not_count_and_the_median_is_told() -> None:
    times = (500, 500, 10, 30, 20)
    found = node_times(five_runs(lambda at, number: [kernel("a", "Conv", at + 5, times[number])]))
    assert [(one.node, one.operator, one.ms) for one in found] == [("a", "Conv", 0.02)]


def test_a_fast_model_is_not_run_for_all_of_the_time_there_is(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text("[]")
    runs: list[Any] = []
    session: Any = SimpleNamespace(run=runs.append, end_profile=lambda: path)
    profiled_in_turn([session], [{}], budget_s=3600.0)
    assert 200 <= len(runs) <= 502, "two to warm up, and five turns of a hundred at most"


def test_a_loop_is_told_without_its_body_which_counts_with_all_its_steps() -> None:
    def events(at: int, number: int) -> list[dict[str, Any]]:
        body = [kernel("inside", "MatMul", at + 110 + 50 * step, 40) for step in range(3)]
        return [kernel("loop", "Loop", at + 100, 200), *body, kernel("", "Relu", at + 400, 7)]

    found = {one.node: one.ms for one in node_times(five_runs(events))}
    assert found == {"inside": pytest.approx(0.12), "loop": pytest.approx(0.08), "Relu #3": 0.007}


def test_a_real_loop_does_not_count_twice(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["v", "w"], ["out"], name="inside"),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, [64, 64]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "yes", "x"], ["y"], name="loop", body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [
            numpy_helper.from_array(np.eye(64, dtype=np.float32), "w"),
            numpy_helper.from_array(np.array(20, np.int64), "n"),
            numpy_helper.from_array(np.ones((), np.bool_), "yes"),
        ],
    )
    path = tmp_path / "loop.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    (nodes,) = profiled([path], {"x": np.ones((64, 64), np.float32)}, threads=1, budget_s=0.0)
    assert {"MatMul", "Loop"} <= {node.operator for node in nodes}
    assert all(node.ms >= 0 for node in nodes)


def test_operators_and_nodes_stand_side_by_side(models: Path) -> None:
    cnn, mlp = models / "fashion_cnn.onnx", models / "fashion_mlp.onnx"
    found = json.loads(run("bench", cnn, mlp, "--profile", "--json", "-").output)["profile"]
    for kind in ("operators", "nodes"):
        rows = found[kind]
        for place in range(2):
            assert sum(row["share"][place] for row in rows) == pytest.approx(1)
            assert sum(row["ms"][place] for row in rows) == pytest.approx(found["total_ms"][place])
        most = [max(row["ms"]) for row in rows]
        assert most == sorted(most, reverse=True)
    by_name = {row["operator"]: row for row in found["operators"]}
    convolutions = by_name.get("Conv") or by_name["FusedConv"]
    assert convolutions["nodes"][0] > 5
    assert convolutions["nodes"][1] == 0
    assert convolutions["ms"][1] == 0


def test_the_console_says_which_take_the_time(models: Path) -> None:
    output = run("bench", models / "fashion_cnn.onnx", "--by-node").output
    assert "where the time goes, by operator" in output
    assert "where the time goes, by node" in output
    assert "-v lists them" in output
    assert max(map(len, output.splitlines())) <= 80
    whole = run("bench", models / "fashion_cnn.onnx", "--profile", "-v").output
    assert "where the time goes, by node" not in whole
    assert "-v lists them" not in whole


def test_operators_of_two_models_stand_side_by_side() -> None:
    one = [NodeTime("a", "Conv", 3.0), NodeTime("b", "Conv", 1.0), NodeTime("c", "Relu", 4.0)]
    other = [NodeTime("a", "QLinearConv", 0.5)]
    rows = by_operator(one, other)
    assert [(row.operator, row.nodes, row.ms, row.shares) for row in rows] == [
        ("Conv", (2, 0), (4.0, 0.0), (0.5, 0.0)),
        ("Relu", (1, 0), (4.0, 0.0), (0.5, 0.0)),
        ("QLinearConv", (0, 1), (0.0, 0.5), (0.0, 1.0)),
    ]


def test_result_knows_where_time_and_activations_go(models: Path) -> None:
    data = models / "fashion_calibration.npz"
    with np.load(data) as archive:
        few = {"image": archive["image"][:64]}
    found = onnxpress.optimize(models / "fashion_cnn.onnx", calibration=few, passes=["quantize"])
    shares = [sum(row.shares[side] for row in found.operators) for side in (0, 1)]
    assert shares == pytest.approx([1, 1])
    assert all(row.nodes != (0, 0) and max(row.ms) > 0 for row in found.operators)
    quantized = {
        node.inputs[0].name
        for node in found.model.graph
        if node.op_type == "QuantizeLinear" and node.inputs[0] is not None
    }
    assert {grid.tensor for grid in found.activations} <= quantized
    assert len(found.activations) == min(8, len(quantized))
