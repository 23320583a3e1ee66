"""Constants in a few numbers: type, shape, range, and a histogram of a sample of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["constant_document", "type_text", "value_text"]

_BINS = 24
_COUNTED = 1 << 15
"""Elements of a constant that are counted, evenly spread: a model may have thousands."""
_RANGED = 1 << 22
"""Elements up to which the range is of all of them."""
_SHOWN = 8


def type_text(dtype: ir.DataType | None, shape: ir.ShapeProtocol | None) -> str:
    """`float[1, 3, height, 640]`; what is not known is left out."""
    name = "" if dtype is None else dtype.name.lower()
    if shape is None:
        return name
    dims = ("?" if getattr(dim, "value", dim) is None else str(dim) for dim in shape)
    return f"{name}[{', '.join(dims)}]"


def value_text(value: ir.Value) -> str:
    """Type and shape of a tensor."""
    return type_text(value.dtype, value.shape)


def constant_document(tensor: ir.TensorProtocol) -> dict[str, Any]:
    """What a page shows of a constant.

    `low`, `high` and `counts` are `null` where it holds no finite numbers; `sampled` is how many
    elements the range is of, where these are not all.
    """
    found: dict[str, Any] = {
        "type": type_text(tensor.dtype, tensor.shape),
        "bytes": tensor.nbytes,
        "values": "",
        "low": None,
        "high": None,
        "counts": None,
        "zeros": None,
        "sampled": None,
    }
    if tensor.dtype == ir.DataType.STRING or not tensor.size:
        return found
    flat = tensor.numpy().reshape(-1)
    if flat.dtype.kind == "c":
        return found
    if flat.size <= _SHOWN:
        found["values"] = ", ".join(f"{float(value):.6g}" for value in flat)
    ranged = flat[:: -(-flat.size // _RANGED)]
    found["sampled"] = len(ranged) if len(ranged) < len(flat) else None
    finite = _finite(ranged)
    if not finite.size:
        return found
    found["low"], found["high"] = float(finite.min()), float(finite.max())
    counted = finite[:: -(-finite.size // _COUNTED)]
    found["zeros"] = round(float(np.mean(counted == 0)), 4)
    if found["low"] < found["high"] and flat.size > _SHOWN:
        span = (found["low"], found["high"])
        found["counts"] = np.histogram(counted, _BINS, span)[0].tolist()
    return found


def _finite(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        floats = values.astype(np.float32)
    return np.asarray(floats[np.isfinite(floats)])
