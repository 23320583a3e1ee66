"""Whether `sparsify`'s global magnitude removes what PyTorch's `global_unstructured` does.

    python benchmarks/torch_mask.py [NAME ...]

Prints how many of the masks' elements differ, for an amount of 0.2.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from peer_environments import interpreter
from press import paths

import onnxpress
from onnxpress.adapter import PressPass
from onnxpress.layers import find_layers
from onnxpress.passes.sparsify import Sparsify

AMOUNT = 0.2


def main() -> None:
    """Compare the masks of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["fashion_mlp", "fashion_cnn"], metavar="NAME")
    worker = Path(__file__).parent / "peers" / "torch_mask.py"
    for name in parser.parse_args().names:
        path = paths(name)[0]
        model = onnxpress.load(path)
        names = [layer.name for layer in find_layers(model)]
        settings = {"importance": "magnitude", "compensation": "none", "scope": "global"}
        PressPass(Sparsify(sparsity=AMOUNT, **settings))(model)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            masks = Path(folder, "masks.npz")
            command = [str(interpreter("torch")), str(worker), str(path), str(AMOUNT), str(masks)]
            subprocess.run([*command, *names], check=True)
            with np.load(masks) as archive:
                kept = {key: archive[key] for key in archive.files}
        pruned = {layer.name: layer for layer in find_layers(model)}
        different = total = 0
        for key, mask in kept.items():
            weight = pruned[key].weight.const_value
            assert weight is not None
            different += int(((weight.numpy() != 0) != mask).sum())
            total += mask.size
        print(f"{name}: {different} of {total} elements differ", flush=True)


if __name__ == "__main__":
    main()
