"""What each form saves, of which there are three kinds: the file, memory once loaded, and time.

A form that is expanded when the model is loaded saves the file alone; integers that a kernel
computes with save memory too. Whether they save time is the clock's to say: of a layer alone where
it was timed, and of the whole model in the closing table.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxpress.loaded import loaded_bytes
from onnxpress.report.layer_rows import Origins
from onnxpress.result import Result

__all__ = ["form_rows"]


def form_rows(
    result: Result, origins: Origins, layers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each form, or for forms that act on the same layers together.

    Args:
        result: with at least one stage.
        origins: of the model that the first left.
        layers: as `layer_rows` gives them.
    """
    models = result.stages[0].model, result.named or result.model
    before, after = (_by_layer(model, origins) for model in models)
    same, saved = _kernels(result, origins)
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for layer in layers:
        if layer["forms"]:
            grouped[", ".join(layer["forms"])].append(layer)
    return [
        {
            "form": form,
            "layers": len(own),
            "bytes_before": sum(layer["bytes_before"] for layer in own),
            "bytes_after": sum(layer["bytes_after"] for layer in own),
            "loaded_bytes_before": sum(before.get(layer["layer"], 0) for layer in own),
            "loaded_bytes_after": sum(after.get(layer["layer"], 0) for layer in own),
            "same_kernels": all(same.get(layer["layer"], True) for layer in own),
            "saved_microseconds": sum(saved.get(layer["layer"], 0.0) for layer in own) or None,
        }
        for form, own in sorted(grouped.items())
    ]


def _by_layer(model: ir.Model, origins: Origins) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for name, size in loaded_bytes(model):
        own = origins.of(name)
        if own is not None:
            found[own] += size
    return found


def _kernels(result: Result, origins: Origins) -> tuple[dict[str, bool], dict[str, float]]:
    """Whether a layer's kernels are as before, and what the clock says that it saves alone."""
    same: dict[str, bool] = {}
    saved: dict[str, float] = defaultdict(float)
    for stage in result.stages[1:]:
        for decision in stage.decisions:
            candidate = decision.candidate
            own = origins.of(decision.site)
            members = {own, *(origins.of(member) for member in candidate.members)} - {None}
            for name in members:
                same[str(name)] = same.get(str(name), True) and candidate.keeps_kernels
            if own is not None:
                saved[own] += candidate.saved_microseconds
    return same, saved
