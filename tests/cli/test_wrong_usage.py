"""Whatever is misspelt, the nearest right word is named, in one sentence and before any work."""

from pathlib import Path

import numpy as np
import pytest
from command_line import message, run

MISSPELT = {
    "command": (["optimise", "MODEL"], "'optimize'"),
    "command of a group": (["targets", "chek", "MODEL"], "'check'"),
    "option": (["optimize", "MODEL", "--calibraton", "x"], "'--calibration'"),
    "flag": (["inspect", "MODEL", "--jsn", "-"], "'--json'"),
    "pass": (["optimize", "MODEL", "--passes", "quantise"], "'quantize'"),
    "pass of a selector": (["optimize", "MODEL", "--exclude", "quantise:Conv"], "'quantize'"),
    "target": (["optimize", "MODEL", "--target", "mobil"], "'mobile'"),
    "target to show": (["targets", "show", "opnvino"], "'openvino'"),
    "target of inspect": (["inspect", "MODEL", "--target", "xnpack"], "'xnnpack'"),
    "layer": (["optimize", "MODEL", "--keep", "stage3.block0.conv2.wieght"], "conv2.weight'"),
    "layer of a pass": (
        ["prune", "MODEL", "--layers", "stage3.block0.conv2.wieght"],
        "conv2.weight'",
    ),
    "operator": (["optimize", "MODEL", "--keep", "Cnov"], "'Conv'"),
    "input": (["optimize", "MODEL", "--fix-shape", "imge=1x1x28x28"], "'image'"),
    "dimension": (["optimize", "MODEL", "--fix-shape", "bach=4"], "'batch'"),
    "input of samples": (["optimize", "MODEL", "--calibration", "DATA"], "'image'"),
    "output": (["optimize", "MODEL", "--output", "logit=classification"], "'logits'"),
    "kind of an output": (
        ["optimize", "MODEL", "--output", "logits=clasification"],
        "'classification'",
    ),
    "task": (["optimize", "MODEL", "--task", "clasification"], "'classification'"),
    "metric": (["optimize", "MODEL", "--metric", "acuracy"], "'accuracy'"),
    "goal": (["optimize", "MODEL", "--goal", "latncy"], "'latency'"),
    "precision": (["optimize", "MODEL", "--float16", "keepio"], "'keep-io'"),
    "choice of a pass": (["quantize", "MODEL", "--form", "sttic"], "'static'"),
    "provider": (["optimize", "MODEL", "--ep", "openvno"], "'openvino'"),
    "provider to install": (["doctor", "--install", "openvno"], "'openvino'"),
    "code": (["explain", "Q03"], "'Q003'"),
    "model file": (["inspect", "FOLDER/fashion_cn.onnx"], "'fashion_cnn.onnx'"),
    "samples file": (
        ["data", "MODEL", "FOLDER/fashion_calibratio.npz"],
        "'fashion_calibration.npz'",
    ),
    "samples folder": (["data", "MODEL", "FOLDER/sample"], "'samples'"),
    "recipe": (["optimize", "MODEL", "--recipe", "FOLDER/fashion_cn.onnx"], "'fashion_cnn.onnx'"),
}
"""What is wrong, and what the message has to name."""


@pytest.mark.parametrize("what", MISSPELT)
def test_the_nearest_right_word_is_named(what: str, models: Path, tmp_path: Path) -> None:
    arguments, nearest = MISSPELT[what]
    data = tmp_path / "data.npz"
    np.savez(data, imgae=np.zeros((4, 1, 28, 28), np.float32))
    places = {"MODEL": str(models / "fashion_cnn.onnx"), "DATA": str(data), "FOLDER": str(models)}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    result = run(*arguments)
    assert result.exit_code == 2
    said = message(result)
    assert "did you mean" in said.lower()
    assert nearest in said


@pytest.mark.parametrize("word", ["zzzz", "", "日本"])
def test_a_word_like_none_of_them_has_no_nearest_one(word: str, models: Path) -> None:
    result = run("optimize", models / "fashion_cnn.onnx", "--goal", word)
    assert result.exit_code == 2
    assert "did you mean" not in result.output.lower()
