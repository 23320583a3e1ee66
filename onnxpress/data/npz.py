"""Samples from a `.npz` file: an array per input, optionally `__labels__` and `__groups__`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxpress.data.checks import from_arrays
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, nearest_file
from onnxpress.runtime import InputSpec

__all__ = ["READER"]


_ANY_BYTES = 1_000_000_000
_MOST_RATIO = 100
"""Of unpacked to packed: zlib does not go beyond 1,030, and numbers seldom beyond 10."""


def _accepts(data: object) -> bool:
    path = path_of(data)
    return path is not None and (path.suffix == ".npz" or _is_archive_of_arrays(path))


def _is_archive_of_arrays(path: Path) -> bool:
    """Whether a file of any name is what numpy.savez writes."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return all(name.endswith(".npy") for name in names)


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    path = Path(data)
    if not path.exists():
        raise DataError(
            f"{path}: there is no such file{nearest_file(path)}; expected a .npz with one "
            "array per input [D001]"
        )
    try:
        _require_plausible(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path}: is not a complete .npz file ({error}); write it again [D008]"
        ) from error
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise DataError(_unreadable(path, error)) from error
        raise DataError(
            f"{path}: holds an array of Python objects, as numpy saves rows of different lengths; "
            "such files are not read, because they can run code; give module:function that yields "
            "a dictionary of arrays per sample, or a folder of ONNX test_data_set_* [D009]"
        ) from error
    except (OSError, EOFError, AttributeError, TypeError, MemoryError) as error:
        raise DataError(_unreadable(path, error)) from error
    return from_arrays(arrays, inputs, str(path))


def _require_plausible(path: Path) -> None:
    """Refuse a small file that unpacks to gigabytes: samples do not compress like that."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    packed = path.stat().st_size
    if unpacked > max(_ANY_BYTES, _MOST_RATIO * packed):
        raise DataError(
            f"{path}: its {packed:,} bytes would unpack to {unpacked:,}; expected samples; write "
            "them with numpy.savez if they are meant to hold so many equal values [D008]"
        )


def _unreadable(path: Path, error: Exception) -> str:
    # What is neither an archive nor an array NumPy takes for a pickle, which it offers to run.
    if isinstance(error, ValueError) and "pickle" in str(error):
        return (
            f"{path}: is no zip archive of arrays, as numpy.savez_compressed writes, but something "
            "else (text, a pickle, the pointer of a file that was not fetched) [D008]"
        )
    return (
        f"{path}: cannot be read as a .npz file of arrays ({error}); write it with "
        "numpy.savez_compressed [D008]"
    )


READER = Reader("a .npz with an array per input", _accepts, _read)
