"""What tells two models apart, and where along the graph they part first.

- `tensors`: what depends on the inputs, in the order of computation.
- `quantized`: real values between integer operators.
- `tracing`: run both and look inside, with values of one put into the other.
- `matching`: which tensors stand for each other; `pairing`, `structure`, `rewriting` are its parts.
- `parting`: the error of every tensor, and what its own node adds.
- `explaining`: which nodes, and what differs between them.
- `weights`: constants by name and value.
- `comparison`: all of it.
"""

from onnxpress.difference.comparison import DEFAULT_TOLERANCE_DB, Difference, compare_models
from onnxpress.difference.explaining import Parting
from onnxpress.difference.parting import TensorError

__all__ = ["DEFAULT_TOLERANCE_DB", "Difference", "Parting", "TensorError", "compare_models"]
