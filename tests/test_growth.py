"""How much a node makes is known from its constants, or not said."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.growth import largest_made


def model_of(body: str, **constants: np.ndarray) -> ir.Model:
    names = "".join(
        f", {'int64' if array.dtype.kind == 'i' else 'float'}[{len(array)}] {name}"
        for name, array in constants.items()
    )
    model = ir.from_onnx_text(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[1, 1, 2, 2] x{names}) => (float[a, b, c, d] y) {{ {body} }}"""
    )
    for name, array in constants.items():
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=name)
        model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize(
    ("body", "constants", "expected"),
    [
        ("y = ConstantOfShape (s)", {"s": [10, 10, 10, 10]}, 10**4),
        ("y = Expand (x, s)", {"s": [50, 20, 2, 2]}, 4000),
        ("y = Tile (x, s)", {"s": [10, 10, 10, 1]}, 1000),
        ("y = Pad (x, s)", {"s": [0, 0, 0, 500, 0, 0, 0, 500]}, 1000),
        ('y = Resize <mode = "nearest"> (x, , f)', {"f": [1.0, 1.0, 30.0, 30.0]}, 900),
        ('y = Resize <mode = "nearest"> (x, , , s)', {"s": [1, 1, 300, 300]}, 90_000),
    ],
)
def test_constants_say_how_much_is_made(
    body: str, constants: dict[str, list[int] | list[float]], expected: int
) -> None:
    arrays = {
        name: np.array(values, np.int64 if name == "s" else np.float32)
        for name, values in constants.items()
    }
    found = largest_made(model_of(body, **arrays))
    assert found is not None
    assert found[1] >= expected
    assert found[1] <= 4 * expected


def test_what_is_computed_is_not_said() -> None:
    found = largest_made(model_of("s = Shape (x)\n y = ConstantOfShape (s)"))
    assert found is not None
    assert found[1] == 0


def test_model_without_such_nodes_makes_nothing() -> None:
    assert largest_made(model_of("y = Neg (x)")) is None
