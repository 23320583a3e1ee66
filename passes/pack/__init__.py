"""Store weights that are mostly zero as a bit mask and the rest, expanded once at load.

The pass is `pack`.
"""

from onnxpress.passes.pack.pack import Pack

__all__ = ["Pack"]
