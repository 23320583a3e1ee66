"""Reverse mode: the gradient of a loss by initializers, as nodes behind those that compute it.

Nodes are walked from the loss back; each turns the gradients of its outputs into those of its
inputs by its operator's rule (Griewank and Walther, Evaluating Derivatives, chapter 3), and what
several nodes read gets the sum.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxpress.gradients.call import Call
from onnxpress.gradients.rules import RULES
from onnxpress.gradients.tape import Tape, Term
from onnxpress.graph import bodies, is_standard, node_label

__all__ = ["Derivative", "differentiate", "take_as_inputs"]

_ROUNDING = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear")
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}


@dataclass(frozen=True)
class Derivative:
    """A graph that computes a loss and its gradient.

    Attributes:
        model: takes what has a gradient as inputs beside its own, and gives gradients beside its
            outputs.
        gradients: the output that holds the gradient of each parameter, by its name.
        untrained: why there is none of the others, by their names.
        missing: the nodes that stopped a gradient, with the reason.
    """

    model: ir.Model
    gradients: Mapping[str, str]
    untrained: Mapping[str, str]
    missing: Mapping[str, str]


def differentiate(model: ir.Model, loss: str, parameters: Iterable[str]) -> Derivative:
    """The gradient of a scalar output by initializers of the main graph.

    A parameter that reaches the loss through a node without a rule has no gradient at all, as a
    part of it would be wrong.

    Args:
        model: of opset 13 at least, with inferred types and shapes; it is changed.
        loss: the name of an output that is one number.
        parameters: names of initializers; those that get a gradient become inputs.
    """
    graph = model.graph
    wanted = {name: graph.initializers[name] for name in parameters}
    reached = _reached(graph, wanted.values())
    forward = list(graph)
    output = next(value for value in graph.outputs if value.name == loss)
    tape = Tape.of(model)
    found: dict[ir.Value, Term] = {output: tape.array(np.ones((), output.dtype.numpy()))}  # type: ignore[union-attr]
    missing: dict[ir.Node, str] = {}
    for node in reversed(forward):
        upstream = [found.get(value) for value in node.outputs]
        if any(term is not None for term in upstream) and _reads(node) & reached:
            reason = _pass_back(tape, node, upstream, reached, found)
            if reason:
                missing[node] = reason
    untrained = _untrained(wanted, forward, reached, missing, found)
    gradients = {}
    for name, value in wanted.items():
        if name not in untrained:
            term = found[value]
            # Two parameters that are added have one gradient, which cannot be an output twice.
            gradient = term.op("Identity")
            gradient.value.type, gradient.value.shape = value.type, value.shape
            graph.outputs.append(gradient.value)
            gradients[name] = gradient.value.name or ""
    take_as_inputs(model, gradients)
    RemoveUnusedNodesPass()(model)
    return Derivative(model, gradients, untrained, {node_label(n): r for n, r in missing.items()})


def take_as_inputs(model: ir.Model, names: Iterable[str]) -> None:
    """Let a model take initializers as inputs instead; it is changed."""
    for name in names:
        value = model.graph.initializers.pop(name)
        value.const_value = None
        if not value.is_graph_input():
            model.graph.inputs.append(value)


def _reads(node: ir.Node) -> set[ir.Value]:
    """What a node reads, also in its bodies."""
    inner = {
        value
        for body in bodies(node)
        for each in body.all_nodes()
        for value in each.inputs
        if value is not None
    }
    return inner | {value for value in node.inputs if value is not None}


def _reached(graph: ir.Graph, parameters: Iterable[ir.Value]) -> set[ir.Value]:
    """What depends on parameters, they included, as far as it is of real numbers.

    Integers that are rounded, and products of them, stand for such.
    """
    found = set(parameters)
    for node in graph:
        if _reads(node) & found:
            rounded = is_standard(node) and node.op_type in _ROUNDING
            moved = bool(
                found
                & {
                    v
                    for v in node.inputs
                    if v is not None and v.dtype is not None and v.dtype not in _FLOATS
                }
            )
            if rounded and node.op_type == "DynamicQuantizeLinear":
                # Its scale and zero point count as constant.
                found.add(node.outputs[0])
                continue
            found.update(
                value
                for value in node.outputs
                if rounded or moved or value.dtype is None or value.dtype in _FLOATS
            )
    return found


def _is_real(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype in _FLOATS


def _pass_back(
    tape: Tape,
    node: ir.Node,
    upstream: list[Term | None],
    reached: Collection[ir.Value],
    found: dict[ir.Value, Term],
) -> str:
    """Add what a node gives to the gradients of its inputs; why it does not, or nothing."""
    if not is_standard(node) or node.op_type not in RULES:
        return "its operator has no rule"
    gradients = RULES[node.op_type](Call(tape, node, upstream))
    if isinstance(gradients, str):
        return gradients
    for value, term in zip(node.inputs, gradients, strict=False):
        if value is None or term is None or value not in reached:
            continue
        found[value] = found[value] + term if value in found else term
    return ""


def _untrained(
    wanted: Mapping[str, ir.Value],
    forward: Iterable[ir.Node],
    reached: Collection[ir.Value],
    missing: Mapping[ir.Node, str],
    found: Mapping[ir.Value, Term],
) -> dict[str, str]:
    """Parameters with no gradient or a part of it, and why."""
    behind: dict[ir.Value, str] = {}
    for node in reversed(list(forward)):
        label = f"{node_label(node)}: {missing[node]}" if node in missing else ""
        reason = label or next((behind[v] for v in node.outputs if v in behind), "")
        if reason:
            behind.update({v: reason for v in _reads(node) if v in reached})
    reasons = {}
    for name, value in wanted.items():
        if value in behind:
            reasons[name] = behind[value]
        elif value not in found:
            reasons[name] = "no output depends on it"
    return reasons
