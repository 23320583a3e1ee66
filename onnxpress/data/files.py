"""Files of a folder as samples: which, in what order, and the classes that subfolders stand for."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from onnxpress.data.checks import from_feeds
from onnxpress.data.samples import LABELS, Samples
from onnxpress.errors import DataError, nearest, nearest_file
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = ["MOST", "Listing", "Row", "assembled", "has_files", "listed", "readable", "spread"]

MOST = 1024
"""Samples of a folder: all are held in memory, and more change no statistic that is taken."""

T = TypeVar("T")

_DAMAGED = "D008"
_LOOKED_AT = 4096
"""Entries of a folder, to tell what it holds."""

Row = tuple[Feed, int | None]
"""What one file or line feeds, with a batch of 1, and its class."""


@dataclass(frozen=True)
class Listing:
    """Files to be read.

    Attributes:
        files: in order.
        labels: the class of each, where subfolders stand for classes.
        notes: what was assumed, in sentences.
        classes: names of subfolders in the order of the classes, where that is not by number.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    notes: tuple[str, ...]
    classes: tuple[str, ...] = ()


def has_files(path: Path | None, suffixes: Collection[str]) -> bool:
    """Whether a path is such a file, or a folder with such files or subfolders of them."""
    if path is None:
        return False
    if path.is_file():
        return path.suffix.lower() in suffixes
    return path.is_dir() and next(_entries(path, suffixes, _LOOKED_AT), None) is not None


def _entries(folder: Path, suffixes: Collection[str], most: int) -> Iterator[Path]:
    looked = 0
    for entry in folder.iterdir():
        inside = entry.iterdir() if entry.is_dir() and not _hidden(entry) else (entry,)
        for file in inside:
            looked += 1
            if looked > most:
                return
            if file.suffix.lower() in suffixes and not _hidden(file) and file.is_file():
                yield file


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__"))


def listed(
    path: Path,
    suffixes: Collection[str],
    what: str,
    most: int,
    classes: Sequence[str] = (),
    *,
    labelled: bool = True,
) -> Listing:
    """The files of a folder, sorted, evenly thinned out to `most`.

    Where all of them lie in two or more subfolders, each of these is a class: numbered by
    `classes`, by their names where these are whole numbers, else in alphabetical order.

    Args:
        path: a folder, or one such file.
        suffixes: that count, in lower case.
        what: they are, for messages.
        most: files that are taken.
        classes: names of subfolders in the order of the model's classes.
        labelled: whether subfolders are classes at all.

    Raises:
        DataError: no such file, or a subfolder that is no class.
    """
    if not path.exists():
        near = nearest_file(path) or f"; expected {what}"
        raise DataError(f"{path}: there is no such file or folder{near} [D001]")
    if path.is_file():
        return Listing((path,), None, ())
    every = 1 << 62
    files = sorted(_entries(path, suffixes, every))
    if not files:
        kinds = ", ".join(sorted(suffixes))
        raise DataError(
            f"{path}: holds no {what} ({kinds}), neither itself nor in a subfolder [D005]"
        )
    notes = []
    folders = sorted({file.parent for file in files})
    labels = None
    names: tuple[str, ...] = ()
    if labelled and (classes or (path not in folders and len(folders) > 1)):
        numbers = _numbers(path, [folder.name for folder in folders], classes)
        if not all(name.isdecimal() for name in numbers):
            names = tuple(classes) or tuple(numbers)
        labels = [numbers[file.parent.name] for file in files]
        shown = [f"{name} = {number}" for name, number in list(numbers.items())[:3]]
        notes.append(
            f"{path}: its {len(folders)} subfolders are taken for classes: {', '.join(shown)}"
            + (", …" if len(folders) > len(shown) else "")
        )
    taken = spread(len(files), most)
    if len(taken) < len(files):
        notes.append(f"{path}: {len(taken):,} of {len(files):,} files are read, evenly spread")
    return Listing(
        tuple(files[i] for i in taken),
        None if labels is None else tuple(labels[i] for i in taken),
        tuple(notes),
        names,
    )


def _numbers(path: Path, names: Sequence[str], classes: Sequence[str]) -> Mapping[str, int]:
    if classes:
        for name in names:
            if name not in classes:
                near = nearest(name, classes)
                raise DataError(
                    f"{path}: the subfolder {name!r} is none of the classes{near} "
                    f"(there are {len(classes)}: {', '.join(list(classes)[:5])}, …) [D006]"
                )
        return {name: classes.index(name) for name in names}
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(names)}


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` indices, evenly spread, the first among them."""
    if count <= most:
        return list(range(count))
    return [position * count // most for position in range(most)]


def readable(
    found: Listing, read: Callable[[Path], T], notes: list[str]
) -> Iterator[tuple[T, int | None]]:
    """What is in each file, with its class; damaged files are left out where others are not.

    Args:
        found: the files.
        read: what one holds; raises `DataError`.
        notes: gets a sentence with the first damaged file, when all have been read.

    Raises:
        DataError: all files are damaged, or `read` says something else.
    """
    damaged: list[DataError] = []
    for number, file in enumerate(found.files):
        try:
            content = read(file)
        except DataError as error:
            if error.code != _DAMAGED:
                raise
            damaged.append(error)
            continue
        yield content, None if found.labels is None else found.labels[number]
    if damaged and len(damaged) == len(found.files):
        raise damaged[0]
    if damaged:
        count = f"{len(damaged):,} of {len(found.files):,} files"
        notes.append(f"{count} cannot be read and are left out, the first: {damaged[0]}")


def assembled(
    rows: Iterable[Row],
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
    source: str,
    notes: Sequence[str] = (),
) -> Samples:
    """Samples from one row each, as many rows to a sample as the model's batch is fixed to.

    Args:
        rows: what each feeds, with a batch of 1, and its class.
        inputs: the model's inputs.
        constants: what every sample feeds to other inputs.
        source: for messages.
        notes: what was assumed.

    Raises:
        DataError: a sample does not fit the inputs, or there is none.
    """
    batch = _batch(inputs, constants)
    feeds: list[Feed] = []
    gathered: list[Row] = []
    left = 0
    for row in rows:
        gathered.append(row)
        left = len(gathered) % batch
        if left == 0:
            feeds.append({**_joined(gathered), **constants})
            gathered = []
    said = list(notes)
    if left:
        said.append(f"{source}: the last {left} are left out: the model takes {batch} at a time")
    return replace(from_feeds(feeds, inputs, source), notes=tuple(said))


def _batch(inputs: Sequence[InputSpec], constants: Mapping[str, Array]) -> int:
    firsts = {s.shape[0] for s in inputs if s.name not in constants and len(s.shape) > 1}
    fixed = [size for size in firsts if isinstance(size, int) and size > 0]
    return max(fixed, default=1)


def _joined(rows: Sequence[Row]) -> dict[str, Array]:
    feeds = [feed for feed, _ in rows]
    labels = [label for _, label in rows if label is not None]
    alone = len(rows) == 1
    joined: dict[str, Array] = {
        name: array if alone else np.concatenate([feed[name] for feed in feeds])
        for name, array in feeds[0].items()
    }
    if labels:
        joined[LABELS] = np.array(labels, np.int64)
    return joined
