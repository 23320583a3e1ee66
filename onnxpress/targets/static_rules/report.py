"""Which nodes a provider would take, by its rules alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.errors import UsageError
from onnxpress.graph import standard_opset
from onnxpress.layers import multiply_adds
from onnxpress.targets import Target
from onnxpress.targets.static_rules.partitions import partition_count, passes_through
from onnxpress.targets.static_rules.refusal import Refusal, refusal_of
from onnxpress.targets.static_rules.units import model_as_shown, units_of
from onnxpress.targets.words import one_of

__all__ = ["StaticReport", "static_report"]


@dataclass(frozen=True, slots=True)
class StaticReport:
    """What the rules say; nothing was run.

    Attributes:
        target: name of the target.
        nodes: how many units compute at run time; an operator with the Q and DQ around it is one.
        taken: how many of them the provider would take.
        partitions: into how many connected pieces; nodes in `Target.passes_through` that stay
            with the CPU provider end none, and `advice` names them.
        multiply_add_share: of the multiply-adds of all convolutions and matrix products, the
            share in nodes that are taken; 1 where there are none and all are taken.
        refused: the label of each other node and why it is not taken.
        advice: what would help, in sentences.
    """

    target: str
    nodes: int
    taken: int
    partitions: int
    multiply_add_share: float
    refused: tuple[tuple[str, str], ...]
    advice: tuple[str, ...]


def static_report(model: ir.Model, target: Target) -> StaticReport:
    """Judge every node of `model` by the rules of `target`.

    Args:
        model: it is not changed.
        target: one; of a common ground give its members, one after the other.

    Raises:
        UsageError: the target stands for several.
    """
    if len(target.members) > 1:
        raise UsageError(
            f"target {target.name!r} stands for {', '.join(target.members)}; ask about each"
        )
    seen = model_as_shown(model)
    units = list(units_of(seen.graph))
    opset = standard_opset(seen)
    refusals: dict[int, Refusal] = {}
    for index, unit in enumerate(units):
        refusal = None if target.partitioning == "all" else refusal_of(unit, target, opset)
        if refusal is not None:
            refusals[index] = refusal
    work = [multiply_adds(unit.node) for unit in units]
    whole = sum(work)
    placed = sum(cost for index, cost in enumerate(work) if index not in refusals)
    partitions = partition_count(units, set(refusals), target)
    beside = [units[i].node for i in refusals if passes_through(units[i].node, target)]
    return StaticReport(
        target=target.name,
        nodes=len(units),
        taken=len(units) - len(refusals),
        partitions=partitions,
        multiply_add_share=placed / whole if whole else float(not refusals),
        refused=tuple((refusal.node, refusal.reason) for refusal in refusals.values()),
        advice=tuple(_advice(seen, target, list(refusals.values()), beside, partitions)),
    )


def _advice(
    model: ir.Model,
    target: Target,
    refusals: Sequence[Refusal],
    beside: Sequence[ir.Node],
    partitions: int,
) -> Iterator[str]:
    kinds = Counter(refusal.kind for refusal in refusals)
    between = Counter(node.op_type for node in beside)
    if between:
        yield (
            f"{_listed(between)} stay with the CPU provider in the same memory and layout, so "
            "that no partition ends there"
        )
    if kinds["dynamic"]:
        yield f"give every dynamic dimension a size: {' '.join(_fix_shapes(model))}"
    if kinds["version"]:
        yield f"lower the opset to {target.maximum_opset}: --opset {target.maximum_opset}"
    if kinds["activation"]:
        yield (
            "leave out activation functions that QuantizeLinear performs: optimize with "
            f"--target {target.name} does"
        )
    if kinds["layout"] and target.layouts:
        yield f"quantize as {one_of(target.layouts)}: optimize with --target {target.name} does"
    if kinds["layout"] and not target.layouts:
        yield f"{target.name} computes in float only: optimize with --target {target.name}"
    if partitions > 1:
        passed = set(between)
        operators = Counter(r.node.split(" ")[0] for r in refusals if r.kind == "operator")
        ending = Counter({k: n for k, n in operators.items() if k not in passed})
        if ending:
            yield f"for one partition, replace or move to an end of the graph: {_listed(ending)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(6))


def _fix_shapes(model: ir.Model) -> Iterator[str]:
    """`--fix-shape` options for the dynamic inputs, with 1 for what is not known."""
    for value in model.graph.inputs:
        if value.shape is not None and not value.shape.is_static():
            dims = (str(dim) if isinstance(dim, int) else "1" for dim in value.shape)
            yield f"--fix-shape {value.name}={'x'.join(dims)}"
