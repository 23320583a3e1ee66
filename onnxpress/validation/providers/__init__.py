"""Proof on execution providers: a process each, what it took, how close, how fast."""

from onnxpress.validation.providers.catalogue import PROVIDERS, Provider, provider_names
from onnxpress.validation.providers.check import TIME_LIMIT_S, check_providers
from onnxpress.validation.providers.verdicts import Placement, ProviderVerdict, Status, unmet

__all__ = [
    "PROVIDERS",
    "TIME_LIMIT_S",
    "Placement",
    "Provider",
    "ProviderVerdict",
    "Status",
    "check_providers",
    "provider_names",
    "unmet",
]
