"""How samples were prepared, as plain tables that a recipe keeps: those of a description.

{"images": {"size": [224, 224], "mean": […], …}, "constants": {"scale": 1.0}}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import settings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["CONSTANTS", "filled", "preparation_of"]

CONSTANTS = "constants"


def preparation_of(
    table: str,
    how: "DataclassInstance",
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
    **resolved: Any,  # noqa: ANN401 - of settings
) -> dict[str, Any]:
    """What prepares other samples in the same way.

    Args:
        table: of a description.
        how: its settings.
        inputs: of the model.
        constants: what its other inputs are fed.
        resolved: settings that were found out; `None` or empty: they were not.
    """
    own = dataclasses.replace(how, **{name: value for name, value in resolved.items() if value})
    values: dict[str, Any] = {}
    for setting in settings_of(type(own)):
        value = getattr(own, setting.name)
        if value is not None and value != ():
            values[setting.name] = list(value) if setting.many else value
    found: dict[str, Any] = {table: values}
    if constants:
        specs = {spec.name: spec for spec in inputs}
        found[CONSTANTS] = {name: _plain(a, specs[name]) for name, a in sorted(constants.items())}
    return found


def filled(value: object, spec: InputSpec) -> Array:
    """What an input is fed for a value of a description; a number fills the whole of it.

    Raises:
        TypeError, ValueError, OverflowError: it cannot be.
    """
    array = np.array(value, dtype=spec.dtype)
    if array.ndim:
        return array
    sizes = [dim if isinstance(dim, int) and dim >= 0 else 1 for dim in spec.shape]
    return np.full(sizes, array, dtype=spec.dtype)


def _plain(array: Array, spec: InputSpec) -> Any:  # noqa: ANN401 - of TOML
    if array.size:
        alike = array.reshape(-1)[:1].tolist()[0]
        if np.array_equal(filled(alike, spec), array):
            return alike
    return array.tolist()
