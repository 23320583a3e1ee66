"""Samples, recipes and targets for a model that is all right."""

import io
import zipfile
from pathlib import Path

import numpy as np

from hostile.building import Kind, collecting

__all__ = ["RECIPES", "SAMPLES"]

SAMPLES: dict[str, Kind] = {}
RECIPES: dict[str, Kind] = {}
_samples = collecting(SAMPLES)
_recipe = collecting(RECIPES)


def _header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _archive(folder: Path, content: bytes, name: str = "x.npy") -> Path:
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def _array(array: np.ndarray, folder: Path, name: str = "x") -> Path:
    np.savez(folder / "data.npz", **{name: array})  # type: ignore[arg-type]
    return folder / "data.npz"


@_samples
def samples_of_objects(folder: Path) -> Path:
    return _array(np.array([{"x": 1}, None], object), folder)


@_samples
def samples_that_unpack_to_a_gigabyte(folder: Path) -> Path:
    path = folder / "data.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(_header("(37500000, 8)"))
        zeros = bytes(10_000_000)
        for _ in range(120):
            stream.write(zeros)
    return path


@_samples
def samples_that_say_they_are_huge(folder: Path) -> Path:
    return _archive(folder, _header("(9223372036854775807, 8)"))


@_samples
def samples_of_negative_shape(folder: Path) -> Path:
    return _archive(folder, _header("(-4, 8)") + bytes(128))


@_samples
def samples_whose_header_is_code(folder: Path) -> Path:
    return _archive(folder, _header("__import__('os').abort()"))


@_samples
def samples_under_another_name(folder: Path) -> Path:
    return _array(np.zeros((4, 8), np.float32), folder, "z\x1b[2J")


@_samples
def samples_under_a_path(folder: Path) -> Path:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 8), np.float32))
    return _archive(folder, stream.getvalue(), "../../x.npy")


@_samples
def samples_of_not_a_number(folder: Path) -> Path:
    return _array(np.full((4, 8), np.nan, np.float32), folder)


@_samples
def samples_cut_off(folder: Path) -> Path:
    path = _array(np.zeros((4, 8), np.float32), folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


@_samples
def samples_in_a_folder_of_that_name(folder: Path) -> Path:
    (folder / "data.npz").mkdir()
    return folder / "data.npz"


def _text(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@_recipe
def recipe_nested_100000_deep(folder: Path) -> Path:
    return _text(folder, "version = 2\nx = " + "[" * 100_000 + "]" * 100_000)


@_recipe
def recipe_with_a_table_20000_deep(folder: Path) -> Path:
    return _text(folder, "version = 2\n[" + ".".join(["a"] * 20_000) + "]\n")


@_recipe
def recipe_with_a_number_of_10000_digits(folder: Path) -> Path:
    return _text(folder, "version = 2\nseed = " + "9" * 10_000)


@_recipe
def recipe_with_a_seed_below_zero(folder: Path) -> Path:
    return _text(folder, 'version = 2\nseed = -5\n[[pass]]\nname = "quantize"\n')


@_recipe
def recipe_with_a_huge_seed(folder: Path) -> Path:
    return _text(folder, f'version = 2\nseed = {10**30}\n[[pass]]\nname = "sparsify"\n')


@_recipe
def recipe_that_names_code(folder: Path) -> Path:
    lines = 'version = 2\n[calibration]\nsource = "evil:go"\ndigest = ""\nheld_out = false\n'
    return _text(folder, lines)


@_recipe
def recipe_of_other_letters(folder: Path) -> Path:
    return _text(folder, b"version = 2\n\xff\xfe\x00")


@_recipe
def recipe_with_a_huge_rank(folder: Path) -> Path:
    lines = (
        'version = 2\n[[pass]]\nname = "factorize"\n[[pass.decision]]\nsite = "w"\n'
        f'family = "low-rank"\nrank = {10**18}\n'
    )
    return _text(folder, lines)
