"""Entries of a recipe, read by name and type; what does not fit is told with its line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from onnxpress.errors import RecipeError, nearest
from onnxpress.toml_places import Place

__all__ = ["Entries"]

T = TypeVar("T", str, int, bool)

_REQUIRED = object()
_NOUNS = {str: "text", int: "a whole number", bool: "true or false", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Entries:
    """A table of a recipe.

    Attributes:
        table_itself: as TOML gave it.
        source: what messages call the file.
        places: lines of all entries of the file.
        place: of this table.
    """

    table_itself: Mapping[str, Any]
    source: str
    places: Mapping[Place, int]
    place: Place = ()

    def error(self, key: str, problem: str) -> RecipeError:
        """An error with the file, the line of a key, or of its table, and the table's name."""
        words = [
            str(part) if isinstance(part, str) else f"number {part + 1}" for part in self.place
        ]
        inside = f" {' '.join(words)}:" if words else ""
        return RecipeError(f"{self.where(key)}:{inside} {problem} [R004]")

    def where(self, key: str) -> str:
        """The file and the line of a key, or of its first part or this table where it has none."""
        place = (*self.place, key)
        below = (line for at, line in self.places.items() if at[: len(place)] == place)
        line = min(below, default=self.places.get(self.place))
        return self.source if line is None else f"{self.source}, line {line}"

    def known(self, keys: tuple[str, ...]) -> None:
        """Refuse other keys.

        Raises:
            RecipeError: there are some.
        """
        for key in self.table_itself:
            if key not in keys:
                raise self.error(
                    key,
                    f"unknown entry {key!r}{nearest(key, list(keys))} (there are: "
                    f"{', '.join(keys)})",
                )

    @overload
    def value(self, key: str, kind: type[T]) -> T: ...
    @overload
    def value(self, key: str, kind: type[T], default: T) -> T: ...
    @overload
    def value(self, key: str, kind: type[T], default: None) -> T | None: ...

    def value(self, key: str, kind: type[T], default: Any = _REQUIRED) -> Any:
        """A text, number or truth value.

        Raises:
            RecipeError: it is of another type, or missing without a default.
        """
        if key not in self.table_itself:
            if default is _REQUIRED:
                raise self.error("", f"{key} is missing; expected {_NOUNS[kind]}")
            return default
        found = self.table_itself[key]
        if type(found) is not kind:
            raise self.error(key, f"{key} is {found!r}; expected {_NOUNS[kind]}")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty where there is none.

        Raises:
            RecipeError: it is something else.
        """
        found = self.table_itself.get(key, [])
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise self.error(key, f"{key} is {found!r}; expected a list of texts")
        return tuple(found)

    def table(self, key: str) -> "Entries | None":
        """A table inside, or `None`.

        Raises:
            RecipeError: it is something else.
        """
        if key not in self.table_itself:
            return None
        found = self.table_itself[key]
        if not isinstance(found, dict):
            raise self.error(key, f"{key} is {found!r}; expected a table")
        return Entries(found, self.source, self.places, (*self.place, key))

    def tables(self, key: str) -> list["Entries"]:
        """An array of tables, empty where there is none.

        Raises:
            RecipeError: it is something else.
        """
        found = self.table_itself.get(key, [])
        if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            raise self.error(key, f"{key} is {found!r}; expected tables, [[{key}]]")
        return [
            Entries(table, self.source, self.places, (*self.place, key, number))
            for number, table in enumerate(found)
        ]

    def layers(self) -> Mapping[str, Mapping[str, Any]]:
        """`[layers."PATTERN"]`: a table of tables.

        Raises:
            RecipeError: it is something else.
        """
        table = self.table("layers")
        if table is None:
            return {}
        return {
            pattern: entry.table_itself
            for pattern in table.table_itself
            if (entry := table.table(pattern)) is not None
        }
