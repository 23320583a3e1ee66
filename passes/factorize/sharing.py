"""Layers that read the same tensor (query, key and value), and a first factor in common.

It is offered where it costs less than factors for each layer alone at the same error, for more
than half of the ranks.
"""

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.contract import Candidate, Context, Layer, Proposal
from onnxpress.graph import attribute
from onnxpress.layers import is_scaled_gemm
from onnxpress.passes.factorize.candidates import (
    HOPELESS_ERROR,
    NODE_BYTES,
    Wanted,
    observed,
    refusal,
    thinned,
)
from onnxpress.passes.factorize.fitting import components_of, joint_components

__all__ = ["shared_inputs", "shared_proposal"]


def shared_inputs(context: Context) -> list[list[Layer]]:
    """Layers of matrices that read the same tensor in the same graph."""
    groups: dict[tuple[int, int, ir.DataType], list[Layer]] = {}
    for layer in context.layers:
        node, use = layer.node, layer.uses[0]
        plain = layer.op_type == "MatMul" and use.index == 1 and len(layer.shape) == 2
        if layer.op_type == "Gemm":
            plain = not is_scaled_gemm(node) and not attribute(node, "transA", 0)
        if plain and len(layer.uses) == 1 and node.inputs[0] is not None:
            key = (id(node.inputs[0]), id(node.graph), layer.dtype)
            groups.setdefault(key, []).append(layer)
    return [layers for layers in groups.values() if len(layers) > 1]


def shared_proposal(context: Context, layers: Sequence[Layer], wanted: Wanted) -> Proposal | None:
    """One proposal for layers that read the same tensor, where it costs less than apart."""
    if any(refusal(context, layer, wanted) for layer in layers):
        return None
    ranks = _ranks(context, layers, wanted)
    cheaper = sum(
        _cost(layers, rank) < _cost_apart(context, layers, rank, wanted) for rank in ranks
    )
    if 2 * cheaper <= len(ranks):
        return None
    candidates = tuple(_candidate(context, layers, rank, wanted) for rank in ranks)
    return Proposal(layers[0].name, candidates)


def _sides(layers: Sequence[Layer]) -> tuple[int, int]:
    """(inputs, outputs of all layers)."""
    return layers[0].read().shape[1], sum(layer.read().shape[0] for layer in layers)


def _cost(layers: Sequence[Layer], rank: int) -> int:
    """Numbers in all factors, which are the multiply-adds of one row too."""
    return rank * sum(_sides(layers))


def _ranks(context: Context, layers: Sequence[Layer], wanted: Wanted) -> list[int]:
    inputs, outputs = _sides(layers)
    most = inputs * outputs // (inputs + outputs)
    if wanted.rank:
        return [wanted.rank] if wanted.rank <= most else []
    together = joint_components(context, layers, wanted.weighting)
    quantum = context.target.rank_quantum
    ranks = list(range(quantum, most + 1, quantum))
    if wanted.energy:
        ranks = [rank for rank in ranks if together.error(rank) <= wanted.most_error][:1]
    return thinned([rank for rank in ranks if together.error(rank) <= HOPELESS_ERROR])


def _cost_apart(context: Context, layers: Sequence[Layer], rank: int, wanted: Wanted) -> int:
    """What the layers cost that have the same error each with factors of its own."""
    error = joint_components(context, layers, wanted.weighting).error(rank)
    quantum = context.target.rank_quantum
    cost = 0
    for layer in layers:
        outputs, inputs = layer.read().shape
        own = components_of(context, layer, wanted.weighting)
        enough = (r for r in range(quantum, inputs, quantum) if own.error(r) <= error)
        whole = inputs * outputs
        least = next(enough, None)
        cost += whole if least is None else min(least * (inputs + outputs), whole)
    return cost


def _candidate(context: Context, layers: Sequence[Layer], rank: int, wanted: Wanted) -> Candidate:
    inputs, outputs = _sides(layers)
    saved = inputs * outputs - _cost(layers, rank)
    first = layers[0]
    moments = context.moments(first)
    number_bytes = first.nbytes // first.read().size
    return Candidate(
        {"rank": rank, "from_statistics": observed(context, first, wanted.weighting)},
        predicted_error=joint_components(context, layers, wanted.weighting).error(rank),
        saved_bytes=saved * number_bytes - NODE_BYTES,
        # Of one application of the weight where it was not observed.
        saved_multiply_adds=saved * (1.0 if moments is None else moments.rows_per_sample),
        added_kernels=1,
        family="shared",
        members=tuple(layer.name for layer in layers),
    )
