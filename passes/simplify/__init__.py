"""Simplify the graph without changing what it computes.

- `simplify`: the pass, and how the rules are composed to a fixed point.
- `backward`, `forward`: constant scales and offsets go into the Conv or Gemm before them, or the
  Convs behind them; `merging`: Convs in a row; `convolution`: what these have in common.
- `activation_functions`: activation functions that exporters took apart.
- `embedding`: one-hot vectors times a table.
"""

from onnxpress.passes.simplify.simplify import Simplify, simplify

__all__ = ["Simplify", "simplify"]
