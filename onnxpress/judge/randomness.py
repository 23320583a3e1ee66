"""What a model draws at random: nodes that draw other numbers in every run."""

import onnx_ir as ir

from onnxpress.enumeration import few
from onnxpress.graph import RANDOM_OPERATORS, node_label

__all__ = ["drawn_by"]

_MOST_NAMED = 3


def drawn_by(model: ir.Model | None) -> str:
    """The nodes that draw without a seed, in brackets."""
    nodes = (
        []
        if model is None
        else [n for n in model.graph.all_nodes() if n.op_type in RANDOM_OPERATORS]
    )
    names = [node_label(node) for node in nodes if "seed" not in node.attributes]
    return f" ({few(names, _MOST_NAMED)})" if names else ""
