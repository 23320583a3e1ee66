"""Targets are data: what a provider accepts, one TOML file each, read, checked and intersected."""

from onnxpress.targets.common import common
from onnxpress.targets.reader import load_target, processor_features, target_names
from onnxpress.targets.target import LAYOUTS, Layout, OperatorRule, Target

__all__ = [
    "LAYOUTS",
    "Layout",
    "OperatorRule",
    "Target",
    "common",
    "load_target",
    "processor_features",
    "target_names",
]
