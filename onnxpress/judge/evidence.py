"""What the graph, the names and the original's answers say of an output."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.beyond_ir import gives_maps
from onnxpress.judge.ancestry import added, is_given, normalized, origins
from onnxpress.runtime import Array, Session

__all__ = ["Evidence", "gather"]

_SUM_TOLERANCE = 1e-3
Size = int | str | None


@dataclass(frozen=True)
class Evidence:
    """Of one output.

    Attributes:
        name: of the output.
        shape: as the model declares it.
        is_float: its type.
        origins: operators that computed its values, behind those that only move them.
        parts: of an output that a Concat made: the origins of each part.
        concat_axis: along which it did; `None` where what lies behind it hides that.
        by_data: an operator before it decides by the data how many rows there are.
        holds: names of tensors with the same numbers in another order or shape, its own among them.
        normalizes: of a Softmax or Sigmoid: what the tensor that it reads `holds`.
        given: no weight lies before it, only the inputs: passes have nothing there to change.
        added: names of a sum that it holds, and of the term with weights, where the other term has
            none: y = x + f(x).
        examples: the original's answers, at least one, or none where nothing was run.
    """

    name: str
    shape: tuple[Size, ...]
    is_float: bool
    origins: frozenset[str]
    parts: tuple[frozenset[str], ...] = ()
    concat_axis: int | None = None
    by_data: bool = False
    holds: frozenset[str] = frozenset()
    normalizes: frozenset[str] = frozenset()
    given: bool = False
    added: tuple[str, str] | None = None
    examples: tuple[Array, ...] = ()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.examples[0].ndim if self.examples else len(self.shape)

    def size(self, axis: int) -> int | None:
        """Of an axis, where it is the same everywhere; `None`: dynamic or not known."""
        if self.examples:
            sizes = {array.shape[axis] for array in self.examples}
            return sizes.pop() if len(sizes) == 1 else None
        found = self.shape[axis]
        return found if isinstance(found, int) and found > 0 else None

    def square_in(self, axis: int) -> bool:
        """Whether another axis is always as long, as of attentions: these are steps, no classes.

        By the names of sizes, and by the answers, as some exporters give all sizes one name.
        """
        name = self.shape[axis] if axis < len(self.shape) else None
        if not isinstance(name, str):
            return False
        others = [place for place, size in enumerate(self.shape) if size == name and place != axis]
        return any(
            all(array.shape[place] == array.shape[axis] for array in self.examples)
            for place in others
        )

    @property
    def varies(self) -> bool:
        """Whether its shape depends on the data."""
        return self.by_data or any(0 in array.shape for array in self.examples)

    @property
    def lowest(self) -> float | None:
        """Of all values that are finite; `None` where nothing was run."""
        return _extreme(self.examples, "min")

    @property
    def highest(self) -> float | None:
        """As `lowest`."""
        return _extreme(self.examples, "max")

    @property
    def in_unit_range(self) -> bool:
        """Whether all values lie between 0 and 1."""
        low, high = self.lowest, self.highest
        return low is not None and high is not None and low >= 0 and high <= 1 + 1e-6

    def sums_to_one(self, axis: int) -> bool:
        """Whether the values are probabilities of classes along an axis."""
        arrays = [array for array in self.examples if array.size]
        return bool(arrays) and all(
            float(array.min()) >= 0
            and np.allclose(array.astype(np.float64).sum(axis=axis), 1.0, atol=_SUM_TOLERANCE)
            for array in arrays
        )

    def exponents_sum_to_one(self, axis: int) -> bool:
        """Whether the values are logarithms of probabilities of classes along an axis."""
        arrays = [array for array in self.examples if array.size]
        return bool(arrays) and all(
            float(array.max()) <= _SUM_TOLERANCE
            and np.allclose(np.exp(array.astype(np.float64)).sum(axis), 1.0, atol=_SUM_TOLERANCE)
            for array in arrays
        )

    def unit_length(self) -> bool:
        """Whether all rows along the last axis have length 1; single numbers have no direction."""
        arrays = [array for array in self.examples if array.size]
        if any(array.ndim == 0 for array in arrays):
            return False
        wide = [array.astype(np.float64) for array in arrays if array.shape[-1] > 1]
        return bool(wide) and all(
            np.allclose(np.linalg.norm(array, axis=-1), 1, atol=_SUM_TOLERANCE) for array in wide
        )

    @property
    def decides(self) -> bool:
        """Whether all answers are yes or no, or one for each row."""
        return bool(self.examples) and all(
            array.dtype.kind == "b" or array.size == (len(array) if array.ndim else 1)
            for array in self.examples
        )

    def named(self, pattern: str) -> bool:
        """Whether a part of its name matches a pattern."""
        return re.search(pattern, self.name, re.IGNORECASE) is not None


def gather(
    model: ir.Model | None, session: Session | None, examples: Sequence[Mapping[str, Array]]
) -> list[Evidence]:
    """Of every output of a model, in order.

    Args:
        model: its graph, where it is at hand.
        session: of it, where there is one: the model's outputs are taken from one of both.
        examples: the original's answers to a few samples.
    """
    names = session.output_names if session is not None else ()
    types = session.output_types if session is not None else ()
    ranks = session.output_ranks if session is not None else ()
    values = {} if model is None else {value.name: value for value in model.graph.outputs}
    if session is None:
        names = tuple(str(name) for name in values)
    found = []
    for place, name in enumerate(names):
        value = values.get(name)
        shape = _shape(value) if value is not None and value.shape is not None else None
        kind = types[place] if types else _type(value)
        if model is not None and gives_maps(model, name):
            kind, shape = "tensor(float)", shape or (None, None)
        computed, parts, axis, by_data = origins(value)
        arrays = tuple(answer[name] for answer in examples)
        if len({array.ndim for array in arrays}) > 1:
            # An axis of one answer means nothing in another.
            shape, arrays, by_data = (), (), True
        found.append(
            Evidence(
                name,
                shape or (None,) * (ranks[place] if ranks else 0),
                kind in ("tensor(float)", "tensor(double)", "tensor(float16)"),
                computed,
                parts,
                axis,
                by_data,
                *normalized(value),
                value is not None and is_given(value),
                None if value is None else added(value),
                arrays,
            )
        )
    return found


def _shape(value: ir.Value) -> tuple[Size, ...]:
    assert value.shape is not None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _type(value: ir.Value | None) -> str:
    if value is None or value.dtype is None:
        return ""
    names = {
        ir.DataType.FLOAT: "tensor(float)",
        ir.DataType.DOUBLE: "tensor(double)",
        ir.DataType.FLOAT16: "tensor(float16)",
    }
    return names.get(value.dtype, "")


def _extreme(examples: Sequence[Array], which: str) -> float | None:
    found = []
    for array in examples:
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if finite.size:
            found.append(float(getattr(finite, which)()))
    if not found:
        return None
    return min(found) if which == "min" else max(found)
