"""Simplify the graph without changing what it computes.

onnx-ir's passes and onnxscript's folding and rewrite rules, composed to a fixed point: inline
functions, lift constants to initializers, fold constants, fuse BatchNormalization, remove dead,
repeated and idle nodes, share equal initializers. Added here is what they lack:

- constants are folded only where the file does not grow (`folding`): a ConstantOfShape of 10¹²
  elements stays a node, and weights that lie small behind Cast or DequantizeLinear stay small;
- initializers that callers may override (graph inputs) are never taken for constants;
- shapes are inferred within bounds (`inference`), and rules write what the opset has (`rules`);
- weights of recurrent operators that are only put in another order are folded together (`gates`);
- constant scales and offsets per channel go into the Convs and Gemms around them (`backward`,
  `forward`), and linear Convs in a row become one (`merging`);
- an Einsum with a constant becomes a MatMul where nothing has to be moved (`contraction`);
- one-hot vectors times a table become a Gather from it, and the table takes up what follows
  element by element (`embedding`);
- what a loop carries around unchanged is read from outside, so that it is a constant to the body
  where it is one (`loops`);
- a loop over layers whose weights lie stacked in constants becomes these layers (`unrolling`);
- activation functions that exporters took apart are put together again (`activations`);
- MatMul + Add of a constant becomes Gemm only where the shapes prove that the sum keeps its shape
  (ONNX operator Gemm: `C` broadcasts to `[M, N]`, never the other way round).

onnxscript's folding pass and default rules live in private modules; they are imported in `folding`
and `rules` and nowhere else, and the dependency is bounded below the next minor version.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import onnx_ir as ir
from annotated_types import Ge
from onnx_ir.passes import common

from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip, Stage, setting
from onnxpress.errors import OutputError
from onnxpress.graph import Names, is_standard, name_nodes_apart
from onnxpress.memory import collected_rarely
from onnxpress.passes.simplify.activation_functions import FuseHardSigmoid, FuseScaledResidual
from onnxpress.passes.simplify.backward import FoldAffine
from onnxpress.passes.simplify.contraction import ContractByMatMul
from onnxpress.passes.simplify.duplicates import ShareEqual
from onnxpress.passes.simplify.embedding import FoldIntoTable, LookUpOneHot
from onnxpress.passes.simplify.folding import CutConstants, Folding, detach
from onnxpress.passes.simplify.forward import FoldAffineForward
from onnxpress.passes.simplify.gates import DropZeroStates, FoldGateOrder
from onnxpress.passes.simplify.inference import InferShapes, describe
from onnxpress.passes.simplify.loops import BypassIdentity, HoistInvariants
from onnxpress.passes.simplify.merging import MergeConvolutions, OffsetsAsConvolutions
from onnxpress.passes.simplify.neutral import RemoveNeutral
from onnxpress.passes.simplify.rules import Rules
from onnxpress.passes.simplify.unrolling import UnrollLoops

__all__ = ["Simplify", "simplify"]

logger = logging.getLogger(__name__)

_MOST_ROUNDS = 8
_LEVELS = ("full", "frugal", "structure")
_LEAST_IR = 4


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
        """The whole graph, with all rules; without any constant that grows; without arithmetic."""
        levels = [Candidate(family=name, keeps_kernels=True) for name in _LEVELS]
        return [Proposal("graph", tuple(levels))]

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Simplify `context.model` in place."""
        for decision in decisions:
            level = decision.candidate.family
            simplify(
                context.model,
                fold_limit=self.fold_limit if level == "full" else 0,
                arithmetic=level != "structure",
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
    _own_constants(model)
    # In IR 3 every initializer has to be an input too; here they are not.
    model.ir_version = max(model.ir_version, _LEAST_IR)
    with collected_rarely(), _as_inputs(model):
        _simplify(
            model,
            fold_limit,
            arithmetic=arithmetic,
            offsets_as_convolutions=offsets_as_convolutions,
        )


def _simplify(
    model: ir.Model, fold_limit: int, *, arithmetic: bool, offsets_as_convolutions: bool
) -> None:
    _apply(
        model,
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.NameFixPass(),
        InferShapes(),
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
        InferShapes(),
    )
    _name_apart(model)


@contextlib.contextmanager
def _as_inputs(model: ir.Model) -> Iterator[None]:
    """Take their defaults away from inputs that callers may override, and give them back after.

    Many rules look at the default alone: a bias of zeros, a factor of one.
    """
    defaults: list[tuple[ir.Graph, ir.Value, ir.TensorProtocol]] = []
    for graph in model.graphs():
        for value in graph.inputs:
            tensor = value.const_value
            if tensor is not None and value.name and value.name in graph.initializers:
                describe(value, tensor)
                defaults.append((graph, value, tensor))
                del graph.initializers[value.name]
                value.const_value = None
    try:
        yield
    finally:
        for graph, value, tensor in defaults:
            value.const_value = tensor
            graph.register_initializer(value)


def _rules(fold_limit: int) -> list[ir.passes.PassBase]:
    """What folds and fuses, in the order of one round."""
    return [
        _DetachRemoved(),
        # Before slices are folded one by one, in each branch anew.
        FoldGateOrder(),
        DropZeroStates(),
        CutConstants(),
        Folding(fold_limit),
        # Folding leaves Constant nodes; the rules look at initializers.
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ContractByMatMul(),
        Rules(),
        RemoveNeutral(),
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
    idle: list[ir.passes.PassBase] = [common.IdentityEliminationPass()]
    if has_subgraphs:
        idle = [HoistInvariants(), BypassIdentity(), UnrollLoops()]
    return [
        *idle,
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        ShareEqual(),
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
            if isinstance(error.__cause__, OutputError):
                # No room for temporary files: no fault of the pass.
                raise error.__cause__ from error
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


class _DetachRemoved(ir.passes.InPlacePass):
    """Let nodes of branches that folding an If has left behind read nothing.

    Otherwise they count as readers of the weights that they share with the branch that stays.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        live = set(model.graph.all_nodes())
        values = [v for graph in model.graphs() for v in graph.initializers.values()]
        gone = {user for value in values for user, _ in value.uses() if user not in live}
        detach(list(gone))
        return ir.passes.PassResult(model, modified=False)


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
