"""Make a model fit a target: fixed shapes, opset, half precision, Q/DQ layout, file form."""

from onnxpress.conversion.convert import (
    FLOAT16,
    Conversion,
    convert_form,
    convert_interface,
    convert_shapes,
    require_half,
)
from onnxpress.conversion.half_weights import stored_again, with_float_weights
from onnxpress.conversion.halving import samples_to_choose_by
from onnxpress.conversion.node_names import opened_file, with_own_names
from onnxpress.conversion.opset import change_opset, newest_opset
from onnxpress.conversion.ort_format import ort_paths, write_ort
from onnxpress.conversion.overridable import settle_weights
from onnxpress.conversion.shapes import fix_shapes

__all__ = [
    "FLOAT16",
    "Conversion",
    "change_opset",
    "convert_form",
    "convert_interface",
    "convert_shapes",
    "fix_shapes",
    "newest_opset",
    "opened_file",
    "ort_paths",
    "require_half",
    "samples_to_choose_by",
    "settle_weights",
    "stored_again",
    "with_float_weights",
    "with_own_names",
    "write_ort",
]
