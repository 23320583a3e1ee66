"""Make a model fit a target: fixed shapes, opset, half precision, Q/DQ layout, file form."""

from onnxpress.conversion.convert import (
    FLOAT16,
    Conversion,
    convert_form,
    convert_interface,
    convert_shapes,
)
from onnxpress.conversion.ort_format import write_ort

__all__ = [
    "FLOAT16",
    "Conversion",
    "convert_form",
    "convert_interface",
    "convert_shapes",
    "write_ort",
]
