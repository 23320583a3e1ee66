"""Einsum's equations: which labels each operand has, and what is summed over (ONNX Einsum-12).

A label is a letter, or a place of an ellipsis counted from the end, since ellipses broadcast.
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.graph import is_standard

__all__ = ["Equation"]

_DOTS = "..."


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation, spelled out.

    Attributes:
        operands: the labels of each, with `...` where it has an ellipsis.
        output: of the result; as the specification says where the equation has none.
    """

    operands: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, node: ir.Node) -> "Equation | None":
        """A node's equation; `None` where it is no Einsum or does not fit its inputs."""
        given = node.attributes.get("equation")
        if not is_standard(node) or node.op_type != "Einsum" or given is None or given.is_ref():
            return None
        left, arrow, right = given.as_string().replace(" ", "").partition("->")
        operands = tuple(left.split(","))
        if len(operands) != len(node.inputs):
            return None
        if not arrow:
            letters = left.replace(_DOTS, "").replace(",", "")
            once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
            right = (_DOTS if _DOTS in left else "") + "".join(once)
        return cls(operands, right)

    def labels(self, index: int, rank: int) -> tuple[str, ...] | None:
        """Of every axis of an operand; `None` where its rank does not fit.

        Args:
            index: of the operand.
            rank: of it.
        """
        before, dots, behind = self.operands[index].partition(_DOTS)
        spare = rank - len(before) - len(behind)
        if spare < 0 or (spare and not dots):
            return None
        return (*before, *(f"{_DOTS}{place}" for place in range(spare, 0, -1)), *behind)

    def result(self, operand: tuple[str, ...]) -> tuple[str, ...]:
        """The labels of the result, where one operand alone has an ellipsis.

        Args:
            operand: labels of the one that may have it.
        """
        before, dots, behind = self.output.partition(_DOTS)
        places = [label for label in operand if label.startswith(_DOTS)] if dots else []
        return (*before, *places, *behind)

    def kept_axes(self, index: int, rank: int) -> frozenset[int] | None:
        """The axes of an operand that the result has too; those of a repeated label count."""
        labels = self.labels(index, rank)
        if labels is None:
            return None
        dots = _DOTS in self.output
        return frozenset(
            axis
            for axis, label in enumerate(labels)
            if (dots if label.startswith(_DOTS) else label in self.output)
        )
