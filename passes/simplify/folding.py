"""Fold constants only where the file does not grow: bytes made against bytes freed.

A weight that lies small in the file (behind Cast, DequantizeLinear, int8·scale, a bit mask) would
be stored unfolded, several times as large; onnxruntime unfolds it when it loads the model. Only
what is made of a few numbers (shapes, ranges, masks) may become a larger constant.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnxscript.optimizer._constant_folding import (
    FoldConstantsPass,
    FoldConstantsResult,
    Replacement,
)

from onnxpress.graph import (
    Names,
    add_initializer,
    attribute,
    bodies,
    constant,
    is_standard,
)
from onnxpress.growth import GROWING, made_elements

__all__ = ["CutConstants", "Folding", "detach", "is_writable", "symbols"]

_KEPT = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_UNPACKING = ("Cast", "CastLike", "BitShift", "Gather", "GatherElements", "GatherND", "ScatterND")
"""What compressed weights are unfolded with: never for a larger constant."""
_CUTS = ("Slice", "Split")
_ANY_SIZE = 1 << 40
_NODE_BYTES = 64
"""Of a node with the names of its tensors, at least."""
_FEW = 64
"""Elements of which a larger constant may be made."""


class Folding(FoldConstantsPass):
    """onnxscript's constant folding, by bytes, and only to what the model's opset has."""

    def __init__(self, fold_limit: int) -> None:
        """Fold to constants of at most `fold_limit` elements where they are larger than before."""
        super().__init__(
            shape_inference=True,
            input_size_limit=_ANY_SIZE,
            output_size_limit=_ANY_SIZE,
            should_fold=lambda node: _should_fold(node, fold_limit),
        )

    def call(self, model: ir.Model) -> FoldConstantsResult:
        """Fold `model` in place."""
        self._ir_version = model.ir_version
        self._given = {dim for value in model.graph.inputs for dim in symbols(value)}
        return super().call(model)

    def _do_inference(self, node: ir.Node) -> None:
        """As onnxscript's, where what the whole graph has told leaves something to find."""
        if not all(map(self._is_known, node.outputs)):
            super()._do_inference(node)

    def _is_known(self, value: ir.Value) -> bool:
        """Whether type and shape are known, and no dimension but those that inputs have."""
        known = value.type is not None and value.shape is not None
        return known and self._given.issuperset(symbols(value))

    def process_node(self, node: ir.Node, is_function: bool) -> Replacement | None:  # noqa: FBT001
        """As onnxscript's, but nothing is written that the opset does not have."""
        if node.op_type == "SequenceAt" and not _is_position(node):
            return None
        found: Replacement | None = super().process_node(node, is_function=is_function)
        if found is None or node.op_type == "If":
            return found
        made = list(found.new_nodes)
        for new in made:
            _write_plainly(new)
        if is_writable(made, self._opset_imports, self._ir_version):
            return found
        detach(made)
        return None

    def _prepare_folded_tensor(
        self,
        node: ir.Node,
        output_name: str,
        output_array: Any,  # noqa: ANN401 - of a sequence it is a list
    ) -> "ir.Tensor[Any] | None":
        """In rows: a folded Transpose is a view, which sharing equal constants fails on."""
        if isinstance(output_array, np.ndarray):
            output_array = np.asarray(output_array, order="C")
        return super()._prepare_folded_tensor(node, output_name, output_array)


def symbols(value: ir.Value) -> set[str | None]:
    """The dimensions of a value that are no numbers, `None` those without a name."""
    return {dim.value for dim in value.shape or () if not isinstance(dim, int)}


class CutConstants(ir.passes.InPlacePass):
    """Fold Splits of constants: onnxscript's folding takes only nodes of one output."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite `model` in place."""
        changed = 0
        names: Names | None = None
        for node in list(model.graph.all_nodes()):
            if not is_standard(node) or node.op_type != "Split" or not _is_cut_up(node.inputs[0]):
                continue
            parts = _parts(node)
            if parts is None or any(value.is_graph_output() for value in node.outputs):
                continue
            names = names or Names(model)
            for value, part in zip(node.outputs, parts, strict=True):
                own = add_initializer(names, model.graph, f"{value.name}_part", part, value.dtype)
                ir.convenience.replace_all_uses_with(value, own)
            changed += 1
        return ir.passes.PassResult(model, bool(changed))


