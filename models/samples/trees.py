"""A random forest on handwritten digits, made here: trees, class labels and a map of scores."""

from pathlib import Path

import numpy as np

from samples import Samples


def trees(cache: Path) -> tuple[Samples, Samples]:
    """Trains and writes the model too; 128 and 256 digits of 8x8 that it was not trained on."""
    # Needed for this model only.
    from skl2onnx import to_onnx  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    x, digits = _digits()
    forest = RandomForestClassifier(200, random_state=0).fit(x[:900], digits[:900])
    model = to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    target = cache / "trees" / "model.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(model.SerializeToString())
    return {"X": x[900:1028]}, {"X": x[1028:1284], "__labels__": digits[1028:1284]}


def trees_fresh(cache: Path) -> Samples:
    """The other 513 digits."""
    del cache
    x, digits = _digits()
    return {"X": x[1284:], "__labels__": digits[1284:]}


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # noqa: PLC0415

    x, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), digits[order].astype(np.int64)
