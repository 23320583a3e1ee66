"""Read a target's file: every field present, of its type and range, with the source of it.

A file lists fields of `Target`; `per_channel` names layouts, `plain_operators` the operators
without rules, `[operators]` those with. A file with `members` is the common ground of other
targets and names only what differs from it.
"""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.targets.common import common
from onnxpress.targets.target import LAYOUTS, PLACEMENTS, OperatorRule, Target

__all__ = ["load_target", "parse_target", "processor_features", "target_names"]

_FLOAT16 = ("none", "storage", "arithmetic")
_LISTS_OF_TEXT = (
    "layouts",
    "per_channel",
    "quantized_operators",
    "file_forms",
    "passes_through",
    "types",
    "plain_operators",
)
_FIELDS: dict[str, type] = {
    "description": str,
    "provider": str,
    "weight_bits": int,
    "four_bit_weights": bool,
    "quantizes_any": bool,
    "float16": str,
    "sparsity": str,
    "blocked_layout": bool,
    "rank_quantum": int,
    "channel_quantum": int,
    "minimum_opset": int,
    "maximum_opset": int,
    "static_shapes": bool,
    "maximum_rank": int,
    "external_data": bool,
    "timed_here": bool,
    "placement": str,
    "shares_cpu_memory": bool,
    "operators": dict,
    "sources": dict,
    **dict.fromkeys(_LISTS_OF_TEXT, list),
}
_NEEDS_NO_SOURCE = {"description", "provider", "sources", "plain_operators"}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "weight_bits": (7, 8),
    "float16": _FLOAT16,
    "placement": PLACEMENTS,
    "sparsity": ("none", "2:4"),
}
_ITEMS: dict[str, tuple[str, ...]] = {
    "layouts": tuple(LAYOUTS),
    "per_channel": tuple(LAYOUTS),
    "file_forms": ("onnx", "ort"),
}


@functools.cache
def processor_features() -> frozenset[str]:
    """Flags of this machine's processor as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def target_names() -> list[str]:
    """Names of the targets that have a file."""
    folder = resources.files("onnxpress.targets")
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Read a target, fitted to this machine's processor where its file says so.

    Args:
        name: of a file, or several with a plus between them: their common ground.

    Raises:
        UsageError: there is no such target, or two of them cannot be reconciled.
    """
    names = list(dict.fromkeys(part.strip() for part in name.split("+")))
    known = target_names()
    for part in names:
        if part not in known:
            raise UsageError(f"there is no target {part!r} (there are: {', '.join(known)})")
    return common([_read(part) for part in names])


def _read(name: str) -> Target:
    file = resources.files("onnxpress.targets").joinpath(f"{name}.toml")
    return parse_target(name, file.read_text("utf-8"), processor_features())


def parse_target(name: str, text: str, features: frozenset[str]) -> Target:
    """A target from the text of its file.

    Args:
        name: of the file, without its suffix.
        text: TOML.
        features: of the processor, for `[unless_processor_has]`.

    Raises:
        UsageError: the text is no target; the message names file, field, what was found and
            what is expected.
    """
    place = f"{name}.toml"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place}: is not TOML: {error}") from error
    unless = table.pop("unless_processor_has", None)
    if unless is not None:
        if not isinstance(unless, dict) or "any_of" not in unless:
            raise UsageError(f"{place}: unless_processor_has needs any_of, a list of flags")
        if not features & set(unless.pop("any_of")):
            table.update(unless)
    members = table.pop("members", None)
    _check(place, table, complete=members is None)
    if members is None:
        return _target(name, table)
    if not members or not all(member in target_names() for member in members):
        raise UsageError(f"{place}: members is {members!r}; expected names of other targets")
    ground = common([_read(member) for member in members])
    changed: dict[str, Any] = {"name": name, "sources": {**ground.sources, **table.pop("sources")}}
    for key, value in table.items():
        changed[key] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(ground, **changed)


def _is(value: object, wanted: type) -> bool:
    """Exactly of the type: TOML's `true` is no integer."""
    return type(value) is wanted


