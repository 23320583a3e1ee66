"""TOML of any origin, and where in a text an entry stands, which Python's reader does not tell.

A scan by lines: headers of tables and beginnings of entries. Inside texts of several lines it may
take a line for an entry; what is found first counts.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

__all__ = ["Place", "home_expanded", "places_of", "read_toml"]

Place = tuple[str | int, ...]
_ENTRY = re.compile(r"""\s*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')\s*=""")


def home_expanded(path: str | Path) -> Path:
    """A path with `~` as the user's folder; as it is where nobody knows that folder.

    `Path.expanduser` raises there, as for a user id without an entry in a container.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - see above


def read_toml(text: str) -> dict[str, Any]:
    """What a text says.

    Raises:
        tomllib.TOMLDecodeError: it is not TOML, or nested so deeply or with numbers so long that
            Python does not read it.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from None
    except ValueError as error:
        # Python reads no whole number of more than 4,300 digits.
        raise tomllib.TOMLDecodeError(str(error)) from error


def places_of(text: str) -> dict[Place, int]:
    """Line numbers, from 1, of tables and entries.

    An array of tables has the number of its element, from 0, in the place:
    `("pass", 0, "decision", 2, "site")`.
    """
    found: dict[Place, int] = {(): 1}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            names = _header(line)
            if names is not None:
                table = _resolved(names, counts, element=line.lstrip().startswith("[["))
                found.setdefault(table, number)
            continue
        entry = _ENTRY.match(line)
        if entry is not None:
            name = entry[1].strip("\"'")
            found.setdefault((*table, name), number)
    return found


def _header(line: str) -> list[str] | None:
    """The dotted names of a table's header, or `None` where it is none."""
    try:
        found: Any = read_toml(line)
    except tomllib.TOMLDecodeError:
        return None
    names = []
    while found:
        if isinstance(found, list):
            found = found[0]
            continue
        name, found = next(iter(found.items()))
        names.append(name)
    return names


def _resolved(names: list[str], counts: dict[Place, int], *, element: bool) -> Place:
    """The place of a table, with the numbers of the arrays' elements that it lies in."""
    place: Place = ()
    for position, name in enumerate(names):
        place = (*place, name)
        last = position == len(names) - 1
        if last and element:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place
