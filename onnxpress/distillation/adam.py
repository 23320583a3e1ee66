"""Adam (arXiv:1412.6980), with steps relative to the size of each parameter."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.rounded import Parameter

__all__ = ["Adam"]

Floats = npt.NDArray[np.float32]

_MEAN_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """First and second moments of the gradients, and the step that follows from them.

    Attributes:
        means: of gradients, by parameter.
        squares: of their squares.
        number: of steps since it began or began anew.
    """

    def __init__(self, parameters: Mapping[str, Parameter], values: dict[str, Floats]) -> None:
        self._values = values
        self._masks = {name: p.mask for name, p in parameters.items() if p.mask is not None}
        self._sizes = {name: parameter.size for name, parameter in parameters.items()}
        self._least = {name: p.least for name, p in parameters.items() if p.least is not None}
        self.restart()

    def restart(self) -> None:
        """Forget all gradients."""
        self.means = {name: np.zeros_like(value) for name, value in self._values.items()}
        self.squares = {name: np.zeros_like(value) for name, value in self._values.items()}
        self.number = 0

    def step(self, gradients: Mapping[str, Floats], rate: float) -> None:
        """Change the values in place."""
        self.number += 1
        straight = 1 - _MEAN_DECAY**self.number
        square = math.sqrt(1 - _SQUARE_DECAY**self.number)
        for name, given in gradients.items():
            gradient = given * self._masks[name] if name in self._masks else given
            mean, squares = self.means[name], self.squares[name]
            mean *= _MEAN_DECAY
            mean += (1 - _MEAN_DECAY) * gradient
            squares *= _SQUARE_DECAY
            squares += (1 - _SQUARE_DECAY) * np.square(gradient)
            size = self._sizes[name] * np.float32(rate * square / straight)
            value = self._values[name]
            value -= size * mean / (np.sqrt(squares) + _EPSILON)
            if name in self._least:
                np.maximum(value, self._least[name], out=value)
