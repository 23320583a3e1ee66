"""The structure of a Transformer: residual streams, attentions, MLPs, norms, tables.

- `structure`: all of it, and as plain data.
- `streams`, `attention`, `mlp`, `norms`, `embeddings`: its parts.
- `projections`: linear layers in every stored form; `tensors`: how a tensor came about.
"""

from onnxpress.transformer.structure import Structure, find_structure

__all__ = ["Structure", "find_structure"]
