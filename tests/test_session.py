"""Sessions of onnxruntime: what they leave behind."""

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress import model_file, referring, spill
from onnxpress.data import from_arrays
from onnxpress.runtime import Session


def test_the_file_of_a_large_model_goes_with_its_session(
    tmp_path: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(referring, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(spill, "_LEAST_BYTES", 0)
    opened = Session(model_file.load(linear_model))
    assert len(list(scratch.iterdir())) == 1
    assert opened.run({"x": np.ones((2, 64), np.float32)})["y"].shape == (2, 64)
    del opened
    gc.collect()
    assert not list(scratch.iterdir())


def test_an_optional_input_is_fed_as_its_tensor(tmp_path: Path) -> None:
    graph = onnx.parser.parse_graph(
        "g (float[n, 4] x, optional(float[n, 4]) bias) => (float[n, 4] y)"
        " { b = OptionalGetElement(bias) y = Add(x, b) }"
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    opened = Session(path)
    assert [spec.dtype for spec in opened.inputs] == ["float32", "float32"]
    rows = np.ones((3, 4), np.float32)
    samples = from_arrays({"x": rows, "bias": 2 * rows}, opened.inputs, "given.npz")
    assert opened.run(samples.feeds[0])["y"].tolist() == [[3.0] * 4]
