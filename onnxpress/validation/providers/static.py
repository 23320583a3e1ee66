"""The verdict on a provider that cannot run here: what its own rules say of the model."""

import onnx_ir as ir

from onnxpress.validation.providers.catalogue import Provider
from onnxpress.validation.providers.verdicts import ProviderVerdict, Status

__all__ = ["static_verdict"]


def static_verdict(
    entry: Provider, model: ir.Model, why: str = "", *, status: Status = Status.STATIC
) -> ProviderVerdict:
    """By the rules of the provider's target, which prove nothing."""
    return ProviderVerdict(entry.name, status, why)
