"""Weights in files: one mapping for each, pages given back, and temporary files that go."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from large_models import small_decoder

from onnxpress import mapped, model_file, pieces, referring, spill
from onnxpress.errors import OutputError, UsageError
from onnxpress.memory import memory_budget
from onnxpress.passes.quantize.weights import quantize_weight
from onnxpress.runtime import Session, structural_refusal
from onnxpress.spill import Spill
from onnxpress.temporary import TemporaryFolder


def test_a_file_of_weights_is_mapped_once(tmp_path: Path) -> None:
    model = model_file.load(small_decoder(tmp_path))
    held = [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value]
    assert len(held) > 20
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    weights = str(tmp_path / "decoder.onnx.data")
    assert len([line for line in maps if line.endswith(weights)]) == 1


def test_arrays_stay_valid_when_pages_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_SHOWN_BYTES", 1)
    model = model_file.load(small_decoder(tmp_path))
    tensors = [v.const_value for v in model.graph.initializers.values()]
    held = [t for t in tensors if isinstance(t, mapped.MappedTensor)]
    assert held
    views = [tensor.numpy() for tensor in held]
    for tensor, view in zip(held, views, strict=True):
        assert view.tobytes() == tensor.tobytes()
        assert not view.flags.writeable
        with Path(tensor.path).open("rb") as stream:
            stream.seek(tensor.offset or 0)
            assert stream.read(tensor.nbytes) == tensor.tobytes()


@pytest.mark.parametrize("kind", [ir.DataType.INT4, ir.DataType.UINT8, ir.DataType.BFLOAT16])
def test_a_mapped_tensor_is_the_tensor(
    kind: ir.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "_LEAST_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tensor = ir.tensor(np.arange(-3, 4).astype(kind.numpy()).reshape(1, 7), kind, name="w")
    found = Spill().put(tensor)
    assert isinstance(found, mapped.MappedTensor)
    assert found.tobytes() == tensor.tobytes()
    np.testing.assert_array_equal(found.numpy(), tensor.numpy())
    np.testing.assert_array_equal(np.asarray(found), tensor.numpy())


def test_a_session_of_a_rewritten_model_copies_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_file.load(small_decoder(tmp_path / "given")).clone()
    model.metadata_props["changed"] = "yes"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(referring, "_IN_MEMORY_BYTES", 100_000)
    opened = Session(model)
    assert not list(scratch.iterdir())
    assert len(model_file.referring(model).content) < model_file.weight_bytes(model) / 5
    assert "logits" in opened.output_names


def test_weights_that_models_share_are_put_into_a_file_that_lives_as_long_as_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(referring, "_IN_MEMORY_BYTES", 100_000)
    written: list[int] = []
    kept = Spill._written

    def counted(self: Spill, tensor: ir.TensorProtocol) -> mapped.MappedTensor:
        written.append(tensor.nbytes)
        return kept(self, tensor)

    monkeypatch.setattr(Spill, "_written", counted)
    text = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[n, 200] x) => (float[n, 200] y)'
    model = ir.from_onnx_text(f"{text} {{ y = MatMul (x, w) }}")
    value = model.graph[0].inputs[1]
    assert value is not None
    numbers = np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32)
    value.name, value.const_value = "w", ir.tensor(numbers, name="w")
    model.graph.register_initializer(value)
    feed = {"x": np.ones((2, 200), np.float32)}
    sessions = [Session(model.clone()) for _ in range(4)]
    for session in sessions:
        found = session.run(feed)["y"].astype(np.float32)
        np.testing.assert_allclose(found, np.asarray(feed["x"] @ numbers, np.float32), rtol=1e-4)
    assert written == [numbers.nbytes] * 2, "the first session has its own, the others share one"
    del session, sessions, model, value
    gc.collect()
    assert not list(scratch.iterdir())


def test_what_a_killed_run_left_is_removed_and_what_lives_stays(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from onnxpress.temporary import TemporaryFolder\n"
        "folder = TemporaryFolder(Path(sys.argv[1]))\n"
        "(folder.path / 'copy').write_bytes(b'weights')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    alive = TemporaryFolder(tmp_path)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    following = TemporaryFolder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive.path, following.path])
    alive.close()
    following.close()
    assert not list(tmp_path.iterdir())


def test_no_room_for_a_spill_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    large = ir.tensor(np.zeros(100_000, np.float32), name="w")
    with pytest.raises(OutputError, match="a temporary file cannot be written"):
        Spill().put(large)


def test_structure_is_checked_without_weights() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[n, 200] x) => (float[n, 200] y)'
    model = ir.from_onnx_text(f"{text} {{ y = MatMul (x, w) }}")
    value = model.graph[0].inputs[1]
    assert value is not None
    value.name, value.const_value = "w", ir.tensor(np.zeros((200, 200), np.float32), name="w")
    model.graph.register_initializer(value)
    assert structural_refusal(model) is None
    value.const_value = ir.tensor(np.zeros((300, 200), np.float32), name="w")
    value.shape = None
    assert structural_refusal(model) is not None
    assert value.const_value is not None


@pytest.mark.parametrize(
    ("asked", "size"),
    [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("800MB", 8 * 10**8), (123, 123), ("7", 7)],
)
def test_sizes_are_read(asked: str | int, size: int) -> None:
    assert memory_budget(asked) == size


@pytest.mark.parametrize("asked", ["", "much", "-1GB", "0", "4 PB"])
def test_what_is_no_size_is_refused(asked: str) -> None:
    with pytest.raises(UsageError, match="max memory is"):
        memory_budget(asked)


def test_by_default_there_is_a_budget() -> None:
    assert memory_budget(None) > 0


@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=9)),
    st.integers(1, 20),
    st.sampled_from(["rows", "columns"]),
)
def test_pieces_are_the_array(array: np.ndarray, elements: int, order: str) -> None:
    array = array.T if order == "columns" else array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_ELEMENTS", elements)
        found = list(pieces.pieces(array))
        assert pieces.is_finite(array) == bool(np.isfinite(array).all())
    joined = np.concatenate([piece.reshape(-1) for piece in found])
    np.testing.assert_array_equal(joined, array.reshape(-1))


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=3, max_side=9),
        elements=st.floats(-100, 100, width=32),
    ),
    st.sampled_from([None, 0, 1, (0, 1)]),
    st.sampled_from([0, 128]),
)
def test_integers_of_blocks_are_those_of_the_whole(
    weight: np.ndarray, axis: int | tuple[int, int] | None, zero_point: int
) -> None:
    whole = quantize_weight(weight, axis, unsigned=zero_point > 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces.row_blocks, "__defaults__", (3,))
        parts = quantize_weight(weight, axis, unsigned=zero_point > 0)
    np.testing.assert_array_equal(parts.values, whole.values)
    exact = weight / whole.broadcast_scales()
    wanted = np.clip(np.round(exact), -127, 127) + zero_point
    np.testing.assert_array_equal(whole.values, wanted)
