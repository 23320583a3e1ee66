"""What a rule of a gradient is given: a node's operands, results and the results' gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.gradients.tape import Tape, Term

__all__ = ["Call", "Gradients", "Rule"]

Gradients = Sequence[Term | None]
"""Of each input in order; `None`, or too short: it has none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node of the forward graph whose results' gradients are known.

    Attributes:
        tape: takes the nodes of the formula.
        node: of the forward graph.
        upstream: the gradient of each output, `None` where nothing reads it.
    """

    tape: Tape
    node: ir.Node
    upstream: Sequence[Term | None]

    @property
    def x(self) -> Term:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Term:
        """The first output."""
        return self.tape.term(self.node.outputs[0])

    @property
    def dy(self) -> Term:
        """The gradient of the first output."""
        found = self.upstream[0]
        return self.tape.zeros(self.y.shape(), self.y.dtype) if found is None else found

    @property
    def inputs(self) -> list[Term]:
        """Those that are there."""
        return [self.tape.term(value) for value in self.node.inputs if value is not None]

    def input(self, index: int) -> Term:
        """An input that the operator cannot do without."""
        found = self.optional(index)
        assert found is not None
        return found

    def optional(self, index: int) -> Term | None:
        """An input, or `None`."""
        if index >= len(self.node.inputs) or self.node.inputs[index] is None:
            return None
        value = self.node.inputs[index]
        assert value is not None
        return self.tape.term(value)

    def integer(self, name: str, default: int) -> int:
        """An attribute, or its default in the operator's specification."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_int()

    def number(self, name: str, default: float) -> float:
        """Likewise."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_float()

    def text(self, name: str, default: str) -> str:
        """Likewise."""
        found = self.node.attributes.get(name)
        return default if found is None else found.as_string()

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Likewise."""
        found = self.node.attributes.get(name)
        return list(default if found is None else found.as_ints())

    def listed(self, name: str, index: int) -> list[int] | None:
        """What is an attribute in older opsets and an input in newer ones; `None`: not constant."""
        if name in self.node.attributes:
            return self.integers(name, ())
        given = self.optional(index)
        return [] if given is None else given.constant


Rule = Callable[[Call], Gradients | str]
"""The gradients of a node's inputs, or why they cannot be told."""
