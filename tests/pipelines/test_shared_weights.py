"""Weights that two models hold stand in one file, and both give what they gave."""

from pathlib import Path

import numpy as np
import onnx
from decoders import DIM, HEADS, prompts, write_decoder, write_encoder
from onnx import numpy_helper

from onnxpress import model_file
from onnxpress.output_file import FileSet
from onnxpress.pipelines.sharing import SHARED, shared_bytes, write_models
from onnxpress.runtime import Array, Session


def test_weights_of_two_models_are_stored_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    paths = [
        write_decoder(tmp_path / "in" / "decoder_model.onnx", with_past=False),
        write_decoder(tmp_path / "in" / "decoder_with_past_model.onnx"),
    ]
    models = {path.name: model_file.load(path) for path in paths}
    with FileSet() as files:
        written = write_models(models, tmp_path / "out", files)
    assert [path.name for path in written] == [SHARED, *models]
    apart = sum(path.stat().st_size for path in paths)
    together = sum(path.stat().st_size for path in written)
    # Offsets lie on pages of 4,096 bytes.
    assert together < 0.75 * apart
    tensors = [v.const_value for v in models[paths[0].name].graph.initializers.values()]
    assert shared_bytes(models) == sum(t.nbytes for t in tensors if t and t.nbytes >= 1024)
    past: dict[str, Array] = {
        f"past_key_values.0.{part}": np.zeros((1, HEADS, 0, DIM), np.float32)
        for part in ("key", "value")
    }
    for path, others in zip(paths, ({}, past), strict=True):
        feed = {"input_ids": prompts(1), **others}
        before = Session(path, threads=1).run(feed)["logits"]
        after = Session(tmp_path / "out" / path.name, threads=1).run(feed)["logits"]
        assert np.array_equal(before, after)


def test_texts_stay_in_their_files(tmp_path: Path) -> None:
    models = {}
    for name in ("a.onnx", "b.onnx"):
        model = onnx.load(write_encoder(tmp_path / name))
        words = numpy_helper.from_array(np.array(["word"] * 200, object), "words")
        model.graph.initializer.append(words)
        onnx.save(model, tmp_path / name)
        models[name] = model_file.load(tmp_path / name)
    (tmp_path / "out").mkdir()
    with FileSet() as files:
        write_models(models, tmp_path / "out", files)
    kept = onnx.load(tmp_path / "out" / "a.onnx").graph.initializer
    assert [list(t.string_data) for t in kept if t.name == "words"] == [[b"word"] * 200]


def test_models_that_share_nothing_are_whole_files(tmp_path: Path) -> None:
    models = {
        path.name: model_file.load(path)
        for path in (write_encoder(tmp_path / "a.onnx"), write_decoder(tmp_path / "b.onnx"))
    }
    (tmp_path / "out").mkdir()
    with FileSet() as files:
        written = write_models(models, tmp_path / "out", files)
    assert [path.name for path in written] == ["a.onnx", "b.onnx"]
    assert shared_bytes(models) == 0
