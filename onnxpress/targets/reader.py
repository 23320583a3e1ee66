"""Read a target's file: every field present, of its type and range, with the source of it.

A file lists the fields of `Target`, and may name in `plain_operators` the operators that are taken
without rules. A file with `members` builds on other targets and names only what differs: on one
target it is another of the kind, on several it is their common ground.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

from onnxpress.errors import UsageError, nearest
from onnxpress.targets.intersection import intersect
from onnxpress.targets.processor import processor_features
from onnxpress.targets.schema import build, facts, read_table
from onnxpress.targets.target import Target
from onnxpress.toml_places import read_toml

__all__ = ["load_target", "parse_target", "target_names"]

_SUFFIX = ".toml"
_FIELDS = [
    name
    for name, declared in facts(Target).items()
    if declared.derive is None and name not in ("name", "members")
]
_SOURCED = [name for name, declared in facts(Target).items() if declared.sourced]
_NAMED_BY_EVERY_FILE = ("description", "sources")


def target_names() -> list[str]:
    """Names of the built-in targets."""
    folder = resources.files("onnxpress.targets")
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(_SUFFIX))


def load_target(name: str) -> Target:
    """Read a target, fitted to this machine's processor where its file says so.

    Args:
        name: of a built-in target, the path of a file that ends in `.toml`, or several of these
            with a plus between: their common ground. A path with a plus in it stands alone.

    Raises:
        UsageError: there is no such target, its file is wrong, or two cannot be reconciled.
    """
    alone = name.endswith(_SUFFIX) and Path(name).is_file()
    parts = [name] if alone else [part.strip() for part in name.split("+")]
    return intersect([_read(part, ()) for part in dict.fromkeys(parts)])


def _read(name: str, trail: tuple[str, ...]) -> Target:
    if _file_of(name) in map(_file_of, trail):
        raise UsageError(
            f"{_file(trail[-1])}: members leads back to itself: "
            f"{' -> '.join((*trail, name))} [U010]"
        )
    return parse_target(name, _text(name, trail), processor_features(), trail=trail)


def _text(name: str, trail: tuple[str, ...]) -> str:
    """The text of a file, built in or of the user."""
    where = f"{_file(trail[-1])}: members: " if trail else ""
    if not name.endswith(_SUFFIX):
        known = target_names()
        if name not in known:
            raise UsageError(
                f"{where}there is no target {name!r}{nearest(name, known)} (there are: "
                f"{', '.join(known)}; the path of a file of your own that ends in {_SUFFIX} works "
                "too) [U003]"
            )
        return resources.files("onnxpress.targets").joinpath(_file(name)).read_text("utf-8")
    path = Path(name)
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        stem = nearest(path.stem, target_names())
        raise UsageError(f"{where}there is no file {name}{stem} [U003]") from error
    except OSError as error:
        raise UsageError(f"{where}{name} cannot be read: {error.strerror} [U003]") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}{name} is not TOML: it is not text in UTF-8 [U003]") from error


def _file_of(name: str) -> str | Path:
    """The same for all ways to name the same file."""
    return Path(name).resolve() if name.endswith(_SUFFIX) else name


def _file(name: str) -> str:
    return name if name.endswith(_SUFFIX) else f"{name}{_SUFFIX}"


def parse_target(
    name: str, text: str, features: frozenset[str], *, trail: tuple[str, ...] = ()
) -> Target:
    """A target from the text of its file.

    Args:
        name: of a built-in target, or the path of a file.
        text: TOML.
        features: of the processor, for `[unless_processor_has]`.
        trail: the names of the targets that build on this one, the outermost first.

    Raises:
        UsageError: the text is no target; the message names file, field, what was found and
            what is expected.
    """
    file = _file(name)
    try:
        table = read_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: is not TOML: {error} [U010]") from error
    members = table.pop("members", None)
    values = _values(file, table, features, complete=members is None)
    if members is None:
        values |= {"name": name, "members": (name,)}
    else:
        values = _built_on(name, members, values, trail)
    target = build(Target, values)
    problem = _contradiction(target)
    if problem is not None:
        raise UsageError(f"{file}: {problem} [U010]")
    return target


def _values(
    file: str, table: dict[str, Any], features: frozenset[str], *, complete: bool
) -> dict[str, Any]:
    """The fields of a file, those that depend on the processor as it needs them."""
    unless = table.pop("unless_processor_has", {"any_of": []})
    flags = unless.pop("any_of", None) if isinstance(unless, dict) else None
    if not _lists_text(flags):
        raise UsageError(
            f"{file}: unless_processor_has needs any_of, a list of flags as text [U010]"
        )
    fields = (*_FIELDS, "plain_operators")
    for part in (table, unless):
        plain = part.pop("plain_operators", None)
        if plain is not None:
            part["operators"] = _with_plain(file, plain, part.get("operators", {}))
    required = _FIELDS if complete else _NAMED_BY_EVERY_FILE
    values = read_table(Target, table, file, fields=fields, required=required)
    otherwise = read_table(Target, unless, file, "unless_processor_has", fields=_SOURCED)
    for key in (*values, *otherwise):
        if key in _SOURCED and key not in values["sources"]:
            raise UsageError(f"{file}: [sources] says nothing of {key!r} [U010]")
    for key in values["sources"]:
        if key not in _SOURCED:
            raise UsageError(
                f"{file}: [sources] names {key!r}, which is no field{nearest(key, _SOURCED)} [U010]"
            )
    return values if features.intersection(flags) else values | otherwise


def _lists_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _with_plain(file: str, plain: object, operators: object) -> object:
    if not _lists_text(plain):
        raise UsageError(f"{file}: plain_operators is {plain!r}; expected a list, each text [U010]")
    return (
        {**{name: {} for name in plain}, **operators} if isinstance(operators, dict) else operators
    )


def _built_on(
    name: str, members: object, changed: dict[str, Any], trail: tuple[str, ...]
) -> dict[str, Any]:
    """The values of the targets a file builds on, with what it changes."""
    file = _file(name)
    if not members or not _lists_text(members):
        raise UsageError(
            f"{file}: members is {members!r}; expected a list of names of targets or of paths "
            f"that end in {_SUFFIX} [U010]"
        )
    # A path is meant from the file that names it.
    beside = [str(Path(name).parent / m) if m.endswith(_SUFFIX) else m for m in members]
    ground = intersect([_read(member, (*trail, name)) for member in beside])
    values: dict[str, Any] = {key: getattr(ground, key) for key in facts(Target)} | changed
    values["name"] = name
    values["sources"] = {**ground.sources, **changed["sources"]}
    if len(ground.members) == 1:
        values["members"] = (name,)
        values["operators"] = {**ground.operators, **changed.get("operators", {})}
    elif "operators" in changed:
        raise UsageError(
            f"{file}: operators cannot be changed in the common ground of "
            f"{', '.join(ground.members)}: each is asked by its own rules [U010]"
        )
    return values


def _contradiction(target: Target) -> str | None:
    """What two fields of a target say against each other."""
    if target.minimum_opset > target.maximum_opset:
        return (
            f"minimum_opset is above maximum_opset: {target.minimum_opset} and "
            f"{target.maximum_opset}"
        )
    if not set(target.per_channel_layouts) <= set(target.layouts):
        return "per_channel_layouts names layouts that are not in layouts"
    if target.quantized_operators and not target.layouts:
        return "quantized_operators needs layouts"
    if not target.file_forms:
        return "file_forms is empty; expected onnx, ort or both"
    if len(target.members) > 1:
        return None
    if (target.partitioning == "all") == bool(target.operators):
        return (
            f"partitioning is {target.partitioning} and operators names {len(target.operators)}; "
            "expected none where all are taken, and some elsewhere"
        )
    for operator in sorted(target.quantized_operators & set(target.operators)):
        if not target.takes_quantized(operator):
            return f"quantized_operators names {operator}, which operators takes in float"
    return None
