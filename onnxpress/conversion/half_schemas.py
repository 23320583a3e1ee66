"""Which inputs and outputs of an operator may be half as well as float32, as its schema says.

Schemas are ONNX's own (`onnx.defs`) and, for its own operators, onnxruntime's. What neither knows
stays in float32.
"""

from functools import cache

import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_schemas

__all__ = ["half_parameters"]

_HALF, _FLOAT = "tensor(float16)", "tensor(float)"


@cache
def half_parameters(
    domain: str, op_type: str, version: int
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Which inputs and outputs may be half; nothing where the operator is not known."""
    schema = _standard(op_type, version) if domain in ("", "ai.onnx") else None
    if schema is None:
        schema = _of_runtime().get((domain, op_type))
    if schema is None:
        return (), ()
    types = {
        constraint.type_param_str: set(constraint.allowed_type_strs)
        for constraint in schema.type_constraints
    }

    def half(parameter: onnx.defs.OpSchema.FormalParameter) -> bool:
        kind = str(getattr(parameter, "type_str", "") or getattr(parameter, "typeStr", ""))
        return {_HALF, _FLOAT} <= types.get(kind, {kind})

    return tuple(map(half, schema.inputs)), tuple(map(half, schema.outputs))


def _standard(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None


@cache
def _of_runtime() -> dict[tuple[str, str], onnx.defs.OpSchema]:
    """The newest schemas of onnxruntime's own operators."""
    found: dict[tuple[str, str], onnx.defs.OpSchema] = {}
    for schema in runtime_schemas.get_all_operator_schema():
        if schema.domain == "com.microsoft":
            found[schema.domain, schema.name] = schema
    return found
