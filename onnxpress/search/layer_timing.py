"""Time a candidate on its layer alone: what does not run faster is not worth its error.

The layer's node becomes a model of one node, fed with a tensor of the shape that was observed;
the pass rewrites it as it would in the whole model, and both are timed in turn. Layers alike in
operator, shapes and attributes are timed once for candidates that are alike in all that the time
depends on.
"""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxpress.contract import (
    Candidate,
    Context,
    Decision,
    Layer,
    Names,
    Proposal,
    Skip,
    TimingSubgraph,
)
from onnxpress.errors import ModelError
from onnxpress.graph import constant
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Latency, Session
from onnxpress.search.trial import SearchOptions

__all__ = ["keep_faster", "timing_key"]

logger = logging.getLogger(__name__)

_ROUNDS = 5
_ROUND_S = 0.001


def keep_faster(
    pool: Pool,
    context: Context,
    proposals: Sequence[Proposal],
    options: SearchOptions,
    known: dict[Hashable, Latency | None],
) -> tuple[list[Proposal], list[tuple[str, Skip]]]:
    """The proposals with candidates that gain time, each with what it gains, and who is out.

    Candidates that keep the kernels or save no multiply-adds, and layers whose input was not
    observed, pass untimed.

    Args:
        pool: whose candidates they are.
        context: with statistics that hold the inputs' shapes.
        proposals: not changed.
        options: with the clock.
        known: latencies by what they depend on; it grows.
    """
    kept: list[Proposal] = []
    left: list[tuple[str, Skip]] = []
    for proposal in proposals:
        candidates = []
        best = 0.0
        for candidate in proposal.candidates:
            if candidate.keeps_kernels or candidate.saved_multiply_adds <= 0:
                candidates.append(candidate)
                continue
            subgraphs = pool.timing_subgraphs(context, proposal, candidate)
            if subgraphs is None:
                subgraphs = _rewritten_layer(pool, context, proposal.site, candidate)
            found = [
                _timed(part, candidate.pass_name, known, context.seed, options)
                for part in subgraphs
            ]
            times = [latency for latency in found if latency is not None]
            if not times:
                candidates.append(candidate)
                continue
            before = sum(latency.reference_ms for latency in times)
            after = sum(latency.reference_ms / latency.speedup for latency in times)
            best = max(best, before / after)
            if before > after:
                candidates.append(replace(candidate, saved_microseconds=1e3 * (before - after)))
        if candidates:
            kept.append(replace(proposal, candidates=tuple(candidates)))
        else:
            reason = (
                f"no form is faster by the clock: the best ran at {best:.2f} times its speed [L007]"
            )
            left.append((proposal.candidates[0].pass_name, Skip(proposal.site, reason)))
    return kept, left


def _rewritten_layer(
    pool: Pool, context: Context, site: str, candidate: Candidate
) -> list[TimingSubgraph]:
    """The site's layers alone and rewritten; nothing where their input was not observed."""
    by_name = {layer.name: layer for layer in context.layers}
    names = Decision(site, candidate).layers
    if not all(name in by_name for name in names):
        return []
    layers = [by_name[name] for name in names]
    moments = context.moments(layers[0])
    if moments is None or not moments.input_shape or layers[0].dtype != ir.DataType.FLOAT:
        return []
    shape = moments.input_shape

    def build() -> tuple[ir.Model, ir.Model]:
        alone = _alone(context.model, layers)
        if alone is None:
            raise ModelError(f"{site}: the layer takes more than one tensor")
        small = replace(context, model=alone, base=alone, layers=(), names=Names(alone), draft=True)
        return alone, pool.rewrite(small, [Decision(layers[0].name, candidate)])

    return [TimingSubgraph(timing_key(layers, shape, candidate), build, (shape, shape))]


def timing_key(layers: Sequence[Layer], shape: tuple[int, ...], candidate: Candidate) -> Hashable:
    """What the time of rewritten layers depends on.

    Args:
        layers: that the candidate changes.
        shape: of the tensor they read.
        candidate: how they are rewritten.
    """
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
    own = candidate.timing_key
    if own is None:
        own = tuple(sorted(candidate.parameters.items()))
    return nodes, shape, candidate.pass_name, candidate.family, own


def _timed(
    subgraph: TimingSubgraph,
    pass_name: str,
    known: dict[Hashable, Latency | None],
    seed: int,
    options: SearchOptions,
) -> Latency | None:
    """How a subgraph's latency changes; `None` where it cannot be run, or time is over."""
    key = pass_name, subgraph.key
    if key in known:
        return known[key]
    if options.out_of_time():
        return None
    found = None
    try:
        models = subgraph.build()
        sessions = [Session(model, threads=options.threads) for model in models]
        rng = np.random.default_rng(seed)
        feeds: list[dict[str, Array]] = [
            {session.inputs[0].name: rng.standard_normal(shape, np.float32)}
            for session, shape in zip(sessions, subgraph.shapes, strict=True)
        ]
        found = options.clock(
            sessions[0], sessions[1], feeds[0], feeds[1], rounds=_ROUNDS, round_s=_ROUND_S
        )
    except ModelError:
        logger.info("a timing subgraph cannot be run alone, so its time is not known")
    known[key] = found
    return found


def _alone(model: ir.Model, layers: Sequence[Layer]) -> ir.Model | None:
    """A model of the layers' nodes and nothing else."""
    inputs: list[ir.Value] = []
    constants: list[ir.Value] = []
    for node in (layer.node for layer in layers):
        for value in node.inputs:
            held = inputs if constant(value) is None else constants
            if value is not None and value not in held:
                held.append(value)
    if len(inputs) != 1 or inputs[0].dtype != ir.DataType.FLOAT:
        return None
    nodes = [layer.node for layer in layers]
    view = ir.GraphView(
        inputs,
        # Outputs that nothing reads have no name.
        [next((v for v in node.outputs if v.name), node.outputs[0]) for node in nodes],
        nodes=nodes,
        initializers=constants,
        opset_imports=model.graph.opset_imports,
        name=model.graph.name,
    )
    return ir.Model(view.clone(), ir_version=model.ir_version)
