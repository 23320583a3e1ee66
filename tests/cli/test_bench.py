"""`onnxpress bench` says what models take: a run, loading, memory, and growing inputs."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper, numpy_helper

from onnxpress.cli.bench import _expands, _names
from onnxpress.runtime.footprint import footprint


def document(*arguments: object) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(
        run("bench", *arguments, "--json", "-").output
    )
    return found


def test_each_model_has_a_row_and_the_first_is_what_others_are_compared_with(models: Path) -> None:
    cnn, mlp = models / "fashion_cnn.onnx", models / "fashion_mlp.onnx"
    rows = document(cnn, mlp)["models"]
    assert [row["model"] for row in rows] == [str(cnn), str(mlp)]
    assert rows[0]["run_ms"] == rows[1]["first_ms"]
    assert all(isinstance(row["load_ms"], float) and row["load_ms"] > 0 for row in rows)


def test_one_model_alone_is_compared_with_nothing(models: Path) -> None:
    output = run("bench", models / "fashion_mlp.onnx").output
    assert "times as fast" not in output
    assert "fashion_mlp.onnx" in output


def test_memory_that_was_given_back_is_told_apart() -> None:
    first = {"peak_bytes": 127, "held_bytes": 98}
    assert _expands({"peak_bytes": 186, "held_bytes": 82}, first)
    assert not _expands({"peak_bytes": 186, "held_bytes": 180}, first)
    assert not _expands({"peak_bytes": 100, "held_bytes": 20}, first)
    assert not _expands({"peak_bytes": None, "held_bytes": None}, first)


@pytest.mark.parametrize("name", ["json", "tempfile", "dataclasses"])
def test_what_lies_in_the_current_folder_is_not_imported(
    name: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    image = np.zeros((1, 1, 28, 28), np.float32)
    assert footprint(models / "fashion_mlp.onnx", {"image": image}, 1) is not None


def test_memory_is_of_the_model_and_not_of_what_ran_before(tmp_path: Path) -> None:
    def saved(name: str, rows: int) -> Path:
        weight = np.ones((rows, 1000), np.float32)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("ReduceSum", ["h"], ["y"], keepdims=0),
        ]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
        graph = helper.make_graph(
            nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")]
        )
        path = tmp_path / name
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path

    large, small = saved("large.onnx", 20_000), saved("small.onnx", 10)
    by_large, by_small = (
        footprint(path, {"x": np.ones((1, rows), np.float32)}, 1)
        for path, rows in ((large, 20_000), (small, 10))
    )
    assert by_large is not None
    assert by_small is not None
    if by_large.peak_bytes is None or by_small.peak_bytes is None:
        pytest.skip("the system does not say what a process took")
    weight = 4 * 20_000 * 1000
    assert by_large.peak_bytes > weight
    assert by_small.peak_bytes < weight / 2


def test_a_dimension_is_given_each_size(models: Path) -> None:
    cnn, mlp = models / "fashion_cnn.onnx", models / "fashion_mlp.onnx"
    grown = document(cnn, mlp, "--sweep", "batch=1,64")["sweeps"]
    assert [(row["dimension"], row["size"]) for row in grown] == [("batch", 1), ("batch", 64)]
    first, last = (row["run_ms"] for row in grown)
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert len(first) == len(last) == 2


@pytest.mark.parametrize("text", ["batch", "batch=", "batch=0", "=4", "batch=1,x"])
def test_a_sweep_that_means_nothing_is_refused(text: str, models: Path) -> None:
    result = run("bench", models / "fashion_cnn.onnx", "--sweep", text)
    assert result.exit_code == 2
    assert "expected DIM=1,8,32" in result.output


def test_a_dimension_that_is_not_there_has_a_nearest_one(models: Path) -> None:
    result = run("bench", models / "fashion_cnn.onnx", "--sweep", "bach=2")
    assert result.exit_code == 2
    assert "did you mean 'batch'?" in result.output


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    assert _names(["a/model.onnx", "b/model.onnx"]) == ["a/model.onnx", "b/model.onnx"]
    assert _names(["a/model.onnx", "b/small.onnx"]) == ["model.onnx", "small.onnx"]
