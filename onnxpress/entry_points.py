"""What installed packages add: passes and readers of samples, each by an entry point."""

import ast
import importlib.metadata
import importlib.util
import warnings
from pathlib import Path
from typing import TypeVar

from onnxpress.errors import UsageError

__all__ = ["LeftOutWarning", "first_line", "installed", "loaded", "package_of"]

T = TypeVar("T")


class LeftOutWarning(UserWarning):
    """Something installed cannot be used and is left out."""


def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of a group by name, which is also their order.

    Raises:
        UsageError: two packages use the same name.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in importlib.metadata.entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UsageError(
                f"two packages add {entry.name!r} to {group}: {package_of(other)} ({other.value}) "
                f"and {package_of(entry)} ({entry.value}); uninstall one of them [U012]"
            )
    return dict(sorted(found.items()))


def loaded(group: str, kind: type[T]) -> dict[str, T]:
    """All objects of a group by name; what cannot be imported is named in a warning and left out.

    Args:
        group: of the entry points.
        kind: what each of them has to be.

    Raises:
        UsageError: two packages use the same name.
    """
    usable: dict[str, T] = {}
    for name, entry in installed(group).items():
        try:
            found = entry.load()
        except Exception as error:  # noqa: BLE001 - importing a stranger's package runs its code
            problem = f"cannot be imported: {type(error).__name__}: {error}"
        else:
            if isinstance(found, kind):
                usable[name] = found
                continue
            problem = f"is a {type(found).__name__}, not a {kind.__name__}"
        warnings.warn(
            f"{name!r} in {group} of {package_of(entry)} ({entry.value}) {problem}; it is left out",
            LeftOutWarning,
            stacklevel=2,
        )
    return usable


def first_line(module: str) -> str:
    """The first line of a module's docstring without its full stop; the module is not run.

    The packages around it are; where that fails, the reason stands in place of the line.
    """
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # noqa: BLE001 - importing a stranger's package runs its code
        return f"cannot be imported: {type(error).__name__}: {error}"
    if spec is None:
        return f"cannot be imported: there is no module {module}"
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    try:
        module_code = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be imported: {type(error).__name__}: {error}"
    docstring = ast.get_docstring(module_code) or ""
    return docstring.partition("\n")[0].rstrip(".")


def package_of(entry: importlib.metadata.EntryPoint) -> str:
    """The name of the package that an entry point comes from."""
    return entry.dist.name if entry.dist is not None else "an unnamed package"
