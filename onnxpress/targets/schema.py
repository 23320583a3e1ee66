"""What a field of a target's file is, declared once where the field stands.

The annotation says the type, the choices (`Literal`) and the bounds (`Annotated[int, Ge(1)]`);
the metadata says what the field means, how two targets meet in it, how it is shown and whether
the file has to say where it comes from. The reader, the intersection and `targets show` hold no
list of fields of their own.
"""

import dataclasses
import functools
import operator
import types
from collections.abc import Callable, Collection, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge

from onnxpress.errors import UsageError, nearest
from onnxpress.targets.words import in_words, one_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Fact", "Meet", "build", "derived", "fact", "facts", "identity", "read_table", "rule"]

T = TypeVar("T", bound="DataclassInstance")

Meet = Callable[[Any, Any, str], Any]
"""From two targets and the name of a field to what holds for both."""

_KEY = "fact"
_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _always(owner: object) -> bool:
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a field besides its type.

    Attributes:
        meaning: in half a sentence.
        meet: how two targets meet in it; `None`: by `derive`, or, in a rule, not at all.
        show: a value in words.
        applies: whether the field says anything of this target or rule.
        sourced: whether it claims something of the provider, so that `[sources]` must say where
            it comes from, and it is listed with that.
        derive: from the values of the other fields; such a field is not in the file.
    """

    meaning: str
    meet: Meet | None = None
    show: Callable[[Any], str] = in_words
    applies: Callable[[Any], bool] = _always
    sourced: bool = False
    derive: Callable[[Mapping[str, Any]], Any] | None = None


def fact(
    meaning: str,
    meet: Meet,
    *,
    show: Callable[[Any], str] = in_words,
    applies: Callable[[Any], bool] = _always,
) -> Mapping[str, Fact]:
    """Metadata of a field of a target that claims something of its provider."""
    return {_KEY: Fact(meaning, meet, show, applies, sourced=True)}


def identity(meaning: str, meet: Meet) -> Mapping[str, Fact]:
    """Metadata of a field that says which target it is."""
    return {_KEY: Fact(meaning, meet)}


def derived(meaning: str, derive: Callable[[Mapping[str, Any]], Any]) -> Mapping[str, Fact]:
    """Metadata of a field that follows from others."""
    return {_KEY: Fact(meaning, derive=derive)}


def rule(
    meaning: str,
    show: Callable[[Any], str],
    *,
    applies: Callable[[Any], bool] = _always,
) -> Mapping[str, Fact]:
    """Metadata of a field of a rule for one operator."""
    return {_KEY: Fact(meaning, show=show, applies=applies)}


@functools.cache
def facts(cls: "type[DataclassInstance]") -> Mapping[str, Fact]:
    """What was declared of each field, in order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(cls)}


@functools.cache
def _hints(cls: "type[DataclassInstance]") -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """The object from its values; those that follow from others are worked out anew."""
    given = {name: value for name, value in values.items() if facts(cls)[name].derive is None}
    worked_out = {
        name: declared.derive(given)
        for name, declared in facts(cls).items()
        if declared.derive is not None
    }
    return cls(**given, **worked_out)


def read_table(
    cls: "type[DataclassInstance]",
    table: Mapping[str, Any],
    file: str,
    path: str = "",
    *,
    fields: Collection[str],
    required: Collection[str] = (),
) -> dict[str, Any]:
    """Values of fields from a table of TOML, each checked by its declaration.

    Args:
        cls: where the fields are declared.
        table: as TOML gives it.
        file: for messages.
        path: of the table inside the file, for messages; empty: the file itself.
        fields: those the table may name.
        required: those it must name.

    Raises:
        UsageError: a field is unknown, missing, or not what its declaration says.
    """
    for key in sorted(table):
        if key not in fields:
            name = f"{path}.{key}" if path else key
            raise UsageError(
                f"{file}: unknown field {name!r}{nearest(key, list(fields))} "
                f"(known: {', '.join(sorted(fields))}) [U010]"
            )
    hints = _hints(cls)
    for name in required:
        if name not in table:
            raise UsageError(
                f"{file}: field {name!r} is missing; expected {_expected(hints[name])}: "
                f"{facts(cls)[name].meaning} [U010]"
            )
    return {
        key: _read(hints[key], value, file, f"{path}.{key}" if path else key)
        for key, value in table.items()
    }


def _read(hint: Any, value: Any, file: str, path: str) -> Any:  # noqa: ANN401 - of any type
    plain = _without_none(hint)
    origin, arguments = get_origin(plain), get_args(plain)
    if origin in (tuple, frozenset) and type(value) is list:
        items = (_read(arguments[0], item, file, f"{path}[{i}]") for i, item in enumerate(value))
        return origin(items)
    if origin is Mapping and type(value) is dict:
        of = arguments[1]
        return {key: _read(of, item, file, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(plain) and isinstance(plain, type) and type(value) is dict:
        return plain(**read_table(plain, value, file, path, fields=facts(plain)))
    if not _fits(plain, value):
        raise UsageError(f"{file}: {path} is {value!r}; expected {_expected(plain)} [U010]")
    return value


def _fits(hint: Any, value: object) -> bool:  # noqa: ANN401 - a type
    """Exactly of the type (TOML's `true` is no integer), one of the choices, in the bounds."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(arguments[0], value) and all(value >= bound.ge for bound in arguments[1:])
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    return type(value) is hint


def _expected(hint: Any) -> str:  # noqa: ANN401 - a type
    plain = _without_none(hint)
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is Annotated:
        bounds = (f"at least {bound.ge}" for bound in arguments[1:] if isinstance(bound, Ge))
        return " ".join((_expected(arguments[0]), *bounds))
    if origin is Literal:
        return f"one of {', '.join(str(choice) for choice in arguments)}"
    if origin in (Union, types.UnionType):
        return one_of([_expected(argument) for argument in arguments])
    if origin in (tuple, frozenset):
        return f"a list, each {_expected(arguments[0])}"
    if origin is Mapping:
        return f"a table, each {_expected(arguments[1])}"
    return _NOUNS.get(plain, "a table of rules")


def _without_none(hint: Any) -> Any:  # noqa: ANN401 - a type
    """TOML has no `None`: it is what a field is where a file leaves it out."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    others = [argument for argument in get_args(hint) if argument is not type(None)]
    return functools.reduce(operator.or_, others)
