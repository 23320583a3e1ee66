"""Change a model's opset: up for a form (per-channel QDQ needs 13), down for a target.

The conversion is onnx's own (`onnx.version_converter`). It does not enter subgraphs, so
models with control flow are left as they are.
"""

import logging

import onnx
import onnx_ir as ir

from onnxpress.beyond_ir import from_proto, to_proto
from onnxpress.graph import standard_opset
from onnxpress.model_file import PROTOBUF_LIMIT_BYTES, held_bytes

__all__ = ["change_opset", "newest_opset", "raise_opset"]

logger = logging.getLogger(__name__)


def newest_opset() -> int:
    """The newest opset that the installed onnx can convert to."""
    return int(onnx.defs.onnx_opset_version())


def raise_opset(model: ir.Model, minimum: int) -> tuple[ir.Model, str | None]:
    """A model of opset `minimum` at least, or the same model and the reason why not."""
    return (model, None) if standard_opset(model) >= minimum else change_opset(model, minimum)


def change_opset(model: ir.Model, version: int) -> tuple[ir.Model, str | None]:
    """A model of opset `version`, up or down, or the same model and the reason why not.

    Down works where onnx has an adapter for every operator that changed, mostly between 18 and
    the newest.
    """
    current = standard_opset(model)
    if current == version:
        return model, None
    refused = f"opset {current} cannot be changed to {version}"
    if version > newest_opset():
        return (
            model,
            f"{refused}: the newest that onnx {onnx.__version__} knows is {newest_opset()}",
        )
    if next(iter(model.graph.subgraphs()), None) is not None or model.functions:
        return model, f"{refused}: the model has subgraphs or functions"
    if held_bytes(model) >= PROTOBUF_LIMIT_BYTES:
        return model, f"{refused}: the model is larger than 2 GB"
    try:
        converted = onnx.version_converter.convert_version(to_proto(model), version)
        onnx.checker.check_model(converted)
    except (
        RuntimeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = " ".join(str(error).split())
        # onnx asserts in C++: what matters stands behind the name of the file.
        return model, f"{refused}: {reason.rpartition('failed: ')[2][:160]}"
    logger.info("changed opset %d to %d", current, version)
    return from_proto(converted), None