def _check(place: str, table: Mapping[str, Any], *, complete: bool) -> None:
    unknown = set(table) - set(_FIELDS)
    if unknown:
        raise UsageError(
            f"{place}: unknown field {min(unknown)!r} (known: {', '.join(sorted(_FIELDS))})"
        )
    wanted = set(_FIELDS) if complete else {"description", "sources"}
    missing = sorted(wanted - set(table))
    if missing:
        raise UsageError(f"{place}: field {missing[0]!r} is missing")
    for key, value in table.items():
        if not _is(value, _FIELDS[key]):
            raise UsageError(
                f"{place}: {key} is {value!r}, a {type(value).__name__}; expected "
                f"{_FIELDS[key].__name__}"
            )
        if key in _LISTS_OF_TEXT and not all(isinstance(item, str) for item in value):
            raise UsageError(f"{place}: {key} holds {value!r}; expected only strings")
        if key in _CHOICES and value not in _CHOICES[key]:
            choices = ", ".join(str(choice) for choice in _CHOICES[key])
            raise UsageError(f"{place}: {key} is {value!r}; expected one of {choices}")
        strange = [item for item in value if item not in _ITEMS[key]] if key in _ITEMS else []
        if strange:
            raise UsageError(
                f"{place}: {key} names {strange[0]!r}; expected some of {', '.join(_ITEMS[key])}"
            )
    unproven = sorted(set(table) - _NEEDS_NO_SOURCE - set(table["sources"]))
    if unproven:
        raise UsageError(f"{place}: [sources] says nothing of {unproven[0]!r}")


def _target(name: str, table: dict[str, Any]) -> Target:
    place = f"{name}.toml"
    layouts, per_channel = tuple(table.pop("layouts")), tuple(table.pop("per_channel"))
    for field, low in (("rank_quantum", 1), ("channel_quantum", 1), ("minimum_opset", 1)):
        if table[field] < low:
            raise UsageError(f"{place}: {field} is {table[field]}; expected at least {low}")
    if table["minimum_opset"] > table["maximum_opset"]:
        raise UsageError(f"{place}: minimum_opset is above maximum_opset")
    if not set(per_channel) <= set(layouts):
        raise UsageError(f"{place}: per_channel names layouts that are not in layouts")
    if table["quantized_operators"] and not layouts:
        raise UsageError(f"{place}: quantized_operators needs layouts")
    if not table["file_forms"]:
        raise UsageError(f"{place}: file_forms is empty; expected onnx, ort or both")
    operators = {operator: OperatorRule() for operator in table.pop("plain_operators")}
    for operator, rule in table.pop("operators").items():
        operators[operator] = _rule(f"{place}: operators.{operator}", rule)
    for operator in table["quantized_operators"]:
        if operator in operators and not (table["quantizes_any"] or operators[operator].quantized):
            raise UsageError(
                f"{place}: quantized_operators names {operator}, which operators takes in float"
            )
    preferred = LAYOUTS[layouts[0]] if layouts else LAYOUTS["u8s8"]
    for field in ("quantized_operators", "passes_through"):
        table[field] = frozenset(table[field])
    for field in ("file_forms", "types"):
        table[field] = tuple(table[field])
    return Target(
        name=name,
        members=(name,),
        layouts=layouts,
        per_channel_layouts=per_channel,
        activation_type=preferred.activation_type,
        weight_type=preferred.weight_type,
        per_channel=bool(layouts) and layouts[0] in per_channel,
        operators=operators,
        **table,
    )


def _rule(place: str, table: object) -> OperatorRule:
    if not isinstance(table, dict):
        raise UsageError(f"{place} is {table!r}; expected a table of rules")
    known = {field.name: field for field in dataclasses.fields(OperatorRule)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{place}: unknown rule {key!r} (known: {', '.join(known)})")
        wanted = {"outputs": int, "newest": int, "same_scale": bool, "quantized_output": bool}.get(
            key, dict if key == "attributes" else list
        )
        if not _is(value, wanted):
            raise UsageError(f"{place}: {key} is {value!r}; expected {wanted.__name__}")
        if wanted is list:
            value = tuple(value)  # noqa: PLW2901 - the frozen form of the same
        elif wanted is dict:
            value = {name: tuple(allowed) for name, allowed in value.items()}  # noqa: PLW2901
        values[key] = value
    return OperatorRule(**values)
