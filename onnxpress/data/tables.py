"""Samples from a table in a CSV file, a row each."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from onnxpress.data.files import MOST, Row, assembled, spread
from onnxpress.data.preparation import preparation_of
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, nearest
from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import setting, validate

__all__ = ["READER", "Table", "read_table"]

_SUFFIXES = (".csv", ".tsv")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?"))
_SNIFFED = 16_384


@dataclass(frozen=True)
class Table:
    """How a table is prepared: the table `[table]` of a description.

    Raises:
        UsageError: a setting has the wrong type.
    """

    columns: tuple[str, ...] = setting(
        (), "Fed in this order; without: all but the label, in the order of the file."
    )
    label: str = setting("label", "The column of the class, a whole number; it may be missing.")
    most: Annotated[int, Gt(0)] = setting(MOST, "Rows that are read, evenly spread.")

    def __post_init__(self) -> None:
        validate(self, "[table]")


@dataclass(frozen=True)
class _Cells:
    """What stands in a file.

    Attributes:
        names: of the columns; `None`: it has no line of headings.
        rows: of text.
    """

    names: tuple[str, ...] | None
    rows: list[list[str]]


def _accepts(data: object) -> bool:
    path = path_of(data)
    return path is not None and path.suffix.lower() in _SUFFIXES


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    return read_table(Path(data), None, inputs, {})


def read_table(
    path: Path,
    how: Table | None,
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
) -> Samples:
    """Samples of the rows of a CSV file.

    An input of its own for each column goes by names; else one input takes all columns.

    Args:
        path: of the file.
        how: it is prepared; `None`: by the defaults.
        inputs: of the model.
        constants: what its other inputs are fed.

    Raises:
        DataError: it cannot be read, or its columns do not fit the inputs.
    """
    how = how or Table()
    cells = _cells(path)
    taken = spread(len(cells.rows), how.most)
    notes = []
    if len(taken) < len(cells.rows):
        notes.append(f"{path}: {len(taken):,} of {len(cells.rows):,} rows are read, evenly spread")
    specs = [spec for spec in inputs if spec.name not in constants]
    columns = _columns(cells, how, specs, path)
    if len(specs) == 1 and specs[0].name not in columns:
        fed = ", ".join(list(columns)[:4]) + (", …" if len(columns) > 4 else "")
        notes.append(f"{path}: {specs[0].name!r} is fed {len(columns)} columns: {fed}")
    rows = (_row(cells, index, columns, how, specs, path) for index in taken)
    samples = assembled(rows, inputs, constants, str(path), notes)
    return replace(samples, preparation=preparation_of("table", how, inputs, constants))


def _cells(path: Path) -> _Cells:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}) [D008]") from error
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:_SNIFFED], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel
    try:
        rows = [row for row in csv.reader(text.splitlines(), dialect) if row]
    except csv.Error as error:
        raise DataError(f"{path}: is no CSV table ({error}) [D008]") from error
    if not rows:
        raise DataError(
            f"{path}: holds no rows; expected a line of headings and a row a sample [D005]"
        )
    headed = not all(_is_number(cell) for cell in rows[0])
    names = tuple(name.strip() for name in rows.pop(0)) if headed else None
    if not rows:
        raise DataError(f"{path}: holds headings and no rows; expected a row a sample [D005]")
    wide = len(names) if names is not None else len(rows[0])
    for number, row in enumerate(rows, 2 if headed else 1):
        if len(row) != wide:
            raise DataError(f"{path}, row {number}: has {len(row)} cells; expected {wide} [D008]")
    return _Cells(names, rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in _MISSING
    return True


def _columns(cells: _Cells, how: Table, specs: Sequence[InputSpec], path: Path) -> dict[str, int]:
    """Which columns are fed, by name, in order."""
    names = cells.names
    if names is None:
        if how.columns:
            raise DataError(
                f"{path}: has no headings, and [table] names columns; add a first line [D010]"
            )
        return {str(place): place for place in range(len(cells.rows[0]))}
    places = {name: place for place, name in enumerate(names)}
    wanted = how.columns or tuple(name for name in names if name != how.label)
    if not how.columns and all(spec.name in places for spec in specs):
        wanted = tuple(spec.name for spec in specs)
    for name in wanted:
        if name not in places:
            raise DataError(
                f"{path}: has no column {name!r}{nearest(name, names)} (it has: "
                f"{', '.join(names)}) [D010]"
            )
    return {name: places[name] for name in wanted}


def _row(
    cells: _Cells,
    index: int,
    columns: Mapping[str, int],
    how: Table,
    specs: Sequence[InputSpec],
    path: Path,
) -> Row:
    row = cells.rows[index]
    label = None
    if cells.names is not None and how.label in cells.names:
        label = _class(row[cells.names.index(how.label)], how, path, index)
    if all(spec.name in columns for spec in specs):
        parts = {spec.name: (spec, [row[columns[spec.name]]]) for spec in specs}
    elif len(specs) == 1:
        parts = {specs[0].name: (specs[0], [row[place] for place in columns.values()])}
    else:
        wanted = "; ".join(str(spec) for spec in specs)
        raise DataError(
            f"{path}: has the columns {', '.join(columns)}; the model wants {wanted}, so expected "
            "a column of the name of each input [D002]"
        )
    return {name: _values(spec, found, path, index) for name, (spec, found) in parts.items()}, label


def _class(cell: str, how: Table, path: Path, index: int) -> int:
    try:
        return int(cell)
    except ValueError as error:
        raise DataError(
            f"{path}, sample {index}: {how.label!r} is {cell!r}; expected the number of a class, "
            "or name another column in a description: [table], label = … [D010]"
        ) from error


def _values(spec: InputSpec, found: Sequence[str], path: Path, index: int) -> Array:
    shape = (1, len(found)) if len(spec.shape) == 2 else (1,) * max(len(spec.shape), 1)
    if len(spec.shape) > 2 or (len(spec.shape) < 2 and len(found) > 1):
        raise DataError(f"{path}: a row is a line of numbers; the model wants {spec} [D013]")
    if spec.dtype == "object":
        return np.array(list(found), dtype=object).reshape(shape)
    try:
        numbers = [np.nan if cell.strip().lower() in _MISSING else float(cell) for cell in found]
        if spec.dtype.startswith("float"):
            return np.array(numbers, dtype=spec.dtype).reshape(shape)
        return np.array([int(number) for number in numbers], dtype=spec.dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path}, sample {index}: holds what is no {spec.dtype} ({error}); the model wants "
            f"{spec}; leave columns out in a description: [table], columns = […] [D010]"
        ) from error


READER = Reader("a .csv with a line of headings", _accepts, _read)
