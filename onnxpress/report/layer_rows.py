"""What became of each layer of the original, as plain data: a row a layer, in the graph's order.

Passes rename what they change: factors, integers, scales and rounded biases are called after the
weight that they come from, with an underscore between. What is added behind a name that the
simplified original has already belongs to that name.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import onnx_ir as ir

from onnxpress.graph import graphs_of
from onnxpress.layers import Layer, find_layers, multiply_adds
from onnxpress.result import Result
from onnxpress.stored import StoredWeight, beside, find_stored

__all__ = ["Origins", "layer_rows"]

_BIAS = "_bias"


class Origins:
    """Which weight of the simplified original a name comes from."""

    def __init__(self, model: ir.Model) -> None:
        """Read the names that the model has."""
        layers = find_layers(model)
        self.weights: tuple[Layer | StoredWeight, ...] = beside(layers, find_stored(model, layers))
        self.names = frozenset(weight.name for weight in self.weights)
        self._known: Collection[str] = {
            name for graph in graphs_of(model.graph) for name in graph.initializers
        }

    def of(self, name: str) -> str | None:
        """The weight's name, or `None` where it comes from none."""
        whole = name
        while name not in self._known:
            name, found, _ = name.rpartition("_")
            if not found:
                return None
        derived_bias = whole[len(name) :].startswith(_BIAS)
        return name if name in self.names and not derived_bias else None


def layer_rows(result: Result, origins: Origins) -> list[dict[str, Any]]:
    """A row a layer.

    Args:
        result: with at least one stage.
        origins: of the model that the first left.
    """
    after = _bytes_after(result.named or result.model, origins)
    forms: dict[str, list[str]] = defaultdict(list)
    errors: dict[str, float] = defaultdict(float)
    left: dict[str, list[str]] = defaultdict(list)
    for stage in result.stages[1:]:
        for decision in stage.decisions:
            candidate = decision.candidate
            form = f"{stage.pass_.name} {candidate.family}".strip()
            own = origins.of(decision.site)
            for name in {own, *(origins.of(member) for member in candidate.members)} - {None}:
                _add_once(forms[str(name)], form)
            if own is not None and math.isfinite(candidate.predicted_error):
                errors[own] += candidate.predicted_error
        for skip in stage.left:
            own = origins.of(skip.site)
            if own is not None:
                _add_once(left[own], f"{stage.pass_.name}: {skip.reason}")
    works = {weight.name: _multiply_adds(weight) for weight in origins.weights}
    whole = sum(works.values())
    return [
        {
            "layer": weight.name,
            "operator": weight.op_type,
            "shape": list(weight.shape),
            "bytes_before": weight.nbytes,
            "bytes_after": after.get(weight.name, 0),
            "multiply_add_share": works[weight.name] / whole if whole else None,
            "forms": forms.get(weight.name, []),
            "predicted_error": errors.get(weight.name) or None,
            "left": left.get(weight.name, []),
        }
        for weight in origins.weights
    ]


def _add_once(texts: list[str], text: str) -> None:
    if text not in texts:
        texts.append(text)


def _multiply_adds(weight: Layer | StoredWeight) -> int:
    return sum(multiply_adds(use.node) for use in weight.uses)


def _bytes_after(model: ir.Model, origins: Origins) -> dict[str, int]:
    """Bytes of all that the model has of each weight, scales included."""
    found: dict[str, int] = defaultdict(int)
    for name, size in _sizes(model):
        own = origins.of(name)
        if own is not None:
            found[own] += size
    return found


def _sizes(model: ir.Model) -> Iterator[tuple[str, int]]:
    for graph in graphs_of(model.graph):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value.nbytes
