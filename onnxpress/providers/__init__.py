"""Proof on execution providers: a process each, what it took, how close, how fast."""

from onnxpress.providers.catalogue import PROVIDERS, Provider, provider_names
from onnxpress.providers.check import check_providers
from onnxpress.providers.config import NO_PROVIDERS, ProviderOptions
from onnxpress.providers.survey import Finding, survey
from onnxpress.providers.verdicts import Placement, ProviderVerdict, Status, unmet

__all__ = [
    "NO_PROVIDERS",
    "PROVIDERS",
    "Finding",
    "Placement",
    "Provider",
    "ProviderOptions",
    "ProviderVerdict",
    "Status",
    "check_providers",
    "provider_names",
    "survey",
    "unmet",
]
