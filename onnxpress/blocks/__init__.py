"""A graph in blocks: cut where few bytes cross, each a small model of its own."""

from onnxpress.blocks.cutting import Block, Cut, cut
from onnxpress.blocks.extracting import Parts
from onnxpress.blocks.holding import Held
from onnxpress.blocks.sizes import observed_bytes
from onnxpress.blocks.walking import Walk, first_nan

__all__ = ["Block", "Cut", "Held", "Parts", "Walk", "cut", "first_nan", "observed_bytes"]
