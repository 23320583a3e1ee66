"""Readers of samples: which of the installed ones takes what the user gave, and reads it."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress import entry_points
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, UsageError, nearest_file
from onnxpress.foreign import what_it_is
from onnxpress.runtime import Array, InputSpec

__all__ = ["GROUP", "Data", "Reader", "load_samples", "path_of"]

GROUP = "onnxpress.data"

Data = str | Path | Mapping[str, Array] | Samples | Iterable[Any]
"""What samples are given as: a file, folder or function by name, arrays, an iterable of samples."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one kind of data; the name of its entry point is its own.

    Attributes:
        describes: the kind of data in a few words, for messages: "a .npz file with …".
        accepts: whether this is such data; looks no further than it has to, and data that is
            recognised but broken or missing is accepted, so that `read` can say what is wrong.
        read: the samples, checked by `from_arrays` or `from_feeds`; raises `DataError`.
        before: names of readers that would accept some of the same data and give way.
        runs_code: whether reading runs code that the data names; such data is read only where the
            user gave it, never because a file names it.
    """

    describes: str
    accepts: Callable[[object], bool]
    read: Callable[[Any, Sequence[InputSpec]], Samples]
    before: tuple[str, ...] = ()
    runs_code: bool = False


def path_of(data: object) -> Path | None:
    """Text or a path as a path, anything else as `None`."""
    return Path(data) if isinstance(data, str | os.PathLike) else None


def load_samples(
    data: Data,
    inputs: Sequence[InputSpec],
    *,
    named_in: str = "",
) -> Samples:
    """Read samples and check them against the model's inputs.

    Args:
        data: a `.npz` file (an array per input, optionally `__labels__` and `__groups__`), a
            folder of ONNX `test_data_set_*` folders (or one of them), `module:function` yielding
            dictionaries, a dictionary of arrays, an iterable of samples or batches (`items`), or
            what another installed reader takes.
        inputs: the model's inputs.
        named_in: the file that names the data, where the user did not; then no code is run.

    Raises:
        DataError: missing, unreadable, empty, or not what the model takes.
        UsageError: readers contradict each other.
    """
    if isinstance(data, Samples):
        return data
    readers = entry_points.loaded(GROUP, Reader)
    accepting = {name: reader for name, reader in readers.items() if reader.accepts(data)}
    if not accepting:
        raise DataError(_refusal(data, readers))
    giving_way = {name for reader in accepting.values() for name in reader.before}
    chosen = [reader for name, reader in accepting.items() if name not in giving_way]
    if len(chosen) != 1:
        raise UsageError(
            f"{data}: the readers {', '.join(accepting)} all accept it and none declares that it "
            "comes before the others; uninstall the packages of all but one [U012]"
        )
    if named_in and chosen[0].runs_code:
        raise DataError(
            f"{named_in}: its samples come from code, {data}, and a file never runs code; if you "
            f"trust that code, give it yourself with --calibration {data} [D014]"
        )
    return chosen[0].read(data, inputs)


def _refusal(data: object, readers: Mapping[str, Reader]) -> str:
    kinds = f"expected one of: {'; '.join(one.describes for one in readers.values())} [D001]"
    path = path_of(data)
    if path is None:
        return f"samples of type {type(data).__name__} are read by no installed reader; {kinds}"
    if not path.exists():
        near = nearest_file(path)
        found = f"{data}: there is no such file or folder{near}"
        return f"{found} [D001]" if near else f"{found}; {kinds}"
    if path.is_dir():
        if not any(path.iterdir()):
            return f"{data}: the folder is empty; {kinds}"
        return f"{data}: no installed reader takes what this folder holds; {kinds}"
    known = "an ONNX model" if path.suffix.lower() == ".onnx" else what_it_is(path)
    found = f"is {known}" if known else "is of a kind that no installed reader takes"
    return f"{data}: {found}; {kinds}"
