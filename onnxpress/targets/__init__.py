"""Targets are data: what a provider accepts, one TOML file each, read, checked and intersected."""

from onnxpress.targets.intersection import intersect
from onnxpress.targets.layout import LAYOUTS, Layout
from onnxpress.targets.operator_rule import OperatorRule
from onnxpress.targets.processor import processor_features
from onnxpress.targets.reader import load_target, target_names
from onnxpress.targets.target import Target

__all__ = [
    "LAYOUTS",
    "Layout",
    "OperatorRule",
    "Target",
    "intersect",
    "load_target",
    "processor_features",
    "target_names",
]
