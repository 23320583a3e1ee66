"""Which units go first, and what the layers become that read the others."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias, takes_bias
from onnxpress.contract import Context, Layer, LayerStatistics, memoised, memoised_of_model
from onnxpress.graph import constant, graphs_of
from onnxpress.layers import find_layers
from onnxpress.passes.prune.blocks import Block, find_blocks
from onnxpress.passes.prune.coupling import Group
from onnxpress.passes.prune.importance import Reading, magnitude_order, removal_order, solve_kept
from onnxpress.passes.prune.layout import Layout, Side
from onnxpress.passes.prune.redundant import Redundancy, find_redundant
from onnxpress.pieces import row_blocks
from onnxpress.reconstruction import output_energy, refitted_to
from onnxpress.recurrent import BIAS, is_recurrent

__all__ = [
    "blocks_of",
    "constants_of",
    "layout_of",
    "order_of",
    "readings_of",
    "redundancy_of",
    "solve_readers",
]

_CONSTANT = 1e-12
"""Of the inputs' power: what varies less than float32 resolves does not vary."""

_LARGE, _AT_A_TIME = 1 << 24, 1 << 22
"""Elements of a weight above which it is solved some outputs at a time, and how many then."""

_MOST_BYTES = 1_000_000_000
"""Of all readers of a group at a time."""

Float64 = npt.NDArray[np.float64]


@memoised_of_model
def _layers(context: Context) -> dict[str, Layer]:
    return {layer.name: layer for layer in find_layers(context.base)}


@memoised_of_model
def layout_of(context: Context) -> Layout:
    """Groups and layers of the model that is proposed on; a rewrite knows them by name."""
    return Layout(context.base, list(_layers(context).values()))


@memoised_of_model
def blocks_of(context: Context) -> list[Block]:
    """Its residual blocks."""
    return find_blocks(context.base, list(_layers(context).values()), layout_of(context).reader)


@memoised_of_model
def redundancy_of(context: Context, group: str) -> Redundancy:
    """What a group of it holds twice or for nothing."""
    layout = layout_of(context)
    return find_redundant(layout, layout.groups[group], _layers(context))


def constants_of(model: ir.Model) -> dict[str, ir.Value]:
    """Initializers of a model and its bodies, by name."""
    graphs = graphs_of(model.graph)
    return {name: value for graph in graphs for name, value in graph.initializers.items()}


@memoised_of_model
def order_of(context: Context, group: str, by: str) -> tuple[list[int], list[float]]:
    """Units of a group in the order in which they go, and what is lost with so many gone.

    Args:
        context: with statistics, unless by magnitude.
        group: its name.
        by: `magnitude`, or anything else for what the readers cannot make up for.
    """
    if by == "magnitude":
        layout = layout_of(context)
        return _by_magnitude(context, layout, layout.groups[group])
    return removal_order(readings_of(context, group))


@memoised_of_model
def readings_of(context: Context, group: str) -> list[Reading]:
    """The observed layers that read the units of a group; none where they take too much memory."""
    layout = layout_of(context)
    found: list[Reading] = []
    readers = [_layers(context)[name] for name in layout.readers(layout.groups[group])]
    if sum(_working_bytes(context, layer) for layer in readers) > _MOST_BYTES:
        # The residual stream of a large model: its order by magnitude takes a weight at a time.
        return found
    for layer in readers:
        moments = context.base_moments(layer)
        if moments is None or moments.gram is None:
            continue
        w = np.asarray(layer.read(), np.float64)
        gram = moments.centred_gram if takes_bias(layer) else moments.gram
        if gram is None or output_energy(w, gram) <= _CONSTANT * output_energy(w, moments.gram):
            # Inputs that never vary: what the bias cannot take up on other data.
            gram = moments.gram
        if not output_energy(w, gram) > 0:
            continue
        side = layout.sides[layer.name]
        units = layout.groups[group].units
        features = tuple(np.flatnonzero(side.inputs == unit) for unit in units)
        found.append(Reading(w.reshape(len(gram), -1, w.shape[1]), gram, moments.rows, features))
    return found


def _working_bytes(context: Context, layer: Layer) -> int:
    """Of a reader's weight, and of H⁻¹ and WᵀW of its inputs; 0 where it was not observed."""
    moments = context.base_moments(layer)
    if moments is None or moments.gram is None:
        return 0
    return 8 * (layer.array.size + 2 * moments.gram.size)


