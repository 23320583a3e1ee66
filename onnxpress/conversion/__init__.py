"""Make a model fit a target: fixed shapes, opset, half precision, Q/DQ layout, file form."""

from onnxpress.conversion.fit import FLOAT16, Fit, fit_form, fit_interface, fit_shapes
from onnxpress.conversion.ort_format import write_ort

__all__ = ["FLOAT16", "Fit", "fit_form", "fit_interface", "fit_shapes", "write_ort"]
