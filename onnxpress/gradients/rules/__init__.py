"""The gradients of ONNX's operators: a function each, with its formula.

x and y are a node's first input and output, dx and dy the gradients of the loss by them.
"""

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

__all__ = ["RULES"]

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
