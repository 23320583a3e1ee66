"""How what was decided is carried out, all forms in one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxpress.contract import Context, Decision, Parameter
from onnxpress.passes.quantize.absorbing import absorb
from onnxpress.passes.quantize.activations import operators_between
from onnxpress.passes.quantize.candidates import DYNAMIC, STATIC, WIDE
from onnxpress.passes.quantize.equalizing import fold_smoothing, insert_smoothing
from onnxpress.passes.quantize.float8_writing import write_float8
from onnxpress.passes.quantize.forms import KERNEL_FAMILIES, form_of
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.pairs import Pairs
from onnxpress.passes.quantize.qdq_rules import rounds_output
from onnxpress.passes.quantize.recurrent import Weights, decided_lstms, write_dynamic_lstm
from onnxpress.passes.quantize.stored_forms import STORED_FAMILIES, write_weights
from onnxpress.passes.quantize.writing import write_dynamic, write_static

__all__ = ["carry_out"]

Parameters = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True)
class _Decided:
    """Decisions by what is done for them.

    Attributes:
        kernels: parameters by kernel and site.
        forms: of weights of kernels that have fewer than 8 bits in the file, by site.
        stored: of weights alone.
        lstms: both weights of each.
    """

    kernels: Mapping[str, Mapping[str, Parameters]]
    forms: Mapping[str, LowBitForm]
    stored: Sequence[Decision]
    lstms: Sequence[Weights]

    @classmethod
    def of(cls, context: Context, decisions: Sequence[Decision]) -> "_Decided":
        kernels: dict[str, dict[str, Parameters]] = {}
        forms: dict[str, LowBitForm] = {}
        stored, both = list[Decision](), list[Decision]()
        for decision in decisions:
            candidate = decision.candidate
            if candidate.family in STORED_FAMILIES:
                stored.append(decision)
            elif candidate.family == DYNAMIC and candidate.members:
                both.append(decision)
            else:
                kernel = KERNEL_FAMILIES.get(candidate.family, candidate.family)
                kernels.setdefault(kernel, {})[decision.site] = candidate.parameters
                if candidate.family in KERNEL_FAMILIES:
                    forms[decision.site] = form_of(candidate)
        return cls(kernels, forms, stored, decided_lstms(context, both))

    def of_kernel(self, kernel: str) -> Mapping[str, Parameters]:
        """Parameters by site."""
        return self.kernels.get(kernel, {})


def carry_out(context: Context, decisions: Sequence[Decision]) -> None:
    """Write integer weights and QDQ pairs as decided; activations need no statistics."""
    nodes = {node.name: node for node in operators_between(context)}
    decided = _Decided.of(context, decisions)
    wide = decided.of_kernel(WIDE)
    static = {**decided.of_kernel(STATIC), **wide}
    pairs = Pairs(context)
    layers = [context.layer(site) for site in static if site not in nodes]
    absorb(context, layers, static)
    smoothed = insert_smoothing(context, layers, static)
    for layer in layers:
        pairs.want_input(layer, static[layer.name], wide=layer.name in wide)
    for layer in layers:
        if rounds_output(layer):
            pairs.want_output(layer.node, static[layer.name], wide=layer.name in wide)
    for name, node in nodes.items():
        if name in static:
            pairs.join(node, static[name])
    pairs.fill_outputs(layers, static)
    pairs.widen(smoothed)
    for layer in layers:
        if not context.is_idle(layer):
            scale = pairs.input_scale(layer)
            form = decided.forms.get(layer.name)
            write_static(context, layer, static[layer.name], scale, form)
    smoothed += write_dynamic(context, decided.of_kernel(DYNAMIC), decided.forms)
    for weights in decided.lstms:
        write_dynamic_lstm(context, weights)
    write_weights(context, decided.stored)
    # Last, so that what is folded into weights meets them in their final form.
    if not context.observed:
        pairs.move(fold_smoothing(context.names, smoothed, pairs.tensors, context.kept))
    pairs.insert()
    write_float8(context, decided.kernels)
