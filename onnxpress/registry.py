"""Passes are found through the entry-point group `onnxpress.passes`, ours like anyone's."""

import ast
import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from onnxpress.errors import UsageError, nearest

if TYPE_CHECKING:
    from onnxpress.contract import Parameter, Pass

__all__ = ["Setting", "create", "describe", "load", "names", "nearest", "settings"]

GROUP = "onnxpress.passes"


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """A field of a pass: its name, type, default and help."""

    name: str
    type: type
    default: "Parameter"
    help: str


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """Names of the installed passes, sorted."""
    return sorted(_entry_points())


def describe(name: str) -> str:
    """The first line of a pass's module, read without importing the pass."""
    entry = _entry_points()[name]
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


def load(name: str) -> "type[Pass]":
    """The class of a pass.

    Raises:
        UsageError: no such pass is installed.
    """
    entries = _entry_points()
    if name not in entries:
        raise UsageError(
            f"there is no pass {name!r}{nearest(name, list(entries))} "
            f"(installed: {', '.join(sorted(entries))})"
        )
    found: type[Pass] = entries[name].load()
    return found


def settings(pass_class: "type[Pass]") -> list[Setting]:
    """The options of a pass, in order."""
    hints = get_type_hints(pass_class)
    return [
        Setting(field.name, hints[field.name], field.default, field.metadata.get("help", ""))
        for field in dataclasses.fields(pass_class)
        if field.default is not dataclasses.MISSING
    ]


def create(name: str, options: "Mapping[str, Parameter] | None" = None) -> "Pass":
    """A pass with the given settings.

    Raises:
        UsageError: an unknown pass or setting, or a value of the wrong type or range.
    """
    pass_class = load(name)
    known = {setting.name: setting for setting in settings(pass_class)}
    values: dict[str, Parameter] = {}
    for key, value in (options or {}).items():
        if key not in known:
            raise UsageError(
                f"pass {name!r} has no setting {key!r}{nearest(key, list(known))} "
                f"(it has: {', '.join(known) or 'none'})"
            )
        wanted = known[key].type
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # noqa: PLW2901 - TOML writes 1 for 1.0
        if type(value) is not wanted:
            raise UsageError(
                f"pass {name!r}: {key} is {value!r}, a {type(value).__name__}; expected "
                f"{wanted.__name__}"
            )
        values[key] = value
    return pass_class(**values)
