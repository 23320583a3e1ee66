"""The gradients of ONNX's operators: a function each, with its formula.

x and y are a node's first input and output, dx and dy the gradients of the loss by them.
"""

import onnx_ir as ir

from onnxpress.gradients.call import Rule
from onnxpress.gradients.rules import (
    activations,
    convolution,
    elementwise,
    integers,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    shapes,
)
from onnxpress.gradients.tape import CONTRIB
from onnxpress.graph import is_standard

__all__ = ["CONTRIB_RULES", "RULES", "rule_of"]

RULES: dict[str, Rule] = {
    **activations.RULES,
    **convolution.RULES,
    **elementwise.RULES,
    **integers.RULES,
    **linear.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **quantization.RULES,
    **recurrent.RULES,
    **reductions.RULES,
    **shapes.RULES,
}
"""By operator of the standard domain, from opset 13 on."""

CONTRIB_RULES: dict[str, Rule] = quantization.CONTRIB_RULES
"""By operator of onnxruntime's own domain."""


def rule_of(node: ir.Node) -> Rule | None:
    """The rule of a node's operator, where there is one."""
    if node.domain == CONTRIB:
        return CONTRIB_RULES.get(node.op_type)
    return RULES.get(node.op_type) if is_standard(node) else None
