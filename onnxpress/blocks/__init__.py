"""A graph in blocks: cut where few bytes cross, each a small model of its own."""

from onnxpress.blocks.cutting import Block, Cut, cut
from onnxpress.blocks.extracting import Parts
from onnxpress.blocks.holding import Held
from onnxpress.blocks.sizes import observed_bytes, without_weights
from onnxpress.blocks.walking import PartFeeds, Walk, first_nan, has_nan

__all__ = [
    "Block",
    "Cut",
    "Held",
    "PartFeeds",
    "Parts",
    "Walk",
    "cut",
    "first_nan",
    "has_nan",
    "observed_bytes",
    "without_weights",
]
