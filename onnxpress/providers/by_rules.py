"""The verdict on a provider that cannot run here: what its own rules say of the model."""

import collections

import onnx_ir as ir

from onnxpress.providers.catalogue import Provider
from onnxpress.providers.verdicts import Placement, ProviderVerdict, Status
from onnxpress.targets import load_target
from onnxpress.targets.static_rules import static_report

__all__ = ["verdict_by_rules"]

_SHOWN = 3


def verdict_by_rules(
    entry: Provider, model: ir.Model, why: str = "", *, status: Status = Status.STATIC
) -> ProviderVerdict:
    """By the rules of the provider's target, which prove nothing.

    Args:
        entry: the provider.
        model: with its inputs fixed where the provider wants static shapes.
        why: why it does not run here.
        status: `STATIC`, or `ABSENT` for one that could be installed.
    """
    report = static_report(model, load_target(entry.target))
    left = collections.Counter(node.split()[0] for node, _ in report.refused)
    reasons = collections.Counter(reason for _, reason in report.refused)
    warnings = [
        f"by its rules {count} refused: {reason}" for reason, count in reasons.most_common(_SHOWN)
    ]
    return ProviderVerdict(
        entry.name,
        status,
        why,
        placement=Placement(
            report.nodes,
            report.taken,
            report.multiply_add_share,
            report.partitions,
            dict(left.most_common()),
        ),
        warnings=tuple(warnings),
        advice=report.advice,
    )
