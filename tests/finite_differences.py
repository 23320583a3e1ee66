"""Gradients of small graphs by finite differences, in float64 by onnx's reference evaluator."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxpress.gradients import Derivative, differentiate
from onnxpress.runtime import Session

__all__ = ["Case", "by_differences", "by_rules"]

Array = npt.NDArray[np.generic]
_MOST = 12
"""Elements of a parameter that are looked at."""


@dataclass(frozen=True)
class Case:
    """Nodes whose gradients are compared.

    Attributes:
        nodes: in the text form of ONNX, `y` the last.
        parameters: float arrays, by name.
        constants: other inputs of the nodes.
        opset: of the standard operators.
        reference: other nodes that compute the same, where the evaluator has a fault.
        step: of the differences; larger where the evaluator computes in float32.
        dynamic: let the first parameter's sizes be unknown until the graph runs.
    """

    nodes: str
    parameters: Mapping[str, Array]
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 18
    reference: str = ""
    step: float = 1e-5
    dynamic: bool = False

    def model(self, dtype: type[Any], weights: Array | None = None) -> onnx.ModelProto:
        """Loss = Σ y·weights of these nodes; without weights, y alone."""
        text = self.reference if self.reference and dtype is np.float64 else self.nodes
        nodes = list(onnx.parser.parse_graph(f"g () => () {{ {text} }}").node)
        arrays = {**self.constants, **{n: a.astype(dtype) for n, a in self.parameters.items()}}
        first = next(iter(self.parameters))
        inputs = []
        if self.dynamic:
            shape = helper.make_tensor_value_info(
                "shape", onnx.TensorProto.INT64, [self.parameters[first].ndim]
            )
            inputs.append(shape)
            arrays[f"{first}_given"] = arrays.pop(first)
            nodes.insert(0, helper.make_node("Reshape", [f"{first}_given", "shape"], [first]))
        output = "y"
        if weights is not None:
            arrays["weights"] = weights.astype(dtype)
            nodes.append(helper.make_node("Mul", ["y", "weights"], ["weighted"]))
            nodes.append(helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0))
            output = "loss"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            nodes,
            "case",
            inputs,
            [helper.make_tensor_value_info(output, kind, [] if weights is not None else None)],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    @property
    def feed(self) -> dict[str, Array]:
        """What the graph is run on."""
        first = next(iter(self.parameters.values()))
        return {"shape": np.asarray(first.shape, np.int64)} if self.dynamic else {}

    def weights(self) -> Array:
        """Of the sum that is the loss: drawn, in the shape of y."""
        (y,) = ReferenceEvaluator(self.model(np.float64)).run(None, self.feed)
        return np.random.default_rng(1).standard_normal(np.shape(y))


def by_rules(case: Case) -> dict[str, Array]:
    """The gradient of each parameter, run by onnxruntime in float32."""
    derived = derivative(case)
    assert not derived.untrained, derived.untrained
    first = next(iter(case.parameters))
    names = {n: f"{n}_given" if case.dynamic and n == first else n for n in case.parameters}
    arrays = {names[n]: a.astype(np.float32) for n, a in case.parameters.items()}
    found = Session(derived.model, threads=1).run({**case.feed, **arrays})
    return {name: found[derived.gradients[given]] for name, given in names.items()}


def derivative(case: Case) -> Derivative:
    """Of the loss by all parameters."""
    proto = onnx.shape_inference.infer_shapes(
        case.model(np.float32, case.weights()), data_prop=True, strict_mode=True
    )
    first = next(iter(case.parameters))
    names = [f"{n}_given" if case.dynamic and n == first else n for n in case.parameters]
    return differentiate(ir.from_proto(proto), "loss", names)


def by_differences(case: Case) -> dict[str, Array]:
    """The same by central differences; NaN for elements that are not looked at."""
    weights = case.weights()
    rng = np.random.default_rng(2)
    found = {}
    for name, array in case.parameters.items():
        gradient = np.full(array.size, np.nan)
        chosen = rng.permutation(array.size)[:_MOST]
        for element, sign in itertools.product(chosen.tolist(), (1, -1)):
            moved = array.astype(np.float64).reshape(-1).copy()
            moved[element] += sign * case.step
            parameters = {**case.parameters, name: moved.reshape(array.shape)}
            changed = replace(case, parameters=parameters)
            (y,) = ReferenceEvaluator(changed.model(np.float64)).run(None, changed.feed)
            part = sign * float(np.sum(y * weights)) / (2 * case.step)
            gradient[element] = part if np.isnan(gradient[element]) else gradient[element] + part
        found[name] = gradient.reshape(array.shape)
    return found
