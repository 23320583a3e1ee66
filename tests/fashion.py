"""Fashion-MNIST images, as many as a claim needs."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["fashion_data"]

_MODELS = Path(__file__).parents[1] / "models"


def fashion_data(*, calibration: int = 256, evaluation: int = 2000) -> dict[str, Any]:
    """Arguments of `optimize`: so many of the 256 and of the 2,000 images."""
    with np.load(_MODELS / "fashion_calibration.npz") as archive:
        seen = {"image": archive["image"][:calibration]}
    with np.load(_MODELS / "fashion_evaluation.npz") as archive:
        judged = {name: archive[name][:evaluation] for name in ("image", "__labels__")}
    return {"calibration": seen, "evaluation": judged}
