"""Train what the other passes left towards the original, on the calibration samples.

The pass is `distill`; the mathematics is in `onnxpress.distillation` and `onnxpress.gradients`.
"""

from onnxpress.passes.distill.distill import Distill

__all__ = ["Distill"]
