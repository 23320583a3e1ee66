"""An error planted at one node is found there: 26 kinds, in original and optimized models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from hunt import Found, hunt, kinds_of
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from planted import KINDS

from onnxpress import model_file
from onnxpress.difference.tensors import prepared
from onnxpress.runtime import Array

FASHION = ("fashion_cnn", "fashion_mlp", "fashion_mobile")
PUBLIC = ("magika", "minilm", "ocr_cls", "ocr_det", "silero_vad")
HIDDEN = {"weight in float16"}
"""Less than what 8-bit weights cost everywhere."""


def images(models: Path, number: int) -> Array:
    with np.load(models / "fashion_evaluation.npz") as archive:
        return np.asarray(archive["image"][:number])


def simplified(path: Path, models: Path, folder: Path) -> Path:
    output = folder / "simplified.onnx"
    assert run("simplify", path, "-o", output).exit_code == 0
    return output


class Images(CalibrationDataReader):  # type: ignore[misc]
    """What onnxruntime's quantizer takes."""

    def __init__(self, array: Array) -> None:
        self._feeds = iter([{"image": row[np.newaxis]} for row in array])

    def get_next(self) -> dict[str, Array] | None:
        """One image after the other."""
        return next(self._feeds, None)


def quantized(path: Path, models: Path, folder: Path) -> Path:
    """By onnxruntime's own quantizer, from the simplified model."""
    output = folder / "quantized.onnx"
    before = simplified(path, models, folder)
    quantize_static(before, output, Images(images(models, 32)))
    return output


def assert_all_found(found: Iterator[Found], *, first: bool) -> list[str]:
    results = list(found)
    missed = [one for one in results if one.rank != 1 or (first and not one.first)]
    assert not missed
    return [one.kind for one in results]


def test_the_committed_models_have_sites_for_twenty_kinds(models: Path) -> None:
    loaded = [prepared(model_file.load(models / f"{name}.onnx"), name) for name in FASHION]
    assert len({kind for model in loaded for kind in kinds_of(model)}) >= 20


@pytest.mark.parametrize("name", FASHION)
def test_one_error_is_found_at_its_node_and_nothing_else_is_blamed(
    models: Path, tmp_path: Path, name: str
) -> None:
    path = models / f"{name}.onnx"
    kinds = (
        "weight scaled",
        "bias removed",
        "activation removed",
        "axes swapped",
    )
    found = list(hunt(path, path, {"image": images(models, 2)}, tmp_path, kinds, samples=2))
    assert found
    assert all(one.rank == one.parted == 1 and one.first for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", FASHION)
@pytest.mark.parametrize("form", [simplified, None], ids=["simplified", "original"])
def test_every_kind_is_found_first_and_worst(
    models: Path,
    tmp_path: Path,
    name: str,
    form: Callable[[Path, Path, Path], Path] | None,
) -> None:
    path = models / f"{name}.onnx"
    base = path if form is None else form(path, models, tmp_path)
    kinds = assert_all_found(hunt(path, base, {"image": images(models, 4)}, tmp_path), first=True)
    assert len(kinds) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", FASHION)
def test_every_kind_is_the_worst_among_the_errors_of_quantizing(
    models: Path, tmp_path: Path, name: str
) -> None:
    path = models / f"{name}.onnx"
    base = quantized(path, models, tmp_path)
    kinds = [kind for kind in KINDS if kind not in HIDDEN]
    assert_all_found(hunt(path, base, {"image": images(models, 4)}, tmp_path, kinds), first=False)


@pytest.mark.public
@pytest.mark.parametrize("name", PUBLIC)
def test_every_kind_is_found_first_and_worst_in_a_public_model(
    models: Path, tmp_path: Path, name: str
) -> None:
    folder = models / ".cache" / name
    path = folder / "model.onnx"
    if not (folder / "evaluation.npz").exists():
        pytest.skip("run models/fetch.py and models/make_data.py first")
    with np.load(folder / "evaluation.npz") as archive:
        data = {key: archive[key][:4] for key in archive if key != "__labels__"}
    assert_all_found(hunt(path, path, data, tmp_path), first=True)
