"""Statistics of activations and layer inputs, collected once and used by every pass."""

from onnxpress.statistics.collector import Observations, collect
from onnxpress.statistics.exposing import input_key, outermost
from onnxpress.statistics.grids import ActivationGrid, activation_grids
from onnxpress.statistics.kept import kept_on_disk
from onnxpress.statistics.row_sums import wide_note
from onnxpress.statistics.store import LayerStatistics, Statistics, TensorStatistics

__all__ = [
    "ActivationGrid",
    "LayerStatistics",
    "Observations",
    "Statistics",
    "TensorStatistics",
    "activation_grids",
    "collect",
    "input_key",
    "kept_on_disk",
    "outermost",
    "wide_note",
]
