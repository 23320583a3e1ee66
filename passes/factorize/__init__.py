"""Replace a layer by two or three smaller ones whose product approximates its weight.

- `factorize`: the pass: settings, what is proposed, factors in the place of layers.
- `candidates`: forms and ranks of a layer, what they save and lose; `sharing`: of layers that read
  the same tensor.
- `fitting`: the factors of a layer under its statistics; `decompose`: the arithmetic.
- `rewrite`: the nodes that take a layer's place.
"""

from onnxpress.passes.factorize.factorize import Factorize

__all__ = ["Factorize"]
