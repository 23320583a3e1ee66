"""Statistics of what a rewritten network really feeds its layers, level by level."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxpress.contract import Context
from onnxpress.data import Samples
from onnxpress.graph import bodies
from onnxpress.layers import Layer
from onnxpress.statistics import Observations, Statistics, collect

__all__ = ["levels_of", "refined_statistics"]

_LEVELS = 16
"""Each costs a run over the calibration samples; deeper models take several levels at once."""


def refined_statistics(
    known: Statistics,
    model: ir.Model,
    context: Context,
    level: Sequence[Layer],
    samples: Samples,
    *,
    threads: int,
) -> Statistics:
    """`known`, with the layers of a level as `model` feeds them, beside what `context.model` does.

    Args:
        known: not changed.
        model: rewritten from `context.model`.
        context: of the model before.
        level: layers that do not feed each other.
        samples: to run both on.
        threads: of onnxruntime.
    """
    wanted = Observations(layers=frozenset(layer.name for layer in level), gram=True)
    found = collect(
        model,
        level,
        samples,
        wanted,
        reference=context.model,
        seed=context.seed,
        threads=threads,
    )
    return replace(known, layers={**known.layers, **found.layers})


def levels_of(graph: ir.Graph, layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers by how many of them come before on the longest way; at most `_LEVELS` lists."""
    depths: dict[ir.Value, int] = {}
    own = {use.node for layer in layers for use in layer.uses}
    found: dict[int, list[Layer]] = {}

    def deepest(values: Iterable[ir.Value | None]) -> int:
        return max((depths.get(value, 0) for value in values if value is not None), default=0)

    def descend(graph: ir.Graph) -> None:
        for node in graph:
            depth = deepest(node.inputs)
            for body in bodies(node):
                depths.update(dict.fromkeys(body.inputs, deepest(node.inputs)))
                descend(body)
                depth = max(depth, deepest(body.outputs))
            depths.update(dict.fromkeys(node.outputs, depth + (node in own)))

    descend(graph)
    for layer in layers:
        depth = min(depths.get(use.node.outputs[0], 0) for use in layer.uses)
        found.setdefault(depth, []).append(layer)
    ordered = [found[depth] for depth in sorted(found)]
    size = -(-len(ordered) // _LEVELS)
    starts = range(0, len(ordered), max(size, 1))
    return [[layer for level in ordered[at : at + size] for layer in level] for at in starts]
