"""Which nodes a provider that cannot run here would take, by the rules in its target's file."""

from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.targets import Target

__all__ = ["StaticReport", "static_report"]


@dataclass(frozen=True, slots=True)
class StaticReport:
    """What the rules say; nothing was run.

    Attributes:
        target: name of the target.
        nodes: how many nodes compute at run time.
        taken: how many of them the provider would take.
        partitions: into how many connected pieces.
        multiply_add_share: of the multiply-adds of all convolutions and matrix products, the
            share in nodes that are taken; 0 to 1, 1 where there are none and all are taken.
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
    """Judge every node of `model` by the rules of `target`."""
    nodes = [node for node in model.graph.all_nodes() if node.op_type != "Constant"]
    return StaticReport(
        target.name, len(nodes), 0, 0, 0.0, (), ("the rules of this target are not written yet",)
    )
