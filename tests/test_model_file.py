"""Model files: weights beside them, and writing whole or not at all."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from onnxpress import model_file
from onnxpress.errors import OutputError
from onnxpress.layers import find_layers


def test_external_data_survives_and_is_replaced_whole(tmp_path: Path, linear_model: Path) -> None:
    target = tmp_path / "big.onnx"
    model = model_file.load(linear_model)
    model_file.save(model, target, external_data=True)
    assert target.stat().st_size < 2000
    read = model_file.load(target)
    assert model_file.weight_bytes(read) == model_file.weight_bytes(model)
    for layer in find_layers(read):
        layer.write(layer.read() * 2)
    model_file.save(read, target, external_data=True)
    assert len(list(tmp_path.glob("big.onnx.*.data"))) == 1
    assert model_file.size_bytes(target) > 64 * 64 * 4
    np.testing.assert_array_equal(
        find_layers(model_file.load(target))[0].read(), find_layers(model)[0].read() * 2
    )


def test_full_disk_leaves_the_old_file_whole(
    tmp_path: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"good old file")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        model_file.save(model_file.load(linear_model), target)
    assert target.read_bytes() == b"good old file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linear.onnx", "out.onnx"]
