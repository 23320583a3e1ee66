"""Gradients of ONNX graphs as ONNX nodes, which onnxruntime runs.

- `tape`, `call`: formulas as nodes, and what a formula is given.
- `rules`: the formula of each operator.
- `reverse`: from a loss back to the parameters.
"""

from onnxpress.gradients.reverse import Derivative, differentiate, take_as_inputs

__all__ = ["Derivative", "differentiate", "take_as_inputs"]
