"""Time a candidate on its layer alone: what does not run faster is not worth its error.

The layer's node becomes a model of one node, fed with a tensor of the shape that was observed;
the pass rewrites it as it would in the whole model, and both are timed in turn. Layers alike in
operator, shapes and attributes are timed once.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxpress.errors import ModelError
from onnxpress.graph import Layer, constant
from onnxpress.plan import Candidate, Context, Decision, Pass, Proposal, Skip, sites
from onnxpress.runtime import Array, Latency, Session, compare_latency

__all__ = ["keep_faster"]

_ROUNDS = 7
_ROUND_S = 0.004


def keep_faster(
    pass_: Pass,
    context: Context,
    proposals: Sequence[Proposal],
    rewrite: Callable[[Pass, Context, Sequence[Decision]], ir.Model],
    *,
    threads: int = 0,
) -> tuple[list[Proposal], list[Skip]]:
    """The proposals with candidates that gain time, each with what it gains, and who is out.

    Candidates that change no kernel or save no multiply-adds, and layers whose input was not
    observed, pass untimed.

    Args:
        pass_: whose candidates they are.
        context: with statistics that hold the inputs' shapes.
        proposals: not changed.
        rewrite: carries decisions out on a clone (`search.apply`).
        threads: of onnxruntime.
    """
    known: dict[Hashable, Latency | None] = {}
    kept: list[Proposal] = []
    left: list[Skip] = []
    for proposal in proposals:
        candidates = []
        best = 0.0
        for candidate in proposal.candidates:
            if candidate.neutral or candidate.saved_multiply_adds <= 0:
                candidates.append(candidate)
                continue
            layers = [context.layer(name) for name in sites(Decision(proposal.site, candidate))]
            shape = _input_shape(context, layers)
            if shape is None:
                candidates.append(candidate)
                continue
            key = _key(layers, shape, candidate)
            if key not in known:
                known[key] = _time(pass_, context, layers, shape, candidate, rewrite, threads)
            found = known[key]
            if found is None:
                candidates.append(candidate)
                continue
            best = max(best, found.speedup)
            if found.speedup > 1:
                gain = 1e3 * (found.reference_ms - found.median_ms)
                candidates.append(replace(candidate, saved_microseconds=max(gain, 0.0)))
        if candidates:
            kept.append(replace(proposal, candidates=tuple(candidates)))
        else:
            reason = f"no form is faster by the clock: the best ran at {best:.2f} times its speed"
            left.append(Skip(proposal.site, reason))
    return kept, left


def _input_shape(context: Context, layers: Sequence[Layer]) -> tuple[int, ...] | None:
    first = layers[0]
    moments = context.moments(first)
    if moments is None or not moments.input_shape or first.dtype != ir.DataType.FLOAT:
        return None
    return moments.input_shape


def _key(layers: Sequence[Layer], shape: tuple[int, ...], candidate: Candidate) -> Hashable:
    nodes = tuple(
        (
            layer.op_type,
            layer.shape,
            len(layer.node.inputs),
            layer.uses[0].index,
            tuple(sorted(str(value) for value in layer.node.attributes.values())),
        )
        for layer in layers
    )
    parameters = tuple(
        (name, value)
        for name, value in sorted(candidate.parameters.items())
        if name in ("form", "rank", "input_rank")
    )
    return nodes, shape, parameters


def _time(
    pass_: Pass,
    context: Context,
    layers: Sequence[Layer],
    shape: tuple[int, ...],
    candidate: Candidate,
    rewrite: Callable[[Pass, Context, Sequence[Decision]], ir.Model],
    threads: int,
) -> Latency | None:
    alone = _alone(context.model, layers)
    if alone is None:
        return None
    small = replace(context, model=alone, layers=())
    try:
        rewritten = rewrite(pass_, small, [Decision(layers[0].name, candidate)])
        feed: dict[str, Array] = {}
        rng = np.random.default_rng(context.seed)
        for value in alone.graph.inputs:
            feed[value.name or ""] = rng.standard_normal(shape, np.float32)
        before, after = (Session(model, threads=threads) for model in (alone, rewritten))
        return compare_latency(before, after, feed, rounds=_ROUNDS, round_s=_ROUND_S)
    except ModelError:
        return None


def _alone(model: ir.Model, layers: Sequence[Layer]) -> ir.Model | None:
    """A model of the layers' nodes and nothing else."""
    inputs: list[ir.Value] = []
    outputs: list[ir.Value] = []
    for layer in layers:
        node = layer.node
        if node.graph is not model.graph:
            return None
        values = [value for value in node.inputs if value is not None and constant(value) is None]
        inputs += [value for value in values if value not in inputs]
        outputs.append(node.outputs[0])
    if len(inputs) != 1 or inputs[0].dtype != ir.DataType.FLOAT:
        return None
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    return ir.Model(graph, ir_version=model.ir_version)
