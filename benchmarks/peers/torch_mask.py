"""PyTorch's global L1 mask of a model's weights, in an environment of its own.

python torch_mask.py MODEL.onnx AMOUNT OUTPUT.npz NAME [NAME ...]
"""

import sys

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.utils import prune


def main() -> None:
    """Prune the named initializers together and write what stays."""
    path, amount, output, *names = sys.argv[1:]
    known = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    layers = {}
    for name in names:
        layer = nn.Module()
        weight = torch.from_numpy(onnx.numpy_helper.to_array(known[name]).copy())
        layer.register_parameter("weight", nn.Parameter(weight))
        layers[name] = layer
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()],
        pruning_method=prune.L1Unstructured,
        amount=float(amount),
    )
    masks = {name: layer.weight_mask.numpy().astype(bool) for name, layer in layers.items()}
    np.savez(output, **masks)


if __name__ == "__main__":
    main()
