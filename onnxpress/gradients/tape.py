"""Formulas as ONNX nodes: terms with the arithmetic of arrays, appended to a graph.

A gradient's formula is written as it stands in its docstring, `dy * (1 - y * y)`, and each
operation appends a node. What is static is worked out here, what is not is left to nodes that
compute shapes as the graph runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.graph import Names, add_initializer, constant, standard_opset

__all__ = ["CONTRIB", "Attribute", "Body", "Dim", "Tape", "Term"]

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators, which run every backward graph."""
_MEANS_TAKE_AXES_AS_INPUT = 18

Attribute = float | str | Sequence[int]
"""Of a node: a number, a text or integers."""
Dim = int | str | None
"""A size, a symbol that stands for one, or nothing known."""
Body = Callable[["Tape", list["Term"], list["Term"]], tuple[Sequence["Term"], Sequence["Term"]]]
"""The formulas of a turn: from states and inputs to new states and what it gives."""


class Tape:
    """Where terms append their nodes.

    Attributes:
        opset: of the standard operators; 13 at least.
    """

    def __init__(self, names: Names, graph: ir.Graph, opset: int) -> None:
        """Write behind the nodes of a graph, which is changed."""
        self._graph, self._names, self.opset = graph, names, opset
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], Term] = {}
        self._shapes: dict[ir.Value, Term] = {}

    @classmethod
    def of(cls, model: ir.Model) -> "Tape":
        """Write behind the nodes of a model, which is changed."""
        model.graph.opset_imports.setdefault(CONTRIB, 1)
        return cls(Names(model), model.graph, standard_opset(model))

    def scan(
        self,
        states: Sequence["Term"],
        inputs: Sequence["Term"],
        body: "Body",
        *,
        outputs: int,
        backwards: bool,
    ) -> list["Term"]:
        """A Scan along the first axis: the last states, then what each turn gave, in order.

        Args:
            states: before the first turn.
            inputs: taken apart along their first axis.
            body: the formulas of a turn; it may use terms from outside.
            outputs: how many it gives besides the states.
            backwards: from the last turn to the first; what each gave stands in its place.
        """
        given = [
            ir.Value(name=self._names.free("gradient_turn"), type=ir.TensorType(term.dtype))
            for term in (*states, *inputs)
        ]
        graph = ir.Graph(given, [], nodes=[], name=self._names.free("gradient_body"))
        inner = Tape(self._names, graph, self.opset)
        terms = [Term(inner, value) for value in given]
        new, each = body(inner, terms[: len(states)], terms[len(states) :])
        assert len(each) == outputs
        for term in (*new, *each):
            # What comes straight from outside or through has to be a result of the body.
            value = term.op("Identity").value if term.value in given else term.value
            value.type = ir.TensorType(term.dtype)
            graph.outputs.append(value)
        node = ir.Node(
            "",
            "Scan",
            [term.value for term in (*states, *inputs)],
            [
                ir.AttrGraph("body", graph),
                ir.AttrInt64("num_scan_inputs", len(inputs)),
                ir.AttrInt64s("scan_input_directions", [int(backwards)] * len(inputs)),
                ir.AttrInt64s("scan_output_directions", [int(backwards)] * outputs),
            ],
            num_outputs=len(new) + outputs,
            name=self._names.free("gradient_Scan"),
        )
        for place, (value, term) in enumerate(zip(node.outputs, (*new, *each), strict=True)):
            value.name = self._names.free(f"{node.name}_output_{place}")
            value.type = ir.TensorType(term.dtype)
        self._graph.append(node)
        return [Term(self, value) for value in node.outputs]

    def term(self, value: ir.Value) -> "Term":
        """A value of the graph."""
        return Term(self, value)

    def op(
        self,
        op_type: str,
        *inputs: "Term | None",
        domain: str = "",
        **attributes: Attribute,
    ) -> "Term":
        """The first output of a new node."""
        return self.node(op_type, inputs, attributes, domain)

    def node(
        self,
        op_type: str,
        inputs: Sequence["Term | None"],
        attributes: Mapping[str, Attribute],
        domain: str = "",
    ) -> "Term":
        """Likewise, of lists."""
        node = ir.Node(
            domain,
            op_type,
            [None if term is None else term.value for term in inputs],
            ir.convenience.convert_attributes(attributes),
            name=self._names.free(f"gradient_{op_type}"),
        )
        node.outputs[0].name = self._names.free(f"{node.name}_output")
        self._graph.append(node)
        return Term(self, node.outputs[0])

    def another_output(self, node: ir.Node, index: int, dtype: ir.DataType) -> "Term":
        """An output of a forward node that nothing read until now."""
        while len(node.outputs) <= index:
            node.resize_outputs(len(node.outputs) + 1)
        output = node.outputs[index]
        if not output.name:
            output.name = self._names.free(f"{node.name or node.op_type}_output_{index}")
        output.type = ir.TensorType(dtype)
        return Term(self, output)

    def array(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> "Term":
        """A constant; the same one for the same array."""
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._constants:
            value = add_initializer(self._names, self._graph, "gradient_constant", array)
            self._constants[key] = Term(self, value)
        return self._constants[key]

    def integers(self, values: Sequence[int]) -> "Term":
        """A constant vector of int64."""
        return self.array(np.asarray(values, np.int64))

    def number(self, value: float, dtype: ir.DataType) -> "Term":
        """A constant scalar."""
        return self.array(np.asarray(value, dtype.numpy()))

    def shape(self, term: "Term") -> "Term":
        """The shape as int64, of the graph as it runs."""
        if term.value not in self._shapes:
            sizes = [dim for dim in term.dims or () if isinstance(dim, int)]
            static = term.dims is not None and len(sizes) == len(term.dims)
            found = self.integers(sizes) if static else self.op("Shape", term)
            self._shapes[term.value] = found
        return self._shapes[term.value]

    def zeros(self, shape: "Term", dtype: ir.DataType) -> "Term":
        """Zeros of a shape that a term gives."""
        value = ir.Tensor(np.zeros(1, dtype.numpy()))
        node = ir.Node("", "ConstantOfShape", [shape.value], [ir.AttrTensor("value", value)])
        node.name = self._names.free("gradient_zeros")
        node.outputs[0].name = self._names.free(f"{node.name}_output")
        node.outputs[0].type = ir.TensorType(dtype)
        self._graph.append(node)
        return Term(self, node.outputs[0])


@dataclass(frozen=True, slots=True)
class Term:
    """A value of a graph with the arithmetic of arrays; each operation appends a node.

    Attributes:
        tape: where to.
        value: what it stands for.
    """

    tape: Tape
    value: ir.Value

    @property
    def dtype(self) -> ir.DataType:
        """The element type; that of gradients, float32, where the graph does not say it."""
        return self.value.dtype or ir.DataType.FLOAT

    @property
    def dims(self) -> tuple[Dim, ...] | None:
        """Sizes, as far as they are known; `None` where not even the rank is."""
        if self.value.shape is None:
            return None
        # Some exporters write -1 where nothing is known.
        return tuple(
            dim.value if not isinstance(dim, int) else dim if dim >= 0 else None
            for dim in self.value.shape
        )

    def known_as(self, dims: Sequence[Dim]) -> "Term":
        """The term itself, of sizes that its formula is sure of."""
        self.value.shape = ir.Shape(dims)
        self.value.type = ir.TensorType(self.dtype)
        return self

    @property
    def rank(self) -> int | None:
        """The number of axes, where it is known."""
        return None if self.value.shape is None else len(self.value.shape)

    @property
    def constant(self) -> list[int] | None:
        """The integers of a constant."""
        found = constant(self.value)
        return None if found is None else [int(each) for each in found.reshape(-1)]

    def op(self, op_type: str, *others: "Term | None", **attributes: Attribute) -> "Term":
        """An operator of this and other terms."""
        return self.tape.node(op_type, [self, *others], attributes)

    def _with(self, op_type: str, other: "Term | float", *, turned: bool = False) -> "Term":
        term = other if isinstance(other, Term) else self.tape.number(other, self.dtype)
        return term.op(op_type, self) if turned else self.op(op_type, term)

    def __add__(self, other: "Term | float") -> "Term":
        return self._with("Add", other)

    def __radd__(self, other: float) -> "Term":
        return self._with("Add", other, turned=True)

    def __sub__(self, other: "Term | float") -> "Term":
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> "Term":
        return self._with("Sub", other, turned=True)

    def __mul__(self, other: "Term | float") -> "Term":
        return self._with("Mul", other)

    def __rmul__(self, other: float) -> "Term":
        return self._with("Mul", other, turned=True)

    def __truediv__(self, other: "Term | float") -> "Term":
        return self._with("Div", other)

    def __rtruediv__(self, other: float) -> "Term":
        return self._with("Div", other, turned=True)

    def __matmul__(self, other: "Term") -> "Term":
        return self.op("MatMul", other)

    def __neg__(self) -> "Term":
        return self.op("Neg")

    def __gt__(self, other: "Term | float") -> "Term":
        return self._with("Greater", other)

    def __ge__(self, other: "Term | float") -> "Term":
        return self._with("GreaterOrEqual", other)

    def __lt__(self, other: "Term | float") -> "Term":
        return self._with("Less", other)

    def __le__(self, other: "Term | float") -> "Term":
        return self._with("LessOrEqual", other)

    def __and__(self, other: "Term") -> "Term":
        return self.op("And", other)

    def only(self, condition: "Term") -> "Term":
        """This where a condition holds, else 0.

        By a product: onnxruntime's Where takes eight times as long.
        """
        return self * condition.cast(self.dtype)

    def cast(self, dtype: ir.DataType) -> "Term":
        """In another element type."""
        found = self.op("Cast", to=int(dtype))
        found.value.type = ir.TensorType(dtype)
        return found

    def sigmoid(self) -> "Term":
        """1 / (1 + exp(−x))."""
        return self.op("Sigmoid")

    def tanh(self) -> "Term":
        """The hyperbolic tangent."""
        return self.op("Tanh")

    def parts(self, number: int, axis: int) -> list["Term"]:
        """Equal parts of an axis whose size is known."""
        whole = None if self.dims is None else self.dims[axis]
        assert isinstance(whole, int)
        tape, size = self.tape, whole // number
        return [
            self.op(
                "Slice",
                tape.integers([start]),
                tape.integers([start + size]),
                tape.integers([axis]),
            )
            for start in range(0, whole, size)
        ]

    def sum(self, axes: Sequence[int], *, keep: bool = False) -> "Term":
        """Over some axes."""
        if not axes:
            return self
        return self.op("ReduceSum", self.tape.integers(axes), keepdims=int(keep))

    def mean(self, axes: Sequence[int]) -> "Term":
        """Over some axes, which stay with size 1."""
        if self.tape.opset >= _MEANS_TAKE_AXES_AS_INPUT:
            return self.op("ReduceMean", self.tape.integers(axes), keepdims=1)
        return self.op("ReduceMean", axes=list(axes), keepdims=1)

    def shape(self) -> "Term":
        """As int64 `[rank]`."""
        return self.tape.shape(self)

    def size(self, axis: int) -> "Term":
        """Of one axis, as int64 `[1]`."""
        dim = None if self.dims is None else self.dims[axis]
        if isinstance(dim, int):
            return self.tape.integers([dim])
        return self.shape().op("Gather", self.tape.integers([axis]))

    def reshape(self, shape: "Term | Sequence[int]") -> "Term":
        """In another shape."""
        wanted = shape if isinstance(shape, Term) else self.tape.integers(shape)
        return self.op("Reshape", wanted)

    def like(self, other: "Term") -> "Term":
        """In the shape of another term."""
        return self.reshape(other.shape())

    def transpose(self, axes: Sequence[int]) -> "Term":
        """With its axes in another order."""
        return self if list(axes) == list(range(len(axes))) else self.op("Transpose", perm=axes)

    def expand(self, other: "Term") -> "Term":
        """Repeated to the shape of another term."""
        return self.op("Expand", other.shape())

    def sum_to(self, operand: "Term", result: "Term") -> "Term":
        """The gradient of an operand that was repeated to the result's shape: sums over repeats.

        Args:
            operand: in its own shape.
            result: in the shape of this gradient.
        """
        own, broadcast = operand.dims, result.dims
        if own is not None and broadcast is not None:
            padded = (1,) * (len(broadcast) - len(own)) + own
            pairs = list(zip(padded, broadcast, strict=True))
            # A symbol may turn out to be 1 where another does not.
            if all(mine == 1 or (mine == his and mine is not None) for mine, his in pairs):
                axes = [axis for axis, (mine, his) in enumerate(pairs) if mine == 1 != his]
                if not axes and len(own) == len(broadcast):
                    return self
                return self.sum(axes, keep=True).like(operand)
        return self._sum_where_repeated(operand, result)

    def _sum_where_repeated(self, operand: "Term", result: "Term") -> "Term":
        """As `sum_to`, by the shapes of the graph as it runs."""
        tape = self.tape
        own, broadcast = operand.shape(), result.shape()
        missing = broadcast.op("Shape").op("Sub", own.op("Shape"))
        ones = tape.integers([1]).op("Expand", missing)
        differs = ones.op("Concat", own, axis=0).op("Equal", broadcast).op("Not")
        axes = differs.op("NonZero").reshape([-1])
        summed = self.op("ReduceSum", axes, keepdims=1, noop_with_empty_axes=1)
        return summed.reshape(own)
