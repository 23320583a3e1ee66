"""Quantize without a search: what `quantize_static` does. MODEL CALIBRATION OUTPUT."""

import sys

import onnx_ir as ir

import onnxpress
from onnxpress.adapter import PressPass
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify


def main() -> None:
    """Simplify, observe, quantize, save."""
    model, calibration, output = sys.argv[1:]
    passes = (PressPass(Simplify()), PressPass(Quantize(), calibration=calibration))
    made = ir.passes.Sequential(*passes)(onnxpress.load(model)).model
    onnxpress.save(made, output)


if __name__ == "__main__":
    main()
