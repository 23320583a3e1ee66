"""Simplify the graph without changing what it computes.

onnx-ir's passes and onnxscript's folding and rewrite rules, composed to a fixed point: inline
functions, lift constants to initializers, fold constants, fuse BatchNormalization, remove dead,
repeated and idle nodes, share equal initializers. Added here is what they lack:

- constants are folded only where the result stays small or no larger than what it replaces
  (a ConstantOfShape of 10¹² elements stays a node);
- constant scales and offsets per channel go into the Convs and Gemms around them (`backward`,
  `forward`), and linear Convs in a row become one (`merging`);
- one-hot vectors times a table become a Gather from it, and the table takes up what follows
  element by element (`embedding`);
- activation functions that exporters took apart are put together again (`activations`);
- MatMul + Add of a constant becomes Gemm only where the shapes prove that the sum keeps its shape
  (ONNX operator Gemm: `C` broadcasts to `[M, N]`, never the other way round).

onnxscript's folding pass and default rules live in private modules; they are imported here
and nowhere else, and the dependency is bounded below the next minor version.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import onnx_ir as ir
from annotated_types import Ge
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass
from onnxscript.rewriter import _DEFAULT_REWRITE_RULES, RewritePass, pattern
from onnxscript.rewriter.rules.common._matmul_add_to_gemm import MatMulAddToGemm

from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip, Stage, setting
from onnxpress.graph import Names, constant, is_standard, name_nodes_apart, static_shape
from onnxpress.passes.simplify.activation_functions import FuseHardSigmoid, FuseScaledResidual
from onnxpress.passes.simplify.backward import FoldAffine
from onnxpress.passes.simplify.embedding import FoldIntoTable, LookUpOneHot
from onnxpress.passes.simplify.forward import FoldAffineForward
from onnxpress.passes.simplify.merging import MergeConvolutions, OffsetsAsConvolutions

__all__ = ["Simplify", "simplify"]

logger = logging.getLogger(__name__)

_MOST_ROUNDS = 8
_ANY_SIZE = 1 << 40
_CAN_GROW = ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Upsample", "Pad", "OneHot")
_KEPT = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Simplify(Pass):
    """Fold, fuse, share and remove, until nothing changes."""

    name: ClassVar[str] = "simplify"
    stage: ClassVar[Stage] = Stage.LOSSLESS
    families: ClassVar[tuple[str, ...]] = ("full", "structure")

    fold_limit: Annotated[int, Ge(0)] = setting(
        1024, "Most elements of a folded constant that is larger than the inputs it frees."
    )

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """The whole graph, with all rules, or with none of those that do arithmetic."""
        levels = [Candidate(family=name, keeps_kernels=True) for name in ("full", "structure")]
        return [Proposal("graph", tuple(levels))]

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Simplify `context.model` in place."""
        for decision in decisions:
            full = decision.candidate.family == "full"
            simplify(
                context.model,
                fold_limit=self.fold_limit,
                arithmetic=full,
                offsets_as_convolutions=context.target.blocked_layout,
            )


def simplify(
    model: ir.Model,
    *,
    fold_limit: int = 1024,
    arithmetic: bool = True,
    offsets_as_convolutions: bool = False,
) -> None:
    """Simplify `model` in place to a fixed point.

    A composed pass of onnx-ir or onnxscript that fails is left out for this model with a
    warning; the passes before and after it still act.

    Args:
        model: what to simplify.
        fold_limit: most elements of a folded constant that is larger than what it frees;
            onnxruntime folds the rest when it loads the model, so only the file would grow.
        arithmetic: fold constants and fuse operators; without, only dead, idle and repeated
            nodes go, functions are inlined and constants become initializers.
        offsets_as_convolutions: see `merging.OffsetsAsConvolutions`; for runtimes that keep
            convolutions in a blocked layout.
    """
    overridable = _hide_overridable(model.graph)
    _own_constants(model)
    _apply(
        model,
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.NameFixPass(),
        common.ShapeInferencePass(),
    )
    has_subgraphs = next(iter(model.graph.subgraphs()), None) is not None
    for _ in range(_MOST_ROUNDS):
        before = _fingerprint(model)
        rules = _rules(fold_limit) if arithmetic else []
        _apply(model, *rules, *_cleaning(has_subgraphs=has_subgraphs))
        if _fingerprint(model) == before:
            break
    if arithmetic and offsets_as_convolutions:
        _apply(model, OffsetsAsConvolutions())
    _apply(
        model,
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        _OwnSubgraphOutputs(),
        common.NameFixPass(),
        common.TopologicalSortPass(),
        common.ShapeInferencePass(),
    )
    _name_apart(model)
    for value, tensor in overridable:
        value.const_value = tensor
        model.graph.register_initializer(value)


def _hide_overridable(graph: ir.Graph) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """Take the defaults from inputs that have one: onnxscript's rules take them for constants.

    Callers may give another value (ONNX IR version 4, "Initializers").
    """
    found = []
    for value in graph.inputs:
        name = value.name or ""
        if name in graph.initializers and value.const_value is not None:
            found.append((value, value.const_value))
            del graph.initializers[name]
            value.const_value = None
    return found


