"""What `onnxpress data` says of samples: what they are, and what looks wrong."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import message, run
from onnx import TensorProto, helper
from PIL import Image

from onnxpress.feeding import look_at_samples


def said(found: dict[str, object], part: str) -> bool:
    problems = found["problems"]
    assert isinstance(problems, list)
    return any(part in problem for problem in problems)


@pytest.fixture
def evaluation(models: Path) -> dict[str, np.ndarray]:
    """Some pictures of clothes with their labels."""
    with np.load(models / "fashion_evaluation.npz") as archive:
        return {name: archive[name][::40] for name in archive.files}


def test_good_samples_are_described_and_nothing_is_wrong(models: Path) -> None:
    found = look_at_samples(
        models / "fashion_cnn.onnx",
        models / "fashion_evaluation.npz",
        evaluation=models / "fashion_calibration.npz",
    )
    with np.load(models / "fashion_evaluation.npz") as archive:
        images = archive["image"].astype(np.float64)
    (entry,) = found["inputs"]
    assert found["samples"] == len(images)
    assert entry["shapes"] == [[1, 1, 28, 28]]
    assert (entry["low"], entry["high"]) == (images.min(), images.max())
    assert entry["mean"] == pytest.approx(images.mean())
    assert entry["deviation"] == pytest.approx(images.std())
    assert found["labels"] == {"classes": 10, "fewest": 200, "most": 200}
    assert found["problems"] == []


def test_pixels_that_were_never_scaled_are_noticed(
    models: Path, evaluation: dict[str, np.ndarray]
) -> None:
    evaluation["image"] = evaluation["image"] * 255
    found = look_at_samples(models / "fashion_cnn.onnx", evaluation)
    assert said(found, "fed 0 to 1 in place of 0 to 255")


def test_labels_of_another_order_are_noticed(
    models: Path, evaluation: dict[str, np.ndarray]
) -> None:
    evaluation["__labels__"] = (evaluation["__labels__"] + 1) % 10
    found = look_at_samples(models / "fashion_cnn.onnx", evaluation)
    assert said(found, "the order of the classes")


def test_samples_without_a_label_are_looked_at(
    models: Path, evaluation: dict[str, np.ndarray]
) -> None:
    evaluation["__labels__"][::2] = -1
    assert look_at_samples(models / "fashion_cnn.onnx", evaluation)["problems"] == []


def test_one_class_shows_nothing(models: Path, evaluation: dict[str, np.ndarray]) -> None:
    evaluation["__labels__"] = np.zeros_like(evaluation["__labels__"])
    found = look_at_samples(models / "fashion_cnn.onnx", evaluation)
    assert said(found, "all labels are 0")


def test_copies_and_empty_samples_are_noticed(
    models: Path, evaluation: dict[str, np.ndarray]
) -> None:
    evaluation["image"][3] = evaluation["image"][2]
    evaluation["image"][5] = 0
    found = look_at_samples(models / "fashion_cnn.onnx", evaluation)
    assert said(found, "copies of other samples: 1 of 50, the first is sample")
    assert said(found, "one value throughout in 1 of 50 samples (sample 5)")


def test_samples_that_look_and_judge_are_noticed(
    models: Path, evaluation: dict[str, np.ndarray]
) -> None:
    part = {name: array[:7] for name, array in evaluation.items()}
    found = look_at_samples(
        models / "fashion_cnn.onnx",
        evaluation,
        evaluation=part,
    )
    assert said(found, "7 of 7 samples of the given arrays are in")


def test_exchanged_colors_are_noticed(tmp_path: Path) -> None:
    # Class 0 for red pictures, 1 for blue ones; the classifier was trained on blue, green, red.
    weight = np.array([[8, 0, -8], [-8, 0, 8]], np.float32)[:, ::-1].reshape(2, 3, 1, 1)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "weight"], ["scored"]),
        helper.make_node("Flatten", ["scored"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "model.onnx",
    )
    for number in range(12):
        folder = tmp_path / "photos" / ("blue" if number % 2 else "red")
        folder.mkdir(parents=True, exist_ok=True)
        level = 130 + number
        color = (0, 40, level) if number % 2 else (level, 40, 0)
        Image.new("RGB", (8, 8), color).save(folder / f"{number}.png")
    (tmp_path / "d.toml").write_text('[images]\npath = "photos"\nclasses = ["red", "blue"]\n')
    found = look_at_samples(tmp_path / "model.onnx", tmp_path / "d.toml")
    assert said(found, "with red and blue exchanged, the model is right on 100% instead of 0%")


def test_command_prints_within_80_columns(models: Path) -> None:
    result = run("data", models / "fashion_cnn.onnx", models / "fashion_evaluation.npz")
    assert result.exit_code == 0
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "nothing looks wrong" in result.output


def test_command_writes_json(models: Path) -> None:
    result = run(
        "data", models / "fashion_cnn.onnx", models / "fashion_evaluation.npz", "--json", "-"
    )
    assert json.loads(result.output)["samples"] == 2000


def test_folder_of_the_wrong_files_is_refused_with_what_is_taken(
    models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.docx").write_text("x")
    result = run("data", models / "fashion_cnn.onnx", tmp_path)
    assert result.exit_code == 2
    assert "a folder of pictures" in message(result)


def test_three_samples_are_shown_as_pictures(models: Path, tmp_path: Path) -> None:
    data, page = models / "fashion_calibration.npz", tmp_path / "data.html"
    said = run("data", models / "fashion_cnn.onnx", data, "--report", page, "--json", "-").output
    shown = json.loads(said)["shown"]
    assert [one["sample"] for one in shown] == [0, 85, 170]
    html = page.read_text(encoding="utf-8")
    for one in shown:
        (fed,) = one["fed"]
        assert (fed["input"], fed["shape"]) == ("image", [1, 1, 28, 28])
        head, _, body = fed["picture"].partition(",")
        assert head == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("L"))
        with np.load(data) as archive:
            image = archive["image"][one["sample"]].reshape(28, 28)
        np.testing.assert_allclose(pixels / 255, image / image.max(), atol=0.003)
        assert fed["picture"] in html
    assert "Nothing looks wrong" in html


def test_texts_are_shown_as_they_were_read(tmp_path: Path) -> None:
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["n"])
    out = helper.make_tensor_value_info("out", TensorProto.STRING, ["n"])
    node = helper.make_node("Identity", ["text"], ["out"])
    graph = helper.make_graph([node], "g", [text], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "lines.txt").write_text("a bird <script>alert(1)</script>\nsings\n")
    arguments = ("data", tmp_path / "m.onnx", tmp_path / "lines.txt")
    page = tmp_path / "page.html"
    told = run(*arguments, "--report", page)
    assert told.exit_code == 0
    assert "sample 1 'sings'" in told.output
    html = page.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "a bird &lt;script&gt;" in html
    page.write_text("mine")
    assert "choose another name" in message(run(*arguments, "--report", page))
    assert page.read_text() == "mine"
