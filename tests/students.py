"""Students that are worse than their teachers, and samples to train them with."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.graph import Names, add_initializer, prepend
from onnxpress.layers import find_layers

__all__ = ["coarse", "pruned", "saved"]

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


def coarse(name: str, levels: int) -> ir.Model:
    """A committed network with weights of int8 on so few levels to either side."""
    model = model_file.load(_MODELS / f"{name}.onnx")
    names = Names(model)
    for layer in find_layers(model):
        # By all but the largest weights, which alone would leave zeros of most others.
        scale = np.float32(np.quantile(np.abs(layer.array), 0.99) / levels)
        integers = np.rint(layer.array / scale).clip(-levels, levels).astype(np.int8)
        stored = [
            add_initializer(names, model.graph, f"{layer.name}_{what}", np.asarray(array))
            for what, array in (("int8", integers), ("scale", scale))
        ]
        node = ir.Node("", "DequantizeLinear", stored, name=f"{layer.name}_dequantized")
        prepend(model.graph, [node])
        layer.weight.replace_all_uses_with(node.outputs[0])
        node.outputs[0].name = f"{layer.name}_dequantized"
        del model.graph.initializers[layer.name]
    return model


def saved(model: ir.Model, path: Path) -> Path:
    """The file that holds it."""
    model_file.save(model, path)
    return path
