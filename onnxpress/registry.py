"""Passes are found through the entry-point group `onnxpress.passes`, ours like anyone's.

Ours take part by default; those of other packages when they are named, or when a configuration
says so: `[passes] default = ["codebook"]` in `onnxpress.toml` here, else in
`~/.config/onnxpress/config.toml`.
"""

import contextlib
import importlib.metadata
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxpress.entry_points import first_line, installed, package_of
from onnxpress.errors import UsageError, nearest
from onnxpress.settings import checked
from onnxpress.toml_places import home_expanded, read_toml

if TYPE_CHECKING:
    from onnxpress.contract import Pass

__all__ = [
    "COMMANDS",
    "create",
    "default_names",
    "default_passes",
    "describe",
    "load",
    "lossy_names",
    "names",
]

GROUP = "onnxpress.passes"
OWN = "onnxpress"
COMMANDS = (
    "bench",
    "check",
    "data",
    "diff",
    "distill",
    "doctor",
    "explain",
    "inspect",
    "optimize",
    "passes",
    "targets",
    "validate",
    "view",
)
"""Of the command line, which has one more for every pass: no pass of others may take their names.

`distill` is both: the command trains any student, the pass what the passes before it left."""
_CONFIGURATIONS = (Path("onnxpress.toml"), Path("~/.config/onnxpress/config.toml"))


Entries = Mapping[str, importlib.metadata.EntryPoint]


def _entry_points() -> Entries:
    """Of every pass, by name.

    Raises:
        UsageError: two packages give a pass the same name, or one takes that of a command.
    """
    found = installed(GROUP)
    for name in COMMANDS:
        if name in found and package_of(found[name]) != OWN:
            raise UsageError(
                f"{package_of(found[name])} calls a pass {name!r}, which is a command of onnxpress;"
                " uninstall it, or ask its author for another name [U012]"
            )
    return found


def names() -> list[str]:
    """Names of the installed passes, sorted."""
    return sorted(_entry_points())


def lossy_names(others: Iterable["Pass"] = ()) -> list[str]:
    """Names of passes that lose something: installed ones, and others at hand, sorted."""
    classes: list[type[Pass]] = [type(pass_) for pass_ in others]
    entries = _entry_points()
    for name in sorted(entries):
        # One that cannot be imported cannot act either.
        with contextlib.suppress(UsageError):
            classes.append(load(name, entries))
    return sorted({found.name for found in classes if found.stage.loses})


def default_names(entries: Entries | None = None) -> list[str]:
    """Names of the passes that take part when none is named: ours, and those configured.

    Args:
        entries: as in `load`.

    Raises:
        UsageError: the configuration names a pass that is not installed.
    """
    entries = _entry_points() if entries is None else entries
    own = {name for name, entry in entries.items() if package_of(entry) == OWN}
    for name in _configured():
        if name not in entries:
            raise UsageError(
                f"the configuration's [passes] default names {name!r}{nearest(name, list(entries))}"
                f" (installed: {', '.join(sorted(entries))}) [U002]"
            )
        own.add(name)
    return sorted(own)


def default_passes() -> "tuple[list[Pass], list[str]]":
    """Passes that take part where none is named, and why others do not that were to.

    Those with a reason to act only by name (`Pass.by_name_only`) are among them.
    """
    found: list[Pass] = []
    problems: list[str] = []
    entries = _entry_points()
    for name in default_names(entries):
        try:
            found.append(create(name, entries=entries))
        except UsageError as error:
            problems.append(f"left out: {error}")
    return found, problems


def _configured() -> list[str]:
    """What `[passes] default` of the configuration lists.

    Raises:
        UsageError: the file is no TOML, or the entry is no list of texts.
    """
    usual = [home_expanded(path) for path in _CONFIGURATIONS]
    path = next((path for path in usual if path.is_file()), None)
    if path is None:
        return []
    try:
        table = read_toml(path.read_text(encoding="utf-8")).get("passes", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error} [U014]") from error
    found = table.get("default", []) if isinstance(table, dict) else None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UsageError(f'{path}: [passes] is {table!r}; expected default = ["name", ...] [U014]')
    return found


def describe(name: str) -> str:
    """The first line of a pass's module, read without importing the pass."""
    return first_line(_entry_points()[name].module)


def load(name: str, entries: Entries | None = None) -> "type[Pass]":
    """The class of a pass.

    Args:
        name: of the pass.
        entries: what is installed, where that was looked up: it takes some milliseconds.

    Raises:
        UsageError: no such pass is installed, or its package cannot be imported.
    """
    entries = _entry_points() if entries is None else entries
    if name not in entries:
        raise UsageError(
            f"there is no pass {name!r}{nearest(name, list(entries))} "
            f"(installed: {', '.join(sorted(entries))}) [U002]"
        )
    try:
        found = entries[name].load()
    except Exception as error:
        # Importing a stranger's package runs its code.
        raise UsageError(
            f"the pass {name!r} of {package_of(entries[name])} cannot be imported: "
            f"{type(error).__name__}: {error} [U012]"
        ) from error
    if not (isinstance(found, type) and is_dataclass(found) and hasattr(found, "propose")):
        raise UsageError(
            f"the pass {name!r} of {package_of(entries[name])} is {found!r}; expected a data class "
            "that is a subclass of onnxpress.contract.Pass [U012]"
        )
    if getattr(found, "name", None) != name:
        raise UsageError(
            f"{package_of(entries[name])} offers a pass {name!r}, which calls itself "
            f"{getattr(found, 'name', None)!r}; its author has to use one name [U012]"
        )
    loaded: type[Pass] = found  # type: ignore[assignment]
    return loaded


def create(
    name: str, options: Mapping[str, Any] | None = None, entries: Entries | None = None
) -> "Pass":
    """A pass with the given settings.

    Args:
        name: of the pass.
        options: its settings.
        entries: as in `load`.

    Raises:
        UsageError: an unknown pass or setting, or a value of the wrong type or range.
    """
    pass_class = load(name, entries)
    try:
        return pass_class(**checked(pass_class, name, options or {}))
    except TypeError as error:
        raise UsageError(f"the pass {name!r} cannot be made: {error} [U012]") from error