def _parts(node: ir.Node) -> list[npt.NDArray[np.generic]] | None:
    """What a Split of a constant gives (ONNX operator Split, all versions)."""
    array = constant(node.inputs[0])
    assert array is not None
    axis = attribute(node, "axis", 0)
    length, number = array.shape[axis], len(node.outputs)
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is not None:
        sizes = [int(size) for size in given]
    elif "split" in node.attributes:
        sizes = [int(size) for size in node.attributes["split"].as_ints()]
    else:
        each = math.ceil(length / number)
        sizes = [each] * (number - 1)
        sizes.append(length - sum(sizes))
    if len(sizes) != number or sum(sizes) != length or min(sizes) < 0:
        return None
    return [np.ascontiguousarray(a) for a in np.split(array, np.cumsum(sizes)[:-1], axis)]


def _is_position(node: ir.Node) -> bool:
    return len(node.inputs) == 2 and node.inputs[1] is not None


def _write_plainly(node: ir.Node) -> None:
    """Constant with an attribute `value`, which every opset has."""
    if node.op_type != "Constant" or "value" in node.attributes or len(node.attributes) != 1:
        return
    (given,) = node.attributes.values()
    kinds = {
        ir.AttributeType.INT: np.int64,
        ir.AttributeType.INTS: np.int64,
        ir.AttributeType.FLOAT: np.float32,
        ir.AttributeType.FLOATS: np.float32,
    }
    if given.is_ref() or given.type not in kinds:
        return
    tensor = ir.tensor(np.asarray(given.value, kinds[given.type]))
    node.attributes.clear()
    node.attributes.add(ir.AttrTensor("value", tensor))


def is_writable(nodes: Iterable[ir.Node], opsets: dict[str, int], ir_version: int) -> bool:
    """Whether the operator specification of these opsets has the nodes as they are."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = ir_version
    context.opset_imports = {name or "": version for name, version in opsets.items()}
    for number, node in enumerate(nodes):
        if not is_standard(node) or bodies(node):
            continue
        # Of new nodes the values have no names yet; an input of None is one that is left out.
        given = [None if v is None else ir.Value(name=f"i{n}") for n, v in enumerate(node.inputs)]
        made = [ir.Value(name=f"o{number}_{n}") for n in range(len(node.outputs))]
        attributes = node.attributes.values()
        alone = ir.Node("", node.op_type, given, attributes, outputs=made)
        proto: onnx.NodeProto = ir.to_proto(alone)
        try:
            onnx.checker.check_node(proto, context)
        except onnx.checker.ValidationError:
            return False
    return True


def detach(nodes: Sequence[ir.Node]) -> None:
    """Let nodes that are not taken read nothing, so that nothing counts them as readers."""
    for node in nodes:
        for place in range(len(node.inputs)):
            node.replace_input_with(place, None)


def _should_fold(node: ir.Node, limit: int) -> bool:
    """Whether a node with constant inputs may be folded: by the size of what it would make."""
    if not is_standard(node) or node.op_type in _KEPT:
        return False
    inputs = {value for value in node.inputs if value is not None}
    tensors = [value.const_value for value in inputs if value.const_value is not None]
    if any(tensor.dtype == ir.DataType.STRING for tensor in tensors):
        return False
    given = sum(tensor.nbytes for tensor in tensors)
    elements = sum(tensor.size for tensor in tensors)
    made = made_elements(node)
    if made is None:
        # Unknown, but only a few operators make more than they are given.
        return node.op_type not in (*GROWING, *_UNPACKING) and elements <= limit
    made_bytes = made * max(_itemsize(value) for value in node.outputs)
    freed = sum(
        value.const_value.nbytes
        for value in inputs
        if value.const_value is not None and len(value.uses()) == 1
    )
    if made_bytes <= freed + _NODE_BYTES:
        return True
    if node.op_type in _CUTS and _is_cut_up(node.inputs[0]):
        return True
    if made > limit:
        return False
    return made_bytes <= given or (elements <= _FEW and node.op_type not in _UNPACKING)


def _is_cut_up(value: ir.Value | None) -> bool:
    """Whether all that reads a constant are cuts, which together are no larger than it is.

    As of the gates of a recurrent cell, whose weights lie in one tensor.
    """
    readers = [] if value is None else [node for node, _ in value.uses()]
    if value is None or value.const_value is None or value.is_graph_output():
        return False
    total = 0
    for node in readers:
        known = all(v is None or constant(v) is not None for v in node.inputs)
        made = made_elements(node) if is_standard(node) and node.op_type in _CUTS else None
        if made is None or not known:
            return False
        total += made
    return bool(readers) and total <= value.const_value.size


def _itemsize(value: ir.Value) -> int:
    return 8 if value.dtype is None else math.ceil(value.dtype.itemsize)
