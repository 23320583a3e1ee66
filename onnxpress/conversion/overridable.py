"""Weights that are graph inputs too: constants, or defaults that callers may override.

Up to IR version 3 every initializer had to be an input; nobody means to override those, and
onnxruntime does not let them be. From IR version 4 on an initializer is an input only where callers
may give another value (ONNX `docs/IR.md`, "Graphs").
"""

import onnx_ir as ir

__all__ = ["settle_weights"]

_FIRST_WITH_CONSTANTS = 4


def settle_weights(model: ir.Model, overridable: bool | None) -> tuple[ir.Model, str]:  # noqa: FBT001 - as in a recipe
    """Decide what such weights are, and raise the IR version to one that can say it.

    Args:
        model: not changed.
        overridable: whether callers may override them; `None`: from IR version 4 on.

    Returns:
        The same model where there is nothing to decide, else a copy; and what was decided, empty
        where no weight is an input.
    """
    named = [value.name for value in model.graph.inputs if value.name in model.graph.initializers]
    old = model.ir_version < _FIRST_WITH_CONSTANTS
    if not named and not old:
        return model, ""
    found = model.clone()
    found.ir_version = max(model.ir_version, _FIRST_WITH_CONSTANTS)
    if not named:
        return found, ""
    count = f"{len(named):,} weight{'s are inputs' if len(named) > 1 else ' is an input'} too"
    if overridable is None:
        overridable = not old
        why = f", as IR version {model.ir_version} demanded" if old else ""
    else:
        why = ""
    if overridable:
        hint = "" if why or old else "; --no-overridable makes them constants"
        left = f"{count}: callers may override them, so they are left as they are{hint}"
        return found, f"{left} [W009]"
    kept = [value for value in found.graph.inputs if value.name not in found.graph.initializers]
    found.graph.inputs[:] = kept
    hint = "; --overridable keeps them" if why else ""
    changed = f"{count}{why}: they become constants and are no inputs of the result{hint}"
    return found, f"{changed} [W009]"