def _rules(fold_limit: int) -> list[ir.passes.PassBase]:
    """What folds and fuses, in the order of one round."""

    def should_fold(node: ir.Node) -> bool | None:
        return _should_fold(node, fold_limit)

    return [
        FoldConstantsPass(
            shape_inference=True,
            input_size_limit=_ANY_SIZE,
            output_size_limit=_ANY_SIZE,
            should_fold=should_fold,
        ),
        # Folding leaves Constant nodes; the rules look at initializers.
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        RewritePass(_DEFAULT_REWRITE_RULES),
        RewritePass([_ProvenMatMulAddToGemm.rule()]),  # type: ignore[no-untyped-call]
        LookUpOneHot(),
        FoldIntoTable(),
        FuseHardSigmoid(),
        FuseScaledResidual(),
        FoldAffine(),
        FoldAffineForward(),
        MergeConvolutions(),
    ]


def _cleaning(*, has_subgraphs: bool) -> list[ir.passes.PassBase]:
    """What removes and shares, in the order of one round."""
    # With subgraphs it would hand values from graph to graph, which is not allowed.
    idle = [] if has_subgraphs else [common.IdentityEliminationPass()]
    return [
        *idle,
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateHashedInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
    ]


def _own_constants(model: ir.Model) -> None:
    """Wrap unnamed constants anew: lifting names them, and a clone shares them with its origin."""
    for node in model.graph.all_nodes():
        if is_standard(node) and node.op_type == "Constant" and "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
            if not tensor.name and tensor.dtype != ir.DataType.STRING:
                own = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=node.outputs[0].name)
                node.attributes.add(ir.AttrTensor("value", own))


def _apply(model: ir.Model, *passes: ir.passes.PassBase) -> None:
    for pass_ in passes:
        try:
            ir.passes.Sequential(pass_)(model)
        except ir.passes.PassError as error:
            logger.warning("simplify: left out for this model: %s", error.__cause__ or error)


def _fingerprint(model: ir.Model) -> tuple[int, int]:
    nodes = sum(1 for _ in model.graph.all_nodes())
    return nodes, sum(len(graph.initializers) for graph in model.graphs())


def _name_apart(model: ir.Model) -> None:
    """Give nodes and tensors names of their own: plans, reports and statistics refer to them.

    ONNX lets bodies beside each other use the same ones; only theirs are changed.
    """
    names: set[str | None] = {n for graph in model.graphs() for n in graph.initializers}
    names |= {value.name for value in _computed(model.graph)}
    for value in (value for graph in model.graph.subgraphs() for value in _computed(graph)):
        stem, number = value.name, 1
        while value.name in names:
            value.name, number = f"{stem}_{number}", number + 1
        names.add(value.name)
    name_nodes_apart(model)


def _computed(graph: ir.Graph) -> list[ir.Value]:
    """Without outputs that are left out, which have no name."""
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return [value for value in values if value.name]


def _elements(value: ir.Value) -> int | None:
    shape = static_shape(value)
    return None if shape is None else math.prod(shape)


def _should_fold(node: ir.Node, limit: int) -> bool:
    """Whether a node with constant inputs may be folded: by the size of what it would make."""
    if not is_standard(node) or node.op_type in _KEPT:
        return False
    freed = sum(
        value.const_value.size
        for value in set(node.inputs)
        if value is not None and value.const_value is not None and len(value.consumers()) == 1
    )
    made = _made_elements(node)
    if made is None:
        # Unknown, but only a few operators make more than they are given.
        given = sum(
            value.const_value.size
            for value in node.inputs
            if value is not None and value.const_value is not None
        )
        return node.op_type not in _CAN_GROW and given <= limit
    return made <= max(limit, freed)


def _made_elements(node: ir.Node) -> int | None:
    if node.op_type in ("ConstantOfShape", "Expand"):
        shape = constant(node.inputs[-1])
        if shape is None:
            return None
        dims = [int(dim) for dim in shape.reshape(-1)]
        if node.op_type == "Expand":
            data = node.inputs[0]
            own = _elements(data) if data is not None else None
            return None if own is None else max(own, 1) * math.prod(max(dim, 1) for dim in dims)
        return math.prod(dims)
    if node.op_type == "Range":
        ends = [constant(value) for value in node.inputs]
        if any(end is None for end in ends):
            return None
        start, stop, step = (float(np.asarray(end).reshape(-1)[0]) for end in ends)
        return max(0, math.ceil((stop - start) / step)) if step else None
    made = [_elements(value) for value in node.outputs]
    known = [size for size in made if size is not None]
    return sum(known) if len(known) == len(made) else None


class _OwnSubgraphOutputs(ir.passes.InPlacePass):
    """Put an Identity where a subgraph returns a value of an outer graph.

    The ONNX specification wants a subgraph's outputs computed inside it; identity elimination
    does not know.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        added = 0
        names = Names(model)
        for graph in model.graph.subgraphs():
            for place, value in enumerate(graph.outputs):
                producer = value.producer()
                if producer is not None and producer.graph is graph:
                    continue
                node = ir.Node("", "Identity", [value])
                node.outputs[0].name = names.free(f"{value.name}_output")
                node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
                graph.append(node)
                graph.outputs[place] = node.outputs[0]
                added += 1
        return ir.passes.PassResult(model, bool(added))


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
