"""Weights in a few numbers: histograms with the grid they were rounded to, spectra with the rank.

Of the layers with the largest predicted errors alone, and of samples of their weights, so that what
is recorded and the time it takes are bounded whatever the model.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Parameter
from onnxpress.graph import graphs_of
from onnxpress.layers import Layer, to_matrix
from onnxpress.report.layer_rows import Origins
from onnxpress.result import Result
from onnxpress.runtime import svd

__all__ = ["histograms", "spectra"]

_LAYERS = 8
_BINS = 32
_VALUES = 1 << 20
"""Weights of a layer that a histogram counts, about."""
_SPECTRA = 6
_POINTS = 64
_MOST_ELEMENTS = 2_000_000
"""Of a weight that is decomposed for the report: half a second at most."""

Floats = npt.NDArray[np.float64]


def histograms(
    result: Result, origins: Origins, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """How the weights of the layers with the largest errors lie, and their integer grid.

    Args:
        result: with the models.
        origins: of the model that its first stage left.
        rows: of its layers, as `layer_rows` gives them.
    """
    wanted = sorted((row for row in rows if row["predicted_error"]), key=_error)[:_LAYERS]
    weights = {weight.name: weight for weight in origins.weights}
    model = result.named or result.model
    grids = _grids(model, {row["layer"] for row in wanted}) if wanted else {}
    found = []
    for row in wanted:
        tensor = weights[row["layer"]].weight.const_value
        assert tensor is not None
        values = tensor.numpy().reshape(-1)
        values = values[:: max(1, values.size // _VALUES)].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            counts, edges = np.histogram(values, _BINS)
            found.append(
                {
                    "layer": row["layer"],
                    "low": float(edges[0]),
                    "high": float(edges[-1]),
                    "counts": counts.tolist(),
                    "grid": grids.get(row["layer"]),
                }
            )
    return found


def _error(row: dict[str, Any]) -> float:
    return -float(row["predicted_error"])


def _grids(model: ir.Model, names: set[str]) -> dict[str, dict[str, Any]]:
    """The steps of integers that were put in a weight's place, by the weight's name.

    Integers and their scales are called after the weight: `NAME_quantized`, `NAME_scale`.
    """
    constants: dict[str, ir.Value] = {}
    for graph in graphs_of(model.graph):
        constants.update(graph.initializers)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        integers = constants.get(f"{name}_quantized")
        scale = constants.get(f"{name}_scale", constants.get(f"{name}_scale_equalized"))
        if integers is None or integers.dtype is None or scale is None or scale.const_value is None:
            continue
        steps = scale.const_value.numpy().astype(np.float64).reshape(-1)
        if steps.size and np.isfinite(steps).all():
            found[name] = {
                "bits": round(integers.dtype.itemsize * 8),
                "steps": len(steps),
                "least": float(steps.min()),
                "middle": float(np.median(steps)),
                "most": float(steps.max()),
            }
    return found


def spectra(result: Result) -> list[dict[str, Any]]:
    """Singular values of layers that were factorized, and how many were kept."""
    found: list[dict[str, Any]] = []
    for before, stage in zip(result.stages, result.stages[1:], strict=False):
        ranked = [d for d in stage.decisions if _rank(d.candidate.parameters) is not None]
        if not ranked:
            continue
        layers = {w.name: w for w in Origins(before.model).weights if isinstance(w, Layer)}
        ranked.sort(key=lambda d: -d.candidate.predicted_error)
        for decision in ranked:
            layer = layers.get(decision.site)
            values = None if layer is None else _singular_values(layer, decision.candidate.family)
            if values is None or len(found) >= _SPECTRA:
                continue
            places = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
            found.append(
                {
                    "layer": decision.site,
                    "form": decision.candidate.family,
                    "rank": _rank(decision.candidate.parameters),
                    "of": len(values),
                    "places": (places + 1).tolist(),
                    "values": [float(f"{value:.4g}") for value in values[places]],
                }
            )
    return found


def _rank(parameters: Mapping[str, Parameter]) -> int | None:
    rank = parameters.get("rank")
    return rank if isinstance(rank, int) and not isinstance(rank, bool) else None


def _singular_values(layer: Layer, family: str) -> Floats | None:
    """Of the matrix that was decomposed; `None` where it is large or not known."""
    tensor = layer.weight.const_value
    if tensor is None or math.prod(layer.shape) > _MOST_ELEMENTS:
        return None
    array = tensor.numpy().astype(np.float64)
    matrix: Floats
    if family == "spatial" and array.ndim == 4:
        # Kernels of k×1 and 1×k: outputs and one direction against inputs and the other.
        matrix = array.transpose(1, 2, 0, 3).reshape(array.shape[1] * array.shape[2], -1)
    elif family == "pair" and layer.groups == 1:
        matrix = np.asarray(to_matrix(array, layer.uses[0], 1), np.float64)
    else:
        return None
    if not np.isfinite(matrix).all():
        return None
    _, values, _ = svd(matrix)
    return values / values[0] if values[0] > 0 and math.isfinite(values[0]) else None
