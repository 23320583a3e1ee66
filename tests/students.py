"""Students that are worse than their teachers, and samples to train them with."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.layers import find_layers

__all__ = ["pruned", "saved"]

_MODELS = Path(__file__).parents[1] / "models"


def pruned(name: str, share: float) -> ir.Model:
    """A committed network without the smallest weights of each layer, and nothing made up for."""
    model = model_file.load(_MODELS / f"{name}.onnx")
    for layer in find_layers(model):
        array = layer.array.copy()
        least = np.quantile(np.abs(array), share)
        array[np.abs(array) < least] = 0
        layer.write_stored(array)
    return model


def saved(model: ir.Model, path: Path) -> Path:
    """The file that holds it."""
    model_file.save(model, path)
    return path
