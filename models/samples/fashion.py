"""Fashion-MNIST's test images that the committed evaluation file does not hold."""

import gzip
from pathlib import Path

import fetch
import numpy as np

from samples import Samples

COMMITTED = Path(fetch.__file__).parent / "fashion_evaluation.npz"


def fashion_fresh(cache: Path) -> Samples:
    """1,024 of the 8,000 other test images, with their classes."""
    folder = fetch.debian("dataset-fashion-mnist", cache) / "usr/share/datasets/fashion-mnist"
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28)
    with np.load(COMMITTED) as committed:
        used = {row.tobytes() for row in np.rint(committed["image"] * 255).astype(np.uint8)}
    free = [index for index, row in enumerate(pixels) if row.tobytes() not in used]
    drawn = np.random.default_rng(106).permutation(free)[:1024]
    truth = np.frombuffer(labels, np.uint8).astype(np.int64)
    return {"image": pixels[drawn].astype(np.float32) / 255, "__labels__": truth[drawn]}
