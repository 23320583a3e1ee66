"""Settings of a pass: fields of its data class, declared once with type, bounds and help.

A field is a `bool`, `int`, `float`, `str`, a `Literal` of strings, a tuple of one of these
(`tuple[str, ...]`), or any of them or `None`. Bounds are those of annotated-types:
`Annotated[float, Interval(gt=0, lt=1)]`. Constructor, recipe and command line read the same
declaration, and a value is checked here and nowhere else.
"""

import dataclasses
import functools
import types
from collections.abc import Iterator, Mapping
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

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from onnxpress.errors import UsageError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Setting", "checked", "setting", "settings_of", "validate"]

T = TypeVar("T")

_PLAIN = (bool, int, float, str)


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a pass.

    Attributes:
        name: of the field.
        help: a sentence for `--help`.
        default: of the field.
        kind: the type of a value, or of the items where there may be many.
        choices: what a text may be; empty: anything.
        many: whether the value is a tuple of such items.
        optional: whether `None` is a value, which is then the default.
        bounds: annotated-types' constraints of a number.
    """

    name: str
    help: str
    default: Any
    kind: type
    choices: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False
    bounds: tuple[Gt | Ge | Lt | Le, ...] = ()

    @property
    def bounds_text(self) -> str:
        """The bounds in words, such as `above 0, below 1`."""
        words = {Gt: "above", Ge: "at least", Lt: "below", Le: "at most"}
        return ", ".join(f"{words[type(b)]} {_limit(b):g}" for b in self.bounds)

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            one = f"one of {', '.join(self.choices)}"
        else:
            noun = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
            one = " ".join(filter(None, (noun[self.kind], self.bounds_text)))
        return f"a list of {one}" if self.many else one

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, in words, or `None`."""
        if value is None and self.optional:
            return None
        items = value if self.many and isinstance(value, tuple) else (value,)
        fits = isinstance(value, tuple) or not self.many
        if fits and all(self._fits(item) for item in items):
            return None
        return f"{self.name} is {value!r}; expected {self.expected}"

    def _fits(self, item: object) -> bool:
        if type(item) is not self.kind or (self.choices and item not in self.choices):
            return False
        return all(_holds(bound, item) for bound in self.bounds)


def setting(default: T, help: str) -> T:  # noqa: A002 - what click and argparse call it
    """Declare a setting of a pass with its default and a sentence that explains it."""
    field: T = dataclasses.field(default=default, metadata={"help": help})
    return field


@functools.cache
def settings_of(cls: "type[DataclassInstance]") -> tuple[Setting, ...]:
    """The settings of a pass, in the order of its fields.

    Raises:
        TypeError: a field is of a type that a recipe cannot hold.
    """
    hints = get_type_hints(cls, include_extras=True)
    return tuple(
        _declared(field, hints[field.name])
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING
    )


def _declared(field: "dataclasses.Field[Any]", hint: Any) -> Setting:  # noqa: ANN401 - a type
    optional, many = False, False
    bounds = list(_bounds(hint))
    hint = _bare(hint)
    if get_origin(hint) in (Union, types.UnionType):
        first, *others = [arg for arg in get_args(hint) if arg is not type(None)]
        optional = len(get_args(hint)) > 1 + len(others)
        bounds += _bounds(first)
        hint = object if others else _bare(first)
    if get_origin(hint) is tuple:
        many, item = True, get_args(hint)[0]
        bounds += _bounds(item)
        hint = _bare(item)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    if kind not in _PLAIN or not all(isinstance(choice, str) for choice in choices):
        raise TypeError(f"setting {field.name}: {field.type} cannot be written into a recipe")
    text = str(field.metadata.get("help", ""))
    return Setting(field.name, text, field.default, kind, choices, many, optional, tuple(bounds))


def _bare(hint: Any) -> Any:  # noqa: ANN401 - a type
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _bounds(hint: Any) -> Iterator[Gt | Ge | Lt | Le]:  # noqa: ANN401 - a type
    if get_origin(hint) is not Annotated:
        return
    for found in get_args(hint)[1:]:
        for one in found if isinstance(found, GroupedMetadata) else (found,):
            if isinstance(one, Gt | Ge | Lt | Le):
                yield one


def _limit(bound: Gt | Ge | Lt | Le) -> Any:  # noqa: ANN401 - whatever can be compared
    (field,) = dataclasses.fields(bound)
    return getattr(bound, field.name)


def _holds(bound: Gt | Ge | Lt | Le, value: Any) -> bool:  # noqa: ANN401 - as above
    limit = _limit(bound)
    if isinstance(bound, Gt):
        return bool(value > limit)
    if isinstance(bound, Ge):
        return bool(value >= limit)
    return bool(value < limit) if isinstance(bound, Lt) else bool(value <= limit)


def validate(instance: "DataclassInstance", name: str) -> None:
    """Check every setting of a pass.

    Args:
        instance: of the pass.
        name: of the pass, for the message.

    Raises:
        UsageError: a value has the wrong type or lies outside its bounds.
    """
    for declared in settings_of(type(instance)):
        problem = declared.problem(getattr(instance, declared.name))
        if problem is not None:
            raise UsageError(f"{name}: {problem} [U009]")


def checked(
    cls: "type[DataclassInstance]", name: str, options: Mapping[str, Any], *, kind: str = "pass"
) -> dict[str, Any]:
    """Options from a recipe or the command line as the constructor takes them.

    TOML writes 1 for 1.0 and lists for tuples.

    Args:
        cls: whose fields are declared.
        name: of the pass, or of what else is set.
        options: by name.
        kind: what the name is that of.

    Raises:
        UsageError: a setting that does not exist.
    """
    known = {declared.name: declared for declared in settings_of(cls)}
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise UsageError(
                f"{kind} {name!r} has no setting {key!r}{nearest(key, list(known))} "
                f"(it has: {', '.join(known) or 'none'}) [U009]"
            )
        declared = known[key]
        if declared.many and isinstance(value, list):
            values[key] = tuple(_as_declared(declared, item) for item in value)
        else:
            values[key] = _as_declared(declared, value)
    return values


def _as_declared(declared: Setting, value: object) -> object:
    return float(value) if declared.kind is float and type(value) is int else value
