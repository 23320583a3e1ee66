"""Samples from a description: a TOML file that says which files are fed, and how prepared.

    [images]
    path = "photos"
    size = [224, 224]
    mean = [0.485, 0.456, 0.406]
    deviation = [0.229, 0.224, 0.225]

    [constants]
    scale_factor = [[1.0, 1.0]]

One of the tables `[images]`, `[texts]`, `[sounds]` and `[table]`; paths are relative to the file.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from onnxpress.data import images, sounds, tables, texts
from onnxpress.data.images import read_images, said_by_processor
from onnxpress.data.pictures import Pictures
from onnxpress.data.preparation import CONSTANTS, filled
from onnxpress.data.reader import Data, Reader, load_samples, path_of
from onnxpress.data.samples import Samples
from onnxpress.data.sounds import Sounds, heard_by_extractor, read_sounds
from onnxpress.data.tables import Table, read_table
from onnxpress.data.texts import Texts, read_texts
from onnxpress.errors import DataError, UsageError, nearest
from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import checked
from onnxpress.toml_places import read_toml

__all__ = ["READER", "check_preparation", "load_prepared"]

T = TypeVar("T", Pictures, Texts, Sounds, Table)

_Read = Callable[[Path, Mapping[str, Any], Sequence[InputSpec], Mapping[str, Array]], Samples]


def _accepts(data: object) -> bool:
    path = path_of(data)
    return path is not None and path.suffix.lower() == ".toml"


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    file = Path(data)
    try:
        said = read_toml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read as a description of samples ({error}) [D010]"
        ) from error
    known = (*_KINDS, CONSTANTS)
    for name in said:
        if name not in known:
            raise DataError(
                f"{file}: there is no table [{name}] for samples{nearest(name, known)} "
                f"(there are: {', '.join(f'[{one}]' for one in known)}) [D010]"
            )
    kinds = [name for name in said if name in _KINDS]
    if len(kinds) != 1 or not isinstance(said[kinds[0]], dict):
        raise DataError(
            f"{file}: describes {', '.join(kinds) or 'nothing'}; expected one of the tables "
            f"{', '.join(f'[{one}]' for one in _KINDS)} [D010]"
        )
    table = dict(said[kinds[0]])
    place = table.pop("path", None)
    if not isinstance(place, str):
        raise DataError(
            f"{file}: [{kinds[0]}] has no path; expected that of a file or folder [D010]"
        )
    constants = _constants(said.get(CONSTANTS, {}), inputs, file)
    try:
        samples = _KINDS[kinds[0]](file.parent / place, _rooted(table, file), inputs, constants)
    except UsageError as error:
        raise DataError(f"{file}: {error} [D010]") from error
    return replace(samples, source=str(file))


def _rooted(table: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Settings whose files are found from the description."""
    return {
        name: str(file.parent / value) if name in ("tokenizer", "preprocessor") else value
        for name, value in table.items()
    }


def _prepared(
    name: str,
    settings: type[T],
    read: Callable[[Path, T, Sequence[InputSpec], Mapping[str, Array]], Samples],
    said_in: Callable[[Path], T] | None = None,
) -> _Read:
    """A reader of files with its settings, from a table of that name.

    Args:
        name: of the table.
        settings: their class.
        read: what reads the files.
        said_in: settings that a file of the transformers library states, which the table may name.
    """

    def described(
        path: Path,
        table: Mapping[str, Any],
        inputs: Sequence[InputSpec],
        constants: Mapping[str, Array],
    ) -> Samples:
        own = dict(table)
        file = None if said_in is None else own.pop("preprocessor", None)
        chosen = checked(settings, name, own, kind="table")
        if said_in is None or file is None:
            return read(path, settings(**chosen), inputs, constants)
        return read(path, replace(said_in(Path(file)), **chosen), inputs, constants)

    return described


_KINDS: dict[str, _Read] = {
    "images": _prepared("images", Pictures, read_images, lambda file: said_by_processor(file)[0]),
    "texts": _prepared("texts", Texts, read_texts),
    "sounds": _prepared(
        "sounds", Sounds, read_sounds, lambda file: heard_by_extractor(file) or Sounds()
    ),
    "table": _prepared("table", Table, read_table),
}


_READERS = {
    "images": images.READER,
    "texts": texts.READER,
    "sounds": sounds.READER,
    "table": tables.READER,
}
_SETTINGS = {"images": Pictures, "texts": Texts, "sounds": Sounds, "table": Table}


def load_prepared(
    data: Data, inputs: Sequence[InputSpec], preparation: Mapping[str, Any], *, named_in: str = ""
) -> Samples:
    """As `load_samples`, where files are prepared as others were (`Samples.preparation`).

    Files of another kind, and a description, which says its own, are read as ever. Subfolders are
    not taken for classes where none has the name of one.

    Args:
        data: of any kind.
        inputs: of the model.
        preparation: of earlier samples; empty: there is none.
        named_in: the file that names the data, where the user did not.

    Raises:
        DataError: missing, unreadable, empty, or not what the model takes.
    """
    path = path_of(data)
    kind = next((name for name in preparation if name in _KINDS), None)
    if path is None or kind is None or _accepts(path) or not _READERS[kind].accepts(path):
        return load_samples(data, inputs, named_in=named_in)
    table = dict(preparation[kind])
    classes = table.get("classes", ())
    if classes and not any((path / name).is_dir() for name in classes):
        del table["classes"]
    constants = _constants(preparation.get(CONSTANTS, {}), inputs, Path(named_in or "the recipe"))
    try:
        samples = _KINDS[kind](path, table, inputs, constants)
    except UsageError as error:
        if "[U007]" in str(error):
            raise
        raise DataError(f"{path}: prepared as the recipe says: {error} [D010]") from error
    said = f"{path}: prepared as the recipe says, [preprocessing.{kind}]"
    return replace(samples, notes=(said, *samples.notes))


def check_preparation(preparation: Mapping[str, Any]) -> None:
    """Refuse what no samples were ever prepared by.

    Raises:
        UsageError: an unknown table or setting, or not one kind of files.
    """
    known = (*_KINDS, CONSTANTS)
    for name, table in preparation.items():
        if name not in known or not isinstance(table, Mapping):
            raise UsageError(
                f"{name!r} is no table of preprocessing{nearest(name, known)}; expected "
                f"{', '.join(known)} [R004]"
            )
    kinds = [name for name in preparation if name in _KINDS]
    if len(kinds) != 1:
        raise UsageError(
            f"preprocessing of {', '.join(kinds) or 'nothing'}; expected one of "
            f"{', '.join(_KINDS)} [R004]"
        )
    settings = _SETTINGS[kinds[0]]
    settings(**checked(settings, kinds[0], preparation[kinds[0]], kind="table"))


def _constants(said: object, inputs: Sequence[InputSpec], file: Path) -> dict[str, Array]:
    """What inputs are fed at every run; a number fills the whole of an input."""
    if not isinstance(said, dict):
        raise DataError(
            f"{file}: [constants] is no table; expected values by names of inputs [D010]"
        )
    specs = {spec.name: spec for spec in inputs}
    found: dict[str, Array] = {}
    for name, value in said.items():
        if name not in specs:
            raise DataError(
                f"{file}: [constants] feeds {name!r}, which is no input of the model"
                f"{nearest(name, list(specs))} (it has: {', '.join(specs)}) [D010]"
            )
        spec = specs[name]
        try:
            array = filled(value, spec)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: [constants] {name} cannot be {spec} ({error}) [D010]"
            ) from error
        found[name] = array
    return found


READER = Reader("a .toml that says how files are prepared", _accepts, _read)
