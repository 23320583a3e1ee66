"""Modules of libraries that most commands never use, loaded when something in them is asked for.

onnx_ir imports sympy for arithmetic on symbolic dimensions, which is half of the time that it takes
to load, a quarter of `onnxpress inspect` and 34 MB; of our passes none computes with symbolic
dimensions, and onnx_ir itself does so only when a dimension is added or compared as an expression.
onnxscript imports the reference implementation of every operator, of which folding needs those that
it meets constants of.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import LazyLoader
from types import ModuleType

__all__ = ["load_late"]

_LATE = frozenset({"sympy", "onnx_ir._symbolic_shapes", "onnx.reference.ops"})
"""The second one uses the first while it is imported."""


class _LateFinder(MetaPathFinder):
    """Finds what the other finders find, and lets Python's own lazy loader load it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of one of `_LATE`; None for others, so that the usual finders are asked."""
        if fullname not in _LATE:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_late() -> None:
    """Load the modules late from now on, in a process of our own."""
    sys.meta_path.insert(0, _LateFinder())
