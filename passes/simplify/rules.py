"""onnxscript's rewrite rules, each asked only about operators it is for, and held to the opset.

Of its default rules `SlicesSplit` is left out: alone it has a pattern of several outputs, for which
the matcher walks the whole graph at every node (20,000 nodes: over 200 s of 207), and it writes
Split as only opset 18 has it. Those that take away x + 0 and x·1 are left to `neutral`: they call a
constant 0 when it is below 1e-8, and take away what keeps a logarithm or a division finite.
"""

from collections import defaultdict
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import _DEFAULT_REWRITE_RULES, RewritePass, pattern
from onnxscript.rewriter.rules.common import _no_op
from onnxscript.rewriter.rules.common._matmul_add_to_gemm import MatMulAddToGemm

from onnxpress.graph import constant, static_shape
from onnxpress.passes.simplify.folding import detach, is_writable

__all__ = ["Rules"]

_DROPOUTS = (_no_op.dropout_zero_rule, _no_op.dropout_inference_rule)
_INEXACT = [rule for rule in _no_op.rules.rules if rule not in _DROPOUTS]


class Rules(RewritePass):
    """Apply the rules to a model in place."""

    def __init__(self) -> None:
        """Take the rules that have one output and compare constants exactly."""
        exact = [rule for rule in _DEFAULT_REWRITE_RULES if rule not in _INEXACT]
        rules = [*exact, _ProvenMatMulAddToGemm.rule()]  # type: ignore[no-untyped-call]
        single = [rule for rule in rules if len(rule._target_pattern.output_nodes) == 1]  # noqa: SLF001
        super().__init__([_Dispatched(single)])  # type: ignore[list-item]


class _Dispatched:
    """Many rules as one: those whose pattern ends in the operator at hand, in their order."""

    remove_nodes = True
    as_function = False
    name: str | None = None

    def __init__(self, rules: list[Any]) -> None:
        self._rules = rules
        self._by_operator: dict[object, list[Any]] = defaultdict(list)
        self._for_any: list[Any] = []
        ends = [rule._target_pattern.output_node.op_identifier() for rule in rules]  # noqa: SLF001
        for operator in set(ends) - {None}:
            own = [r for r, end in zip(rules, ends, strict=True) if end in (None, operator)]
            self._by_operator[operator] = own
        self._for_any = [r for r, end in zip(rules, ends, strict=True) if end is None]

    def graph_pre_visitor(self) -> None:
        for rule in self._rules:
            if rule.graph_pre_visitor:
                rule.graph_pre_visitor()

    def graph_post_visitor(self) -> None:
        for rule in self._rules:
            if rule.graph_post_visitor:
                rule.graph_post_visitor()

    def try_rewrite(self, model: ir.Model, graph: Any, node: ir.Node, **options: Any) -> Any:  # noqa: ANN401
        """What the first rule that fits writes, if the model's opset has it."""
        for rule in self._by_operator.get(node.op_identifier(), self._for_any):
            made = rule.try_rewrite(model, graph, node, **options)
            if made is None:
                continue
            if is_writable(made.new_nodes, model.opset_imports, model.ir_version):
                return made
            detach(made.new_nodes)
        return None


class _ProvenMatMulAddToGemm(MatMulAddToGemm):
    """MatMul + Add → Gemm, where the addend provably broadcasts to the product."""

    def check(self, *args: Any, **values: Any) -> pattern.MatchResult:  # noqa: ANN401
        result: pattern.MatchResult = super().check(*args, **values)  # type: ignore[no-untyped-call]
        if not result:
            return result
        if constant(values["input_c"]) is None:
            # The runtime fuses it too; quantization needs a constant bias, or a MatMul.
            return result.fail("the addend is computed at run time")
        addend = static_shape(values["input_c"])
        columns = static_shape(values["input_b"])
        # A row [N] or [1, N] fits any number of rows; more is not known to.
        if addend is None or columns is None or addend not in (columns[1:], (1, *columns[1:])):
            result.fail("the addend is not known to be one row of the product")
        return result
