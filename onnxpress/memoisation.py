"""Remember what costs much to work out, by what it follows from.

`memoised` is for functions of layers: their weights, their statistics, and plain arguments. A
weight or a statistic is known by itself, not by its name or place in memory: the key holds the
object, which nobody changes (`enforcement` sees to that), so two of them are never taken for one
another, and a model's clone shares them. `memoised_of_model` is for what follows from
`Context.base` as a whole.

What is remembered belongs to one stage (`Context.memory`), is bounded, and changes no result: with
an empty memory everything is worked out again.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from onnxpress.bias import takes_bias
from onnxpress.context import Context
from onnxpress.layers import Layer

__all__ = ["memoised", "memoised_of_model"]

P = ParamSpec("P")
T = TypeVar("T")


def memoised(
    function: Callable[Concatenate[Context, P], T],
) -> Callable[Concatenate[Context, P], T]:
    """Remember a function of layers: of their weights and statistics, and plain arguments.

    Of the context it may use the target, the seed, whether a draft is wanted, and what was
    observed of the layers it is given. Arguments are layers, numbers, texts, arrays, mappings,
    sequences of these, or objects that nobody changes.
    """

    @functools.wraps(function)
    def remembered(context: Context, /, *args: P.args, **kwargs: P.kwargs) -> T:
        given = [_token(context, value) for value in (*args, *sorted(kwargs.items()))]
        key = (function, repr(context.target), context.seed, context.draft, *given)
        return context.memory.recall(key, lambda: function(context, *args, **kwargs))

    return remembered


def memoised_of_model(
    function: Callable[Concatenate[Context, P], T],
) -> Callable[Concatenate[Context, P], T]:
    """Remember a function of `context.base`, its statistics and what is kept, as a whole."""

    @functools.wraps(function)
    def remembered(context: Context, /, *args: P.args, **kwargs: P.kwargs) -> T:
        given = [_token(context, value) for value in (*args, *sorted(kwargs.items()))]
        whole = (_Same(context.base), _Same(context.base_statistics), context.kept)
        key = (function, repr(context.target), context.seed, *whole, *given)
        return context.memory.recall(key, lambda: function(context, *args, **kwargs))

    return remembered


@dataclasses.dataclass(frozen=True, slots=True)
class _Same:
    """An object as itself: equal to nothing else, and alive as long as the key."""

    held: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held

    def __hash__(self) -> int:
        return object.__hash__(self.held)


def _token(context: Context, value: object) -> Hashable:
    """What a result depends on when it depends on `value`."""
    if isinstance(value, Layer):
        constants = [v.const_value for v in value.node.inputs if v is not None]
        return (
            value.name,
            # Of the bias too, and whether there is a place for one: much follows from both.
            tuple(_Same(tensor) for tensor in constants),
            _Same(value.weight.const_value),
            takes_bias(value),
            _Same(context.moments(value)),
            _Same(context.base_moments(value)),
        )
    if isinstance(value, np.ndarray):
        content = hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).digest()
        return (value.shape, value.dtype.str, content)
    if isinstance(value, Mapping):
        return tuple(sorted((key, _token(context, item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_token(context, item) for item in value)
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    # 1, 1.0 and True are equal and are not the same argument.
    return (type(value), value)
