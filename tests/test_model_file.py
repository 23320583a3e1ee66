"""Model files: any order of nodes, weights beside them, and writing whole or not at all."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress import model_file
from onnxpress.errors import ModelError, OutputError
from onnxpress.layers import find_layers

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = Add (b, b)
    b = Relu (a)
    a = Neg (x)
}"""
READS_LATER_VALUE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = If (c) <then_branch = t () => (float[n] p) { p = Neg (a) },
                else_branch = e () => (float[n] q) { q = Relu (a) }>
    a = Neg (x)
}"""
IN_A_BODY = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = If (c) <then_branch = t () => (float[n] p) { p = Neg (s) s = Relu (x) },
                else_branch = e () => (float[n] q) { q = Relu (x) }>
}"""


@pytest.mark.parametrize("text", [CHAIN, READS_LATER_VALUE, IN_A_BODY])
def test_nodes_in_any_order_are_sorted(tmp_path: Path, text: str) -> None:
    proto, path = onnx.parser.parse_model(text), tmp_path / "unsorted.onnx"
    with pytest.raises(onnx.checker.ValidationError, match="sorted"):
        onnx.checker.check_model(proto)
    onnx.save(proto, path)
    model_file.save(model_file.load(path), tmp_path / "sorted.onnx")
    onnx.checker.check_model(tmp_path / "sorted.onnx", full_check=True)


def test_cycle_is_refused(tmp_path: Path) -> None:
    proto, path = onnx.parser.parse_model(CHAIN.replace("Neg (x)", "Neg (y)")), tmp_path / "c.onnx"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match=r"c\.onnx: the ONNX checker refuses it: .*cycle"):
        model_file.load(path)


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
