"""What in a graph follows from constants alone, whether or not it has been folded."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.graph import RANDOM_OPERATORS, bodies, is_constant

__all__ = ["Constants"]

_NUMBERS = ("value_float", "value_floats", "value_int", "value_ints")


class Constants:
    """The constants of a model, in all of its graphs."""

    def __init__(self, model: ir.Model) -> None:
        self.nodes = list(model.graph.all_nodes())
        self._computed: set[ir.Value] = set()
        for node in self.nodes:
            if node.op_type in RANDOM_OPERATORS or bodies(node):
                continue
            if all(value is None or value in self for value in node.inputs):
                self._computed.update(node.outputs)

    def __contains__(self, value: ir.Value) -> bool:
        return value in self._computed or is_constant(value)

    def array(self, value: ir.Value | None) -> npt.NDArray[np.generic] | None:
        """The numbers of a stored constant or of a node Constant; `None` for any other tensor."""
        if value is None or value not in self:
            return None
        if value.const_value is not None:
            return value.const_value.numpy()
        node = value.producer()
        if node is None or node.op_type != "Constant":
            return None
        if "value" in node.attributes:
            return node.attributes["value"].as_tensor().numpy()
        given = [node.attributes[name].value for name in _NUMBERS if name in node.attributes]
        return np.asarray(given[0]) if given else None

    def integers(self, node: ir.Node, name: str, index: int) -> list[int] | None:
        """Integers that are an attribute or a constant input, by opset."""
        found = node.attributes.get(name)
        if found is not None:
            return [found.as_int()] if found.type == ir.AttributeType.INT else list(found.as_ints())
        array = self.array(node.inputs[index]) if len(node.inputs) > index else None
        return None if array is None else [int(one) for one in array.reshape(-1)]
