"""What onnx's checker lets pass and nothing can work with is refused, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_tensor

from onnxpress.errors import ModelError
from onnxpress.soundness import require_sound


def model_of(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))


def tensor_of(kind: int, dims: list[int], values: Any, *, raw: bool = False) -> onnx.TensorProto:
    return make_tensor("t", kind, dims, values, raw=raw)


WHOLE = {
    "float": tensor_of(TensorProto.FLOAT, [2, 3], [0.0] * 6),
    "half": tensor_of(TensorProto.FLOAT16, [2], np.zeros(2, np.float16)),
    "bfloat16": tensor_of(TensorProto.BFLOAT16, [2], [0.0, 1.0]),
    "float8": tensor_of(TensorProto.FLOAT8E4M3FN, [3], [0.0] * 3),
    "complex": tensor_of(TensorProto.COMPLEX64, [2], [1j, 2.0]),
    "int4": tensor_of(TensorProto.INT4, [3], [1, 2, 3]),
    "uint64": tensor_of(TensorProto.UINT64, [2], [1, 2]),
    "bool": tensor_of(TensorProto.BOOL, [2], [True, False]),
    "text": tensor_of(TensorProto.STRING, [2], ["a", "b"]),
    "scalar": tensor_of(TensorProto.DOUBLE, [], [1.0]),
    "empty": tensor_of(TensorProto.FLOAT, [0, 7], []),
    "raw": onnx.numpy_helper.from_array(np.zeros((4, 5), np.int16), "t"),
    "raw int4": tensor_of(TensorProto.INT4, [3], b"\x21\x03", raw=True),
}


@pytest.mark.parametrize("tensor", WHOLE.values(), ids=WHOLE.keys())
def test_tensor_of_every_form_is_sound(tensor: onnx.TensorProto) -> None:
    require_sound(model_of(tensor), Path("model.onnx"))


@pytest.mark.parametrize("tensor", WHOLE.values(), ids=WHOLE.keys())
def test_tensor_that_lacks_values_is_refused(tensor: onnx.TensorProto) -> None:
    changed = onnx.TensorProto()
    changed.CopyFrom(tensor)
    changed.dims.append(9)
    if 0 in changed.dims:
        changed.dims[0] = 1
    with pytest.raises(ModelError, match=r"model.onnx: tensor 't' of dimensions .* holds \d"):
        require_sound(model_of(changed), Path("model.onnx"))


def test_functions_that_call_others_twice_are_sound() -> None:
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    make = onnx.helper.make_node
    inner = onnx.helper.make_function(
        "own", "inner", ["p"], ["q"], [make("Neg", ["p"], ["q"])], opsets
    )
    calls = [make("inner", ["p"], ["t"], domain="own"), make("inner", ["t"], ["q"], domain="own")]
    outer = onnx.helper.make_function("own", "outer", ["p"], ["q"], calls, opsets)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("outer", ["x"], ["y"], domain="own")],
        "g",
        [info("x", TensorProto.FLOAT, [1])],
        [info("y", TensorProto.FLOAT, [1])],
    )
    made = onnx.helper.make_model(graph, functions=[inner, outer], opset_imports=opsets)
    require_sound(made, Path("model.onnx"))


def test_a_split_into_parts_that_it_does_not_name_is_refused() -> None:
    """Of two thousand million parts shape inference takes 17 GB."""
    split = onnx.helper.make_node("Split", ["x"], ["y", "z"], num_outputs=2**31 - 1)
    info = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph([split], "body", [], [info("y", TensorProto.FLOAT, [1])])
    branch = onnx.helper.make_node("If", ["c"], ["w"], then_branch=body, else_branch=body)
    outputs = [info("w", TensorProto.FLOAT, [1])]
    inputs = [info("x", TensorProto.FLOAT, [2]), info("c", TensorProto.BOOL, [])]
    made = onnx.helper.make_model(onnx.helper.make_graph([branch], "g", inputs, outputs))
    with pytest.raises(ModelError, match="splits into 2,147,483,647 parts and names 2"):
        require_sound(made, Path("model.onnx"))
    split.attribute[0].i = 2
    body = onnx.helper.make_graph([split], "body", [], [info("y", TensorProto.FLOAT, [1])])
    require_sound(onnx.helper.make_model(body), Path("model.onnx"))
