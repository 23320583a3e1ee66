"""Simplify the graph without changing what it computes.

`simplify` composes the passes to a fixed point; `affine` moves constant scales and offsets into
the convolutions around them; `activations` finds activation functions that exporters took apart.
"""

from onnxpress.passes.simplify.simplify import Simplify, simplify

__all__ = ["Simplify", "simplify"]
