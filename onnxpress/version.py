"""The version of onnxpress, which the package, recipes and written models state."""

__version__ = "0.1.0"
