"""Fix dynamic dimensions: of an input by its shape, of a symbol wherever it stands."""

import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxpress.errors import UsageError, nearest

__all__ = ["fix_shapes"]

_REQUEST = re.compile(r"(?P<name>.+)=(?P<sizes>\d+(?:x\d+)*)", re.DOTALL)


def fix_shapes(model: ir.Model, requests: Sequence[str]) -> ir.Model:
    """A copy with dimensions fixed and all shapes that follow from them worked out.

    Args:
        model: it is not changed.
        requests: `NAME=1x3x224x224` for an input, `DIM=4` for a symbolic dimension; a symbol that
            an input's shape gives a size to has that size everywhere.

    Raises:
        UsageError: a request cannot be read, names nothing in the model, has the wrong number of
            dimensions, or contradicts the model or another request.
    """
    inputs = {
        value.name: value
        for value in model.graph.inputs
        if value.name is not None and value.name not in model.graph.initializers
    }
    symbols = sorted(
        {
            str(dim.value)
            for value in inputs.values()
            for dim in value.shape or ()
            if not isinstance(dim, int) and dim.value is not None
        }
    )
    sizes: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for request in requests:
        name, numbers = _read(request)
        if name in inputs and not (name in symbols and len(numbers) == 1):
            if shapes.setdefault(name, numbers) != numbers:
                raise UsageError(
                    f"--fix-shape {request}: {name} was given {_text(shapes[name])} before [U004]"
                )
            _bind_shape(request, inputs[name], numbers, sizes)
        elif name in symbols:
            if len(numbers) != 1:
                raise UsageError(
                    f"--fix-shape {request}: {name} is one dimension, not a shape [U004]"
                )
            _bind(request, name, numbers[0], sizes)
        else:
            known = [*inputs, *symbols]
            raise UsageError(
                f"--fix-shape {request}: the model has no input and no dimension {name!r}"
                f"{nearest(name, known)} (inputs: {', '.join(inputs)}; dimensions: "
                f"{', '.join(symbols) or 'none with a name'}) [U004]"
            )
    fixed = model.clone()
    _substitute(fixed, sizes)
    for value in fixed.graph.inputs:
        if value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    return _inferred(fixed)


def _read(request: str) -> tuple[str, tuple[int, ...]]:
    found = _REQUEST.fullmatch(request.strip())
    sizes = tuple(int(size) for size in found["sizes"].split("x")) if found else ()
    if found is None or 0 in sizes:
        raise UsageError(
            f"--fix-shape {request}: expected NAME=1x3x224x224 for an input or DIM=4 for a "
            "symbolic dimension, sizes of at least 1 [U004]"
        )
    return found["name"].strip(), sizes


def _bind(request: str, symbol: str, size: int, sizes: dict[str, int]) -> None:
    if sizes.setdefault(symbol, size) != size:
        raise UsageError(
            f"--fix-shape {request}: the dimension {symbol!r} would be {size} here and "
            f"{sizes[symbol]} elsewhere [U004]"
        )


def _bind_shape(
    request: str, value: ir.Value, numbers: tuple[int, ...], sizes: dict[str, int]
) -> None:
    if value.shape is None:
        return
    if len(value.shape) != len(numbers):
        raise UsageError(
            f"--fix-shape {request}: {value.name} has {len(value.shape)} dimensions "
            f"[{', '.join(_dimension(dim) for dim in value.shape)}], not {len(numbers)} [U004]"
        )
    for axis, (dim, size) in enumerate(zip(value.shape, numbers, strict=True)):
        if isinstance(dim, int):
            if dim != size:
                raise UsageError(
                    f"--fix-shape {request}: axis {axis} of {value.name} is {dim} in the model, "
                    f"not {size} [U004]"
                )
        elif dim.value is not None:
            _bind(request, str(dim.value), size, sizes)


def _dimension(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else str(dim.value or "?")


def _text(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _substitute(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Put sizes in the place of symbols; other unknown shapes inside are worked out anew."""
    interface = {*model.graph.inputs, *model.graph.outputs}
    for graph in model.graphs():
        values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
        for value in values:
            if value.shape is None or value.shape.is_static():
                continue
            dims = [
                dim if isinstance(dim, int) else sizes.get(str(dim.value), dim)
                for dim in value.shape
            ]
            inside = value not in interface and graph is model.graph
            value.shape = None if inside else ir.Shape(dims)


def _inferred(model: ir.Model) -> ir.Model:
    """All shapes worked out; an output that stays unknown keeps what the model says of it."""
    for value in model.graph.outputs:
        if value.shape is not None and not value.shape.is_static():
            # A symbol of its own would stand against what is worked out.
            value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape])
    return ShapeInferencePass(data_prop=True)(model).model
