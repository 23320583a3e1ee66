"""The common ground of several targets: one model that is good for all of them."""

import dataclasses
from collections.abc import Sequence
from functools import reduce

from onnxpress.targets.schema import build, facts
from onnxpress.targets.target import Target

__all__ = ["intersect"]


def intersect(targets: Sequence[Target]) -> Target:
    """The common ground of targets; of one, the target itself.

    An operator is quantized where every target has an integer kernel for it or leaves it to the
    CPU provider in any case; one that takes it in float only would be split around it.

    Raises:
        UsageError: two targets exclude each other; the message names both and the field.
    """
    if any(not target.layouts for target in targets):
        # One computes in float only: whatever integers the others prefer does not matter.
        targets = [
            dataclasses.replace(target, layouts=(), quantized_operators=frozenset())
            for target in targets
        ]
    return reduce(_meet, targets)


def _meet(a: Target, b: Target) -> Target:
    values = {
        name: declared.meet(a, b, name)
        for name, declared in facts(Target).items()
        if declared.meet is not None
    }
    return build(Target, values)
