"""What an expert says of single layers, `PATTERN=FORM`, in place of the settings of all.

FORM is words between colons: bits, then the size of blocks (`4:32`; several bits `3,4:32`), and in
any place a form (`static`, `weight_only`, or `float`: left alone), levels, what reads the weights,
and `symmetric` or `zero_points`. What is not said is as for all layers. Of several that match a
layer a name counts for more than a pattern, and that for more than an operator type; of equals the
last.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from onnxpress.contract import Context
from onnxpress.errors import UsageError, nearest
from onnxpress.passes.quantize.candidates import Offering
from onnxpress.passes.quantize.float8 import FLOAT8
from onnxpress.passes.quantize.forms import BYTE, KINDS
from onnxpress.passes.quantize.levels import Layout

__all__ = ["FLOAT", "SMALLEST", "LayerForm", "by_layer"]

FLOAT = "float"
SMALLEST = (4, 8)
"""Bits that are mixed where bytes count for more than time: 2 and 3 lose too much mostly."""
_LEAST_BITS = 2
_NUMBERS = re.compile(r"\d+(,\d+)*")
_WORDS: dict[str, dict[str, Any]] = {
    **{word: {"form": word} for word in ("auto", "static", "dynamic", "weight_only", FLOAT)},
    **{word: {"form": word} for word in FLOAT8},
    **{word: {"kinds": (word,)} for word in KINDS},
    **{word: {"layout": word} for word in get_args(Layout)},
    "symmetric": {"symmetric": True},
    "zero_points": {"symmetric": False},
}


@dataclass(frozen=True, slots=True)
class LayerForm:
    """What is said of the layers that a pattern stands for.

    Attributes:
        pattern: a name, an operator type, or a pattern of names.
        form: of the pass; empty: that of all layers.
        stored: what is given of `StoredForms`, by its fields.
    """

    pattern: str
    form: str
    stored: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> "LayerForm":
        """`PATTERN=FORM`; a name may hold `=` itself.

        Raises:
            ValueError: it is something else.
        """
        pattern, equals, words = text.rpartition("=")
        if not (pattern.strip() and equals and words.strip()):
            raise ValueError(
                f"layer_forms has {text!r}; expected PATTERN=FORM, as '*attention*=4:32' (4 bits "
                "in blocks of 32) or 'Gather=float'"
            )
        found: dict[str, Any] = {}
        for word in words.split(":"):
            for key, value in _read(word.strip(), text, has_bits="bits" in found).items():
                if key in found:
                    raise ValueError(f"layer_forms has {text!r}, which says twice what {key} is")
                found[key] = value
        form = found.pop("form", "")
        if found and (form == FLOAT or form in FLOAT8):
            raise ValueError(
                f"layer_forms has {text!r}, and with {form} there is no more to say of a layer: "
                f"bits, blocks and levels are of integers; expected '{pattern}={form}'"
            )
        return cls(pattern, form, found)

    def of(self, offering: Offering) -> Offering:
        """The offering for its layers."""
        stored = replace(offering.stored, **self.stored)
        if "kinds" in self.stored and not stored.bits:
            stored = replace(stored, bits=SMALLEST)
        return replace(offering, form=self.form or offering.form, stored=stored)


def _read(word: str, text: str, *, has_bits: bool) -> Mapping[str, Any]:
    """What a word says."""
    if word in _WORDS:
        return _WORDS[word]
    if not _NUMBERS.fullmatch(word):
        raise ValueError(
            f"layer_forms has {text!r}, and {word!r} is no word of a form"
            f"{nearest(word, list(_WORDS))}; expected bits, then a size of blocks, and some of "
            f"{', '.join(_WORDS)}"
        )
    numbers = tuple(int(number) for number in word.split(","))
    if has_bits:
        if len(numbers) > 1:
            raise ValueError(f"layer_forms has {text!r}, which has several sizes of blocks")
        return {"block_size": numbers[0]}
    if not all(_LEAST_BITS <= bits <= BYTE for bits in numbers):
        raise ValueError(
            f"layer_forms has {text!r}, and {word} are no bits of a weight; expected {_LEAST_BITS} "
            f"to {BYTE}, then a size of blocks after a colon (activations of 16 bits: sixteen_bit)"
        )
    return {"bits": numbers}


def by_layer(context: Context, texts: Sequence[str], offering: Offering) -> dict[str, Offering]:
    """What is offered of weights that something is said of, by name.

    Args:
        context: whose model has them.
        texts: of the setting.
        offering: of all layers.

    Raises:
        UsageError: a pattern stands for no weight of the model.
    """
    found: dict[str, tuple[int, Offering]] = {}
    for text in texts:
        said = LayerForm.parse(text)
        matched, closeness = context.selected(said.pattern)
        if not matched:
            names = [weight.name for weight in context.weights]
            raise UsageError(
                f"quantize: layer_forms has {text!r}, and {said.pattern!r} matches no layer with a "
                f"constant weight, no node or operator type that has one"
                f"{nearest(said.pattern, names)} (onnxpress inspect lists them) [U001]"
            )
        for name in sorted(matched):
            if name not in found or found[name][0] <= closeness:
                found[name] = closeness, said.of(offering)
    return {name: own for name, (_, own) in found.items()}
