"""Weights in files beside a model: links of hubs are followed, nothing outside is read."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress import model_file
from onnxpress.errors import ModelError
from onnxpress.layers import find_layers


@pytest.fixture
def apart(tmp_path: Path, linear_model: Path) -> Path:
    """A model whose weight lies in `weights.bin` beside it."""
    folder = tmp_path / "apart"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(
        onnx.load(linear_model),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def weight(path: Path) -> np.ndarray:
    return find_layers(model_file.load(path))[0].read()


def edit(path: Path, key: str, value: str) -> None:
    """Change an entry of the only external tensor."""
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("linked", ["both", "data alone"])
def test_hub_cache_of_links_into_blobs_is_read(
    tmp_path: Path, linear_model: Path, apart: Path, linked: str
) -> None:
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/rev/onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("model.onnx", "weights.bin"):
        if linked == "data alone" and name == "model.onnx":
            apart.rename(snapshot / name)
            continue
        (apart.parent / name).rename(blobs / f"0{name}")
        (snapshot / name).symlink_to(os.path.relpath(blobs / f"0{name}", snapshot))
    np.testing.assert_array_equal(weight(snapshot / "model.onnx"), weight(linear_model))
    assert model_file.size_bytes(snapshot / "model.onnx") > 64 * 64 * 4


def test_links_into_one_store_are_read(tmp_path: Path, linear_model: Path, apart: Path) -> None:
    use = tmp_path / "use"
    use.mkdir()
    for name in ("model.onnx", "weights.bin"):
        (use / name).symlink_to(apart.parent / name)
    np.testing.assert_array_equal(weight(use / "model.onnx"), weight(linear_model))


def test_folder_that_is_a_link_is_read(tmp_path: Path, linear_model: Path, apart: Path) -> None:
    (tmp_path / "link").symlink_to(apart.parent)
    np.testing.assert_array_equal(weight(tmp_path / "link/model.onnx"), weight(linear_model))


def test_hard_links_are_read(tmp_path: Path, linear_model: Path, apart: Path) -> None:
    (tmp_path / "again.bin").hardlink_to(apart.parent / "weights.bin")
    np.testing.assert_array_equal(weight(apart), weight(linear_model))


@pytest.mark.parametrize("place", ["elsewhere", "hub"])
def test_link_that_leads_out_of_the_tree_is_refused(
    tmp_path: Path, apart: Path, place: str
) -> None:
    outside = tmp_path / "secret.bin"
    (apart.parent / "weights.bin").rename(outside)
    folder = apart.parent
    if place == "hub":
        folder = tmp_path / "hub/snapshots/rev"
        (tmp_path / "hub/blobs").mkdir(parents=True)
        folder.mkdir(parents=True)
        apart.rename(folder / "model.onnx")
    (folder / "weights.bin").symlink_to(outside)
    with pytest.raises(ModelError, match=r"tensor 'weight' lies in 'weights.bin', a link that"):
        model_file.load(folder / "model.onnx")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("location", "../secret.bin", "expected a file beside the model"),
        ("location", "a/../../secret.bin", "expected a file beside the model"),
        ("location", "/etc/hostname", "expected a file beside the model"),
        ("location", "absent.bin", "cannot be read .*No such file"),
        ("location", "x" * 300, "cannot be read .*File name too long"),
        ("location", ".", "no regular file"),
        ("offset", "-4", "from byte -4"),
        ("offset", "4", "it is cut off"),
        ("offset", "many", "no number"),
        ("length", "12", "12 bytes; expected 16384"),
    ],
)
def test_damaged_reference_is_one_sentence(
    tmp_path: Path, apart: Path, key: str, value: str, expected: str
) -> None:
    (tmp_path / "secret.bin").write_bytes((apart.parent / "weights.bin").read_bytes())
    edit(apart, key, value)
    with pytest.raises(ModelError, match=rf"model\.onnx: tensor 'weight' .*{expected}") as found:
        model_file.load(apart)
    assert "\n" not in str(found.value)
