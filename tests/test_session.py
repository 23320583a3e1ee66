"""Sessions of onnxruntime: what they leave behind."""

import gc
from pathlib import Path

import numpy as np
import pytest

from onnxpress import model_file, referring, spill
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
