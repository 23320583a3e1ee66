"""Integer layouts: which integers hold the activations, which the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["LAYOUTS", "Layout", "LayoutName"]

_INTEGERS = {"u8": "uint8", "s8": "int8", "u16": "uint16", "s16": "int16"}

LayoutName = Literal["u8u8", "u8s8", "s8u8", "s8s8", "u16u8", "u16s8", "s16u8", "s16s8"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Integer types of activations and weights, as `u8s8` for uint8 and int8.

    Attributes:
        activation_type: NumPy's name.
        weight_type: NumPy's name.
    """

    activation_type: str
    weight_type: str


LAYOUTS: Mapping[str, Layout] = {
    name: Layout(_INTEGERS[name[:-2]], _INTEGERS[name[-2:]]) for name in get_args(LayoutName)
}
"""All that a file may name."""
