"""Which nodes a provider took: read from its report, its profile and its compiled graphs."""

import json
from pathlib import Path
from typing import Any

import pytest

from onnxpress.providers.catalogue import provider
from onnxpress.providers.kernels import from_qnn_graphs
from onnxpress.providers.placement import place_nodes


def _report(**placement: list[list[list[str]]]) -> dict[str, Any]:
    return {"placement": placement}


def test_names_that_fusions_extended_are_found() -> None:
    report = _report(QNNExecutionProvider=[[["fc/MatMulAddFusion", "Gemm"], ["a", "Relu"]]])
    placed = place_nodes(provider("qnn"), report, {"fc": 90, "conv": 10})
    assert placed.placement is not None
    assert placed.placement.multiply_add_share == pytest.approx(0.9)
    assert placed.placement.partitions == 1
    assert not placed.problem


def test_taking_nodes_but_no_multiply_add_is_a_failure() -> None:
    report = _report(
        QNNExecutionProvider=[[["a", "Relu"]]], CPUExecutionProvider=[[["conv", "Conv"]]]
    )
    placed = place_nodes(provider("qnn"), report, {"conv": 10})
    assert "no multiply-add" in placed.problem


def test_unknown_placement_without_a_kernel_in_the_profile_is_a_failure() -> None:
    report: dict[str, Any] = {"placement": None, "kernels": {}}
    assert place_nodes(provider("openvino"), report, {"conv": 10}).problem


def test_only_nodes_between_fixed_point_tensors_count_as_integer(tmp_path: Path) -> None:
    graph = {
        "tensors": {
            "q": {"data_type": 0x0408},
            "w": {"data_type": 0x0308},
            "r": {"data_type": 0x0408},
            "f": {"data_type": 0x0232},
        },
        "nodes": {
            "1": {"type": "Conv2d", "input_names": ["q", "w"], "output_names": ["r"]},
            "2": {"type": "Conv2d", "input_names": ["q", "w"], "output_names": ["f"]},
            "3": {"type": "Transpose", "input_names": ["q"], "output_names": ["r"]},
        },
    }
    (tmp_path / "graph.json").write_text(json.dumps({"graph": graph}))
    (tmp_path / "profile.json").write_text("[]")
    assert from_qnn_graphs(sorted(tmp_path.glob("*.json"))) == {"Conv2d": 1}
