"""Compare gradients with finite differences on the model itself, before they are trusted.

Of some parameters, the largest first: (L(w + εd) − L(w − εd))/2ε against g·d, d along the
gradient, where a difference stands out most of float32's noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.losses import LOSS
from onnxpress.distillation.rounded import Parameter
from onnxpress.errors import ModelError
from onnxpress.runtime import Session

__all__ = ["Comparison", "compare_gradients", "require_agreement"]

_MOST = 8
_STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Of the parameter's norm; large ones cross kinks, small ones drown in noise."""
_AGREE = 0.1
_NOISE = 3e-6
"""Of the loss: what is no larger is no difference."""
_NOTHING = 1e-6
"""A loss of a student that answers as its teacher: all differences are noise."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One parameter.

    Attributes:
        parameter: its name.
        by_rules: derivative along the gradient, from the graph.
        by_differences: the nearest of several steps; NaN where all drown in noise.
    """

    parameter: str
    by_rules: float
    by_differences: float

    @property
    def agrees(self) -> bool:
        """Within a tenth; or nothing can be seen."""
        if np.isnan(self.by_differences):
            return True
        return abs(self.by_differences - self.by_rules) <= _AGREE * abs(self.by_rules)


def compare_gradients(
    session: Session,
    scoring: Session,
    gradients: Mapping[str, str],
    parameters: Mapping[str, Parameter],
    feed: Mapping[str, npt.NDArray[np.generic]],
) -> list[Comparison]:
    """Derivatives both ways on one batch.

    Args:
        session: of the loss and its gradients.
        scoring: of the loss alone, which takes a quarter of the time.
        gradients: the output of each parameter's.
        parameters: what is trained.
        feed: of one run.
    """
    values = {name: parameter.start for name, parameter in parameters.items()}
    here = session.run({**feed, **values})
    loss = float(here[LOSS])
    if loss < _NOTHING:
        return []
    largest = sorted(parameters, key=lambda name: (-parameters[name].start.size, name))
    spread = largest[:: max(1, len(largest) // _MOST)][:_MOST]
    found = []
    for name in spread:
        mask = parameters[name].mask
        gradient = here[gradients[name]].astype(np.float64)
        gradient = gradient if mask is None else gradient * mask
        slope = float(np.linalg.norm(gradient))
        if not np.isfinite(slope) or slope == 0:
            found.append(Comparison(name, slope, np.nan if slope == 0 else np.inf))
            continue
        size = max(float(np.linalg.norm(parameters[name].start)), 1e-3)
        seen = []
        for step in _STEPS:
            length = step * size
            ends = []
            for sign in (1, -1):
                moved = values[name] + (sign * length / slope * gradient).astype(np.float32)
                ends.append(float(scoring.run({**feed, **values, name: moved})[LOSS]))
            if abs(ends[0] - ends[1]) > _NOISE * max(abs(loss), 1e-3) / _AGREE:
                seen.append((ends[0] - ends[1]) / (2 * length))
        nearest = min(seen, key=lambda each: abs(each - slope), default=np.nan)
        found.append(Comparison(name, slope, nearest))
    return found


def require_agreement(found: list[Comparison]) -> None:
    """Refuse to train by gradients that are wrong.

    Raises:
        ModelError: with the figures of the first that disagrees.
    """
    for each in found:
        if not each.agrees:
            raise ModelError(
                f"the gradient of {each.parameter!r} is {each.by_rules:.4g} along itself by the "
                f"rules and {each.by_differences:.4g} by finite differences; expected the same "
                "within a tenth: a rule does not fit this model; report it with the model [M009]"
            )
