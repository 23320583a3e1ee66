"""What the layers and other weights of a model may become, in the forms that settings allow."""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from onnxpress.contract import Candidate, Context, Layer, Proposal, Skip, StoredWeight
from onnxpress.errors import UsageError, nearest
from onnxpress.passes.quantize.activations import operators_between
from onnxpress.passes.quantize.candidates import (
    LEAST_SHARE,
    Offering,
    between_candidate,
    dynamic_candidates,
    static_candidates,
    weight_bytes,
    weight_only_candidate,
)
from onnxpress.passes.quantize.float8 import FLOAT8, float8_candidate
from onnxpress.passes.quantize.forms import BYTE
from onnxpress.passes.quantize.layer_forms import FLOAT
from onnxpress.passes.quantize.recurrent import lstm_candidates, lstm_weights, with_reason
from onnxpress.passes.quantize.restoring import integer_weights
from onnxpress.passes.quantize.storing import storing_candidate
from onnxpress.pieces import is_finite

__all__ = ["proposals"]

_NOTHING: Mapping[str, Offering] = MappingProxyType({})
_LEFT = "left in float, as layer_forms says [L005]"
_AMBIGUOUS = "weights of several subgraphs have its name: simplify the model first [Q010]"


@dataclass(frozen=True, slots=True)
class _Offerings:
    """What settings allow.

    Attributes:
        all: of layers that nothing else is said of.
        some: of others, by name.
    """

    all: Offering
    some: Mapping[str, Offering]

    def of(self, name: str) -> Offering:
        """Of a layer or another weight."""
        return self.some.get(name, self.all)

    def join(self, weights: Sequence[Layer]) -> bool:
        """Whether both weights of an LSTM may be one site, in 8 bits."""
        own = [self.some.get(weight.name) for weight in weights]
        if any(one != own[0] for one in own):
            return False
        bits = () if own[0] is None else own[0].stored.bits
        return not bits or BYTE in bits

    def leaves(self, name: str) -> bool:
        """Whether it shall stay in float."""
        return self.of(name).form == FLOAT


def proposals(
    context: Context, offering: Offering, some: Mapping[str, Offering] = _NOTHING
) -> list[Proposal | Skip]:
    """Candidates for layers and other weights; static ones for operators between.

    Args:
        context: a draft, of the target's layout or the one that was asked for.
        offering: what settings allow.
        some: what they allow of weights that something else is said of, by name.

    Raises:
        UsageError: they name a layer that there is none of.
    """
    names = [layer.name for layer in context.layers]
    for name in offering.sixteen_bit:
        if name not in names:
            raise UsageError(
                f"quantize: sixteen_bit names {name!r}, which is no layer of this model with a "
                f"constant weight{nearest(name, names)}; `onnxpress inspect` lists them [U001]"
            )
    offerings = _Offerings(offering, some)
    of_stored = _of_stored(context, offerings)
    answered = {item.site for item in of_stored}
    found = [*_of_layers(context, offerings, answered), *of_stored]
    found += [
        Skip(name, "is in integers already; requantize quantizes it anew [Q009]")
        for name in integer_weights(context.model)
    ]
    if offering.form in ("auto", "static"):
        found += [
            Proposal(node.name or "", (candidate,))
            for node in operators_between(context)
            if (candidate := between_candidate(context, node, offering)) is not None
        ]
    return found


def _of_layers(
    context: Context, offerings: _Offerings, answered: set[str]
) -> list[Proposal | Skip]:
    """Of layers that are not answered for; both weights of an LSTM may be one site."""
    found: list[Proposal | Skip] = []
    both = lstm_weights(context)
    times = collections.Counter(layer.name for layer in context.layers)
    for layer in context.layers:
        if layer.name in answered:
            continue
        reason = _untreatable(context, layer)
        if times[layer.name] > 1:
            reason = _AMBIGUOUS
        if offerings.leaves(layer.name):
            reason = _LEFT
        offering = offerings.of(layer.name)
        if reason is not None:
            found.append(Skip(layer.name, reason))
            continue
        weights, together = both.get(layer.name, ()), tuple[Candidate, ...]()
        if (
            weights
            and offerings.join(weights)
            and all(_untreatable(context, own) is None for own in weights)
        ):
            together, reason = lstm_candidates(context, weights, offering.form)
        if together:
            found.append(Proposal(layer.name, together))
            answered.update(together[0].members)
        else:
            found.append(with_reason(_of_layer(context, layer, offering), reason))
    return found


def _of_stored(context: Context, offerings: _Offerings) -> list[Proposal | Skip]:
    """Weights that are no layer, or that several read in their own ways: stored in integers."""
    found: list[Proposal | Skip] = []
    least = LEAST_SHARE * weight_bytes(context)
    times = collections.Counter(item.name for item in context.stored)
    named = {layer.name: layer for layer in context.layers}
    for stored in context.stored:
        if offerings.leaves(stored.name):
            found.append(Skip(stored.name, _LEFT))
            continue
        offering = offerings.of(stored.name)
        candidate: Candidate | None = None
        reason: str | None = _AMBIGUOUS
        if times[stored.name] == 1:
            candidate, reason = storing_candidate(context, stored, least)
        limit = f"it is only stored in integers: {_no_layer(stored, named)}"
        if candidate is not None and offering.stores:
            low, of_bytes = offering.stored.offered(context, stored, candidate)
            found.append(Proposal(stored.name, (*low, *of_bytes), limit))
        else:
            found.append(Skip(stored.name, limit if reason is None else reason))
    return found


def _of_layer(context: Context, layer: Layer, offering: Offering) -> Proposal | Skip:
    candidates: list[Candidate] = []
    limit: str | None = None
    if offering.form in ("auto", "static"):
        static, limit = static_candidates(context, layer, offering)
        candidates += static
    if offering.form in ("auto", "dynamic"):
        dynamic, reason = dynamic_candidates(context, layer, offering)
        candidates += dynamic
        limit = limit or (None if candidates else reason)
    if offering.form in FLOAT8:
        floats, limit = float8_candidate(context, layer, offering.form)
        candidates += [] if floats is None else [floats]
    no_kernel = limit
    if offering.stores:
        weight_only, small = weight_only_candidate(context, layer)
        limit = limit or small
        if weight_only is not None:
            limit = limit or offering.stored.unread(context, layer)
            low, of_bytes = offering.stored.offered(context, layer, weight_only)
            # What saves most comes first.
            candidates = [*low, *candidates, *of_bytes]
    if not candidates:
        return Skip(layer.name, limit or "no form fits it [Q011]")
    words = limit
    if limit is not None and not limit.startswith("no integer kernel"):
        words = f"no integer kernel: {limit}"
    return Proposal(layer.name, tuple(candidates), words if no_kernel else limit)


def _no_layer(stored: StoredWeight, layers: Mapping[str, Layer]) -> str:
    """Why no pass may compute with it otherwise."""
    layer = layers.get(stored.name)
    if layer is None:
        return f"{stored.op_type} has no integer kernel for it [Q001]"
    return layer.unsafe or "it is no layer of its own [Q006]"


def _untreatable(context: Context, layer: Layer) -> str | None:
    if 0 in layer.shape:
        return "its weight has no elements [L004]"
    if layer.unsafe is not None:
        return layer.unsafe
    if context.shapes_only or is_finite(layer.array):
        return None
    return "its weight holds NaN or infinity [L001]"
