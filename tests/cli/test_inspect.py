"""`onnxpress inspect` shows how the outputs are read."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import run
from zoo.table import KINDS


@pytest.fixture
def yolov5(tmp_path: Path) -> tuple[Path, Path]:
    """A detector with objectness, and its samples."""
    made = KINDS["YOLOv5"].make()
    model, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    onnx.save(made.model, model)
    np.savez(data, image=np.concatenate([feed["image"] for feed in made.feeds]))
    return model, data


def test_reading_is_printed_before_the_layers(models: Path) -> None:
    lines = run("inspect", models / "fashion_cnn.onnx").output.splitlines()
    assert lines[1] == "reads logits: class logits, 10 classes (classification: its name)"
    assert lines[2] == "keeps logits: top-1 agreement may drop by 1 point, SQNR of at least 15 dB"
    assert any(line.startswith("largest layers") for line in lines[3:])


def test_what_samples_would_open_is_the_next_step(models: Path, tmp_path: Path) -> None:
    expected = "--calibration DATA, samples as the model is fed, opens more sites: 14 to factorize"
    shown = " ".join(run("inspect", models / "fashion_cnn.onnx").output.split())
    assert expected in shown
    out, mlp = tmp_path / "o.onnx", models / "fashion_mlp.onnx"
    without = run("quantize", mlp, "-o", out, "--json", "-")
    data = ("--calibration", models / "fashion_calibration.npz")
    given = run("quantize", mlp, "-o", out, *data, "--form", "weight_only", "--json", "-")
    assert "to quantize" in json.loads(without.output)["next"]
    # With samples nothing is closed any more; more of them would prove more.
    assert "opens" not in json.loads(given.output)["next"]
    assert json.loads(given.output)["next"].startswith("give --evaluation with about ")


def test_json_has_the_readings(models: Path) -> None:
    document = json.loads(run("inspect", models / "fashion_cnn.onnx", "--json", "-").output)
    assert document["readings"] == [
        {
            "output": "logits",
            "kind": "classification",
            "words": "class logits, 10 classes",
            "why": "its name",
        }
    ]


def test_json_says_what_each_pass_could_save_and_what_samples_open(models: Path) -> None:
    document = json.loads(run("inspect", models / "fashion_cnn.onnx", "--json", "-").output)
    found = {entry["pass"]: entry for entry in document["passes"]}
    assert found["quantize"]["forms"] == {"weight_only": 15}
    assert 0.7 * 2.78e6 < found["quantize"]["saved_bytes"] < 0.75 * 2.81e6
    assert found["prune"]["sites"] == 0
    assert found["prune"]["opened_by_samples"]["sites"] == 13
    assert found["sparsify"]["by_name_only"].endswith("[S004]")
    reason = found["quantize"]["reasons"][0]
    assert (reason["code"], reason["count"]) == ("Q003", 15)
    assert document["bytes"] > document["predicted_bytes"] > document["bytes"] / 4


def test_what_quantize_could_save_is_what_it_saves(models: Path, tmp_path: Path) -> None:
    document = json.loads(run("inspect", models / "fashion_mlp.onnx", "--json", "-").output)
    out = tmp_path / "o.onnx"
    options = ("-o", out, "--goal", "size", "--form", "weight_only", "--weight-bits", "8")
    run("quantize", models / "fashion_mlp.onnx", *options, "--min-sqnr", "10")
    assert out.stat().st_size == pytest.approx(document["predicted_bytes"], rel=0.05)


def test_what_the_target_refuses_is_said(models: Path) -> None:
    shown = run("inspect", models / "fashion_cnn.onnx", "--target", "xnnpack").output
    assert "xnnpack takes " in shown
    refused = run("inspect", models / "fashion_cnn.onnx", "--target", "xnnpak")
    assert refused.exit_code == 2
    assert "did you mean 'xnnpack'?" in refused.output


def test_answers_to_samples_say_more_than_the_graph(yolov5: tuple[Path, Path]) -> None:
    model, data = yolov5
    alone = " ".join(run("inspect", model).output.split())
    assert "detector head, 4 boxes + 5 scores × 36 anchors" in alone
    with_data = " ".join(run("inspect", model, "--data", data).output.split())
    assert "detector head, 4 boxes + objectness + 4 scores × 36 anchors" in with_data


def test_samples_that_do_not_fit_are_refused(models: Path, yolov5: tuple[Path, Path]) -> None:
    result = run("inspect", models / "fashion_cnn.onnx", "--data", yolov5[1])
    assert result.exit_code == 2
    assert "image" in result.output


def test_model_that_cannot_run_is_read_all_the_same(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Unknown", ["x"], ["logits"], domain="of.nobody")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 5])
        for name in ("x", "logits")
    ]
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("of.nobody", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    assert "reads logits: class logits, 5 classes" in run("inspect", path).output


EXPORTS = Path(__file__).parents[1] / "transformer" / "exports"


def test_structure_of_a_transformer_is_printed() -> None:
    shown = " ".join(run("inspect", EXPORTS / "llama_dynamo_23.onnx").output.split())
    assert "structure residual stream of 16 numbers, 4 blocks, RMSNorm before each" in shown
    heads = "4 heads of 4, 2 heads of keys and values, rotary positions, a cache"
    assert f"structure attention (2): to itself, {heads}" in shown
    assert "structure MLP (2): 40 wide, silu, gated" in shown
    assert "structure tables: words.weight (48 × 16 by input_ids)" in shown


def test_json_has_the_structure_with_names_or_null(models: Path) -> None:
    path = EXPORTS / "gpt_dynamo_23.onnx"
    found = json.loads(run("inspect", path, "--json", "-").output)["transformer"]
    assert [one["past"] for one in found["attentions"]] == [
        [f"past.{kind}.{at}" for kind in ("key", "value")] for at in range(2)
    ]
    assert found["tables"][0]["tied"]
    names = {name for one in found["attentions"] for name in one["query"]}
    weights = {value.name for value in onnx.load(path).graph.initializer}
    assert names <= weights
    plain = json.loads(run("inspect", models / "fashion_cnn.onnx", "--json", "-").output)
    assert plain["transformer"] is None
