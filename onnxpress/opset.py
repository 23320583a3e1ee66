"""Raise a model's opset when a form needs it (per-channel QDQ needs 13), checked afterwards.

The conversion is onnx's own (`onnx.version_converter`). It does not enter subgraphs, so
models with control flow are left as they are.
"""

import logging

import onnx
import onnx_ir as ir

from onnxpress.model_file import PROTOBUF_LIMIT_BYTES, weight_bytes

__all__ = ["raise_opset", "standard_opset"]

logger = logging.getLogger(__name__)


def standard_opset(model: ir.Model) -> int:
    """The version of ONNX's own operator set that the model imports."""
    return int(model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1)))


def raise_opset(model: ir.Model, minimum: int) -> tuple[ir.Model, str | None]:
    """A model of opset `minimum` at least, or the same model and the reason why not."""
    current = standard_opset(model)
    if current >= minimum:
        return model, None
    if next(iter(model.graph.subgraphs()), None) is not None or model.functions:
        return model, f"opset {current} cannot be raised: the model has subgraphs or functions"
    if weight_bytes(model) >= PROTOBUF_LIMIT_BYTES:
        return model, f"opset {current} cannot be raised: the model is larger than 2 GB"
    try:
        converted = onnx.version_converter.convert_version(ir.to_proto(model), minimum)
        onnx.checker.check_model(converted)
    except (RuntimeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:160]
        return model, f"opset {current} cannot be raised to {minimum}: {reason}"
    logger.info("raised opset %d to %d", current, minimum)
    return ir.from_proto(converted), None