def _by_magnitude(context: Context, layout: Layout, group: Group) -> tuple[list[int], list[float]]:
    """Units by the norm of their rows in all layers that make them (L2, Li et al. 2017)."""
    norms, total = np.zeros(len(group.units)), 0.0
    for name in layout.makers(group):
        layer = _layers(context)[name]
        matrix = layer.read()
        w = np.concatenate(
            [
                np.square(np.asarray(matrix[rows], np.float64)).sum(axis=1)
                for rows in row_blocks(matrix)
            ]
        )
        outputs = layout.sides[name].outputs
        place = BIAS if is_recurrent(layer.node) else 2
        bias = layer.node.inputs[place] if len(layer.node.inputs) > place else None
        offset = constant(bias)
        if offset is not None and offset.size == len(w):
            w = w + np.square(offset.reshape(-1).astype(np.float64))
        norms += [w[outputs == unit].sum() for unit in group.units]
        total += float(w.sum())
    order = magnitude_order(norms)
    shares = np.concatenate([[0.0], np.cumsum(norms[order])]) / max(total, 1e-30)
    return order, shares.tolist()


def solve_readers(context: Context, layer: Layer, side: Side, units: set[int]) -> None:
    """Let a layer's remaining inputs stand for all, as far as calibration data says how.

    Args:
        context: of the rewrite.
        layer: of the model that is rewritten; its weight and bias change.
        side: its inputs in units.
        units: that are removed.
    """
    moments, before = context.moments(layer), context.base_moments(layer)
    if moments is None or moments.gram is None or before is None or before.gram is None:
        return
    if len(layer.uses) != 1 or layer.unsafe:
        return
    kept = np.flatnonzero(~np.isin(side.inputs, sorted(units)))
    if not len(kept):
        return
    biased = takes_bias(layer)
    mean, reference = before.mean[:, kept], before.mean
    if moments.cross is not None and moments.reference_mean is not None:
        mean, reference = moments.mean, moments.reference_mean
    matrix = layer.read()
    blocks = [slice(0, len(matrix))]
    if matrix.size > _LARGE and len(before.gram) == 1 and moments.cross is None:
        # Outputs do not depend on each other; in double precision a few fit.
        blocks = list(row_blocks(matrix, _AT_A_TIME))
    new, offset = np.zeros(matrix.shape, matrix.dtype), np.zeros(len(matrix))
    for rows in blocks:
        w = np.asarray(matrix[rows], np.float64)
        grouped = w.reshape(len(before.gram), -1, w.shape[1])
        found = _one_shot(context, grouped, before, kept, biased)
        if moments.cross is not None and moments.reference_mean is not None:
            found = _drifted(context, grouped, found, moments, biased)
        if not np.isfinite(found).all():
            return
        whole = np.zeros_like(grouped)
        whole[:, :, kept] = found
        new[rows] = whole.reshape(w.shape)
        if biased:
            step = grouped @ reference[:, :, None] - found @ mean[:, :, None]
            offset[rows] = step.reshape(-1)
    layer.write(new)
    if biased:
        shift_bias(context.names, layer.graph, layer.node, offset)


@memoised
def _one_shot(
    context: Context,
    weights: Float64,
    moments: LayerStatistics,
    kept: npt.NDArray[np.int64],
    biased: bool,  # noqa: FBT001 - a key, not a switch
) -> Float64:
    if len(kept) == weights.shape[2]:
        return weights
    gram = moments.centred_gram if biased else moments.gram
    assert gram is not None
    return solve_kept(weights, gram, kept, moments.rows)


@memoised
def _drifted(
    context: Context,
    weights: Float64,
    start: Float64,
    moments: LayerStatistics,
    biased: bool,  # noqa: FBT001 - a key, not a switch
) -> Float64:
    """`start` refitted to x̂, what the narrower network gives: W·C·Ĥ⁻¹, as far as that holds.

    Args:
        context: remembers.
        weights: `[groups, out, in]` W of the layer before.
        start: `[groups, out, kept]`.
        moments: of x̂, with `cross` `[groups, in, kept]`.
        biased: whether a bias takes up the means.
    """
    return refitted_to(weights, start, moments, biased=biased)
