"""Train a student towards its teacher, as ONNX graphs that onnxruntime runs.

- `parameters`: what is trained, also behind integers; `losses`: what it is held to.
- `batches`, `training`: samples, steps, the best state; `checking`: whether gradients are right.
- `distilling`: a teacher, a student and samples in, a better student and its judgement out.
"""

from onnxpress.distillation.distilling import Distilled, distill

__all__ = ["Distilled", "distill"]
