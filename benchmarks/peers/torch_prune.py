"""Prune channels of a Fashion-MNIST network with torch-pruning, in its own environment.

    python torch_prune.py MODEL.onnx SHARE OUTPUT.onnx

The network is the class of `models/train_fashion.py` with the weights of the file. SHARE is the
share of the multiply-adds to keep. Magnitudes of whole groups (the package's default importance),
one threshold over all groups, no training afterwards. Prints the seconds that took alone.
"""

import copy
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
import torch_pruning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))

import train_fashion

NETWORKS = {
    "fashion_cnn": train_fashion.FashionCnn,
    "fashion_mobile": train_fashion.FashionMobile,
    "fashion_mlp": train_fashion.FashionMlp,
}


def main() -> None:
    """Find the ratio that leaves the wanted share, and write the network."""
    source, share, output = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    network = NETWORKS[source.stem]()
    graph = onnx.load(source).graph
    stored = {
        tensor.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
        for tensor in graph.initializer
    }
    for node in graph.node:
        # The exporter keeps equal parameters once: a shortcut's offset is that of its branch.
        if node.op_type == "Identity" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
    missing, _ = network.load_state_dict(stored, strict=False)
    left = [n for n in missing if not n.endswith(("num_batches_tracked", "mean", "deviation"))]
    if left:
        raise ValueError(f"{source}: holds no {left}")
    network.eval()
    started = time.monotonic()
    image = torch.zeros(1, 1, 28, 28)
    whole, _ = torch_pruning.utils.count_ops_and_params(network, image)
    low, high = 0.0, 0.95
    for _ in range(8):
        ratio = (low + high) / 2
        pruned = copy.deepcopy(network)
        pruner = torch_pruning.pruner.BasePruner(
            pruned,
            image,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=ratio,
            round_to=8,
            ignored_layers=[pruned.head],
        )
        pruner.step()
        kept, _ = torch_pruning.utils.count_ops_and_params(pruned, image)
        low, high = (ratio, high) if kept > share * whole else (low, ratio)
    seconds = time.monotonic() - started
    train_fashion.export(pruned.eval(), output, 17)
    print(f"{seconds:.1f}")


if __name__ == "__main__":
    main()
