"""An LSTM that quantizes its input and hidden state at every step: onnxruntime's own operator.

com.microsoft DynamicQuantizeLSTM takes int8 W and R with a scale for each row, gives X a range for
the run and the hidden state one for the step, and multiplies in integers. It is one kernel for both
weights, so that both are one site. There is none for GRU and RNN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.bias import shift_bias
from onnxpress.contract import Candidate, Context, Decision, Layer, Proposal, Skip
from onnxpress.errors import RecipeError
from onnxpress.graph import add_initializer, attribute, drop_unused
from onnxpress.passes.quantize.candidates import weight_only_candidate
from onnxpress.passes.quantize.goals import layer_energy
from onnxpress.passes.quantize.integers import dynamic_integers
from onnxpress.passes.quantize.ranges import range_between
from onnxpress.recurrent import HIDDEN_WEIGHT, INPUT_WEIGHT, is_recurrent, why_states_are_unseen

__all__ = [
    "Weights",
    "decided_lstms",
    "lstm_candidates",
    "lstm_weights",
    "with_reason",
    "write_dynamic_lstm",
]

OPERATOR = "DynamicQuantizeLSTM"
DOMAIN = "com.microsoft"
Weights = tuple[Layer, Layer]
"""W and R of one node."""
_INPUTS = 8
"""Of an LSTM; scales and zero points come behind them."""


def lstm_weights(context: Context) -> Mapping[str, Weights]:
    """W and R by the name of each, of every LSTM of which both are layers of its own."""
    by_node: dict[ir.Node, dict[int, Layer]] = {}
    for layer in context.layers:
        if is_recurrent(layer.node) and layer.op_type == "LSTM" and len(layer.uses) == 1:
            by_node.setdefault(layer.node, {})[layer.uses[0].index] = layer
    found: dict[str, Weights] = {}
    for own in by_node.values():
        if len(own) == 2:
            pair = own[INPUT_WEIGHT], own[HIDDEN_WEIGHT]
            found.update(dict.fromkeys((layer.name for layer in pair), pair))
    return found


def dynamic_lstm(context: Context, weights: Weights) -> tuple[Candidate | None, str | None]:
    """Both weights for integer kernels; or why not."""
    reason = _refusal(context, weights)
    if reason is not None:
        return None, reason
    lost = energy = 0.0
    saved = 0
    for layer in weights:
        moments = context.moments(layer)
        assert moments is not None
        span = range_between(
            float(moments.minimum.min()), float(moments.maximum.max()), signed=False
        )
        rounded, own = dynamic_integers(context, layer, {}), layer_energy(context, layer)
        lost += own * rounded.error
        lost += span.noise * float(np.square(layer.read(), dtype=np.float64).sum())
        energy += own
        saved += layer.nbytes - rounded.weight.values.nbytes - 2 * rounded.weight.scales.nbytes
    if not energy > 0:
        return None, "the calibration data never exercises it: its inputs are all zero [L013]"
    members = tuple(layer.name for layer in weights)
    return Candidate({}, lost / energy, saved, family="dynamic", members=members), None


def _refusal(context: Context, weights: Weights) -> str | None:
    node = weights[0].node
    if OPERATOR not in context.target.quantized_operators:
        return "there is none for LSTM on this target [Q001]"
    if any(layer.dtype != ir.DataType.FLOAT or layer.unsafe for layer in weights):
        return "its weights are not float32 and its own [Q012]"
    if attribute(node, "layout", 0):
        return "its batch comes first [Q012]"
    if context.statistics is None:
        return "without calibration data the error of its activations is unknown [Q003]"
    unseen = why_states_are_unseen(node)
    if unseen is not None:
        return f"what its integers would cost is unknown: {unseen} [Q013]"
    for layer in weights:
        moments = context.moments(layer)
        if moments is None or moments.rows == 0:
            return "its hidden states were not observed, as no sample has two steps [Q013]"
        ends = float(moments.minimum.min()), float(moments.maximum.max())
        if not np.isfinite(ends).all():
            return "its activations are not finite [L012]"
    return None


def lstm_candidates(
    context: Context, weights: Weights, form: str
) -> tuple[tuple[Candidate, ...], str | None]:
    """Forms of both weights as one site; none, and why, where each is its own site.

    Args:
        context: in which no layer of them is kept.
        weights: that can be treated.
        form: the setting.
    """
    if form not in ("auto", "dynamic") or context.kept.intersection(w.name for w in weights):
        return (), None
    dynamic, reason = dynamic_lstm(context, weights)
    if dynamic is None:
        return (), reason
    if form == "dynamic":
        return (dynamic,), None
    offered = [(layer, weight_only_candidate(context, layer)[0]) for layer in weights]
    stored = _both_stored([(layer, one) for layer, one in offered if one is not None])
    return ((dynamic,) if stored is None else (dynamic, stored)), None


def with_reason(found: Proposal | Skip, reason: str | None) -> Proposal | Skip:
    """What is said of a weight alone, with why the LSTM has no integer kernel."""
    if reason is None:
        return found
    words = f"no integer kernel: {reason}"
    return replace(found, limit=words) if isinstance(found, Proposal) else Skip(found.site, words)


def decided_lstms(context: Context, decisions: Sequence[Decision]) -> list[Weights]:
    """W and R of the LSTMs that a plan gives integer kernels.

    Raises:
        RecipeError: the model has no such LSTM.
    """
    known, found = lstm_weights(context), []
    for decision in decisions:
        if decision.site not in known:
            raise RecipeError(
                f"the plan quantizes an LSTM with the weight {decision.site!r}, which this model "
                "does not have; the recipe was made for another model [R001]"
            )
        found.append(known[decision.site])
    return found


def _both_stored(found: list[tuple[Layer, Candidate]]) -> Candidate | None:
    """The weight-only forms of both as one."""
    if len(found) != 2:
        return None
    sizes = [layer.read().size for layer, _ in found]
    # Of two outputs that are added up, without knowing how large each is.
    error = float(np.average([candidate.predicted_error for _, candidate in found], weights=sizes))
    return Candidate(
        {},
        error,
        sum(candidate.saved_bytes for _, candidate in found),
        family="weight_only",
        members=tuple(layer.name for layer, _ in found),
        keeps_kernels=True,
    )


def write_dynamic_lstm(context: Context, weights: Weights) -> None:
    """Put the operator in the LSTM's place, with all its outputs and their names."""
    node = weights[0].node
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    rounded = [dynamic_integers(context, layer, {}) for layer in weights]
    for found in rounded:
        if found.offset is not None:
            shift_bias(context.names, context.model.graph, node, found.offset)
    inputs = [*node.inputs, *[None] * (_INPUTS - len(node.inputs))]
    for layer, found in zip(weights, rounded, strict=True):
        # The operator takes [directions, in, gates].
        integers = np.ascontiguousarray(found.weight.values.swapaxes(1, 2))
        scales = found.weight.scales.reshape(layer.shape[:2])
        parts: dict[str, npt.NDArray[np.generic]] = {
            "quantized": integers,
            "scale": scales,
            "zero_point": np.zeros(scales.shape, np.int8),
        }
        # In the graph of the node, where the kernel looks for constants to pack.
        values = [
            add_initializer(context.names, graph, f"{layer.name}_{suffix}", array)
            for suffix, array in parts.items()
        ]
        inputs[layer.uses[0].index] = values[0]
        inputs += values[1:]
    kept = [value for name, value in node.attributes.items() if name != "layout"]
    new = ir.Node(DOMAIN, OPERATOR, inputs, kept, num_outputs=len(node.outputs), name=node.name)
    graph.insert_before(node, [new])
    for old, own in zip(node.outputs, new.outputs, strict=True):
        name, own.type, own.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, own, replace_graph_outputs=True)
        old.name, own.name = None, name
    graph.remove(node, safe=True)
    context.model.graph.opset_imports.setdefault(DOMAIN, 1)
    for layer in weights:
        drop_unused(layer.weight)
