"""Replace a layer by two or three smaller ones whose product approximates its weight.

- `factorize`: the pass: which layers, which ranks, what they save.
- `decompose`: the arithmetic: factors of low rank that keep the layer's outputs.
- `rewrite`: the nodes that take a layer's place.
"""

from onnxpress.passes.factorize.factorize import Factorize

__all__ = ["Factorize"]
