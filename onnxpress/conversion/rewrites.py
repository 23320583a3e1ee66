"""Ways to write the same that more providers take.

A Relu or Clip in front of QuantizeLinear changes nothing where the integers reach no further than
the function: q(max(x, 0)) = q(x) for a zero point at the lowest integer. onnxruntime's CPU
provider drops it; other providers see a convolution that is not followed by QuantizeLinear and
compute it in float, or refuse it.

GlobalAveragePool over H x W is AveragePool with a window of H x W.
"""

import math

import numpy as np
import onnx_ir as ir

from onnxpress.graph import constant, is_standard

__all__ = ["drop_performed_activations", "pool_by_window"]


def drop_performed_activations(model: ir.Model) -> int:
    """Remove Relu and Clip whose work the QuantizeLinear behind them does; how many."""
    dropped = 0
    for node in list(model.graph):
        span = _span(node)
        if span is None or not _reaches_no_further(node, *span):
            continue
        source = node.inputs[0]
        assert source is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        model.graph.remove(node, safe=True)
        dropped += 1
    return dropped


def _span(node: ir.Node) -> tuple[float, float] | None:
    """The lowest and highest value the node lets pass."""
    if not is_standard(node) or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip" or "min" in node.attributes or "max" in node.attributes:
        return None
    ends = [-math.inf, math.inf]
    for index, value in enumerate(node.inputs[1:3]):
        if value is None:
            continue
        found = constant(value)
        if found is None:
            return None
        ends[index] = float(np.asarray(found, np.float64).reshape(()))
    return ends[0], ends[1]


def _reaches_no_further(node: ir.Node, low: float, high: float) -> bool:
    """Whether every reader is a QuantizeLinear whose range lies inside [low, high]."""
    output = node.outputs[0]
    users = [use.node for use in output.uses()]
    if output.is_graph_output() or not users:
        return False
    for user in users:
        if user.op_type != "QuantizeLinear" or user.inputs[0] is not output:
            return False
        scale = constant(user.inputs[1])
        zero = constant(user.inputs[2]) if len(user.inputs) > 2 else None
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return False
        if zero.dtype.kind not in "iu":
            # 8-bit floats and 4-bit integers: numpy knows no ends of theirs.
            return False
        info = np.iinfo(zero.dtype.name)
        step, middle = float(scale.reshape(())), int(zero.reshape(()))
        # Half a step beyond the end rounds to the last integer all the same.
        if (info.min - middle) * step < low or (info.max - middle) * step > high + step / 2:
            return False
    return True


def pool_by_window(model: ir.Model) -> int:
    """Write GlobalAveragePool of a known height and width as AveragePool; how many."""
    changed = 0
    for node in model.graph:
        if not is_standard(node) or node.op_type != "GlobalAveragePool":
            continue
        source = node.inputs[0]
        if source is None or source.shape is None or len(source.shape) != 4:
            continue
        window = [dim for dim in list(source.shape)[2:] if isinstance(dim, int)]
        if len(window) != 2 or math.prod(window) == 1:
            continue
        node.op_type = "AveragePool"
        node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", window)
        changed += 1
    return changed
