"""Static rules: what a provider's own rules say of a model, without running it."""

from onnxpress.targets.static_rules.refusal import Refusal
from onnxpress.targets.static_rules.report import StaticReport, static_report

__all__ = ["Refusal", "StaticReport", "static_report"]
