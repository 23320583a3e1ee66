"""Run a model block by block, and as a whole without what onnxruntime fuses."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.blocks import Cut, Parts
from onnxpress.runtime import Array, Feed, Session

__all__ = ["HALF_ROUNDING", "block_models", "by_blocks", "check_exact", "whole"]

HALF_ROUNDING = 4 * 2.0**-11
"""onnxruntime computes half precision in float32 and leaves out the rounding between two nodes that
stand in one graph, but not that at a border; a few borders add up to a few roundings."""


def block_models(found: Cut) -> list[ir.Model]:
    """A model for each block."""
    parts = Parts(found.typed)
    return [
        parts.part(frozenset(block.inputs), [parts.values[name] for name in block.outputs])
        for block in found.blocks
    ]


def by_blocks(
    model: ir.Model, found: Cut, feed: Feed, *, optimize: bool = False
) -> dict[str, Array]:
    """What the blocks give of the outputs, one after the other; each is a valid model."""
    known = dict(feed)
    for block, part in zip(found.blocks, block_models(found), strict=True):
        onnx.checker.check_model(model_file.to_bytes(part))
        if not block.outputs:
            continue
        names = [value.name or "" for value in part.graph.inputs]
        own = {name: known[name] for name in names if name in known}
        known.update(Session(part, threads=1, optimize=False).run(own))
    return {name: known[name] for value in model.graph.outputs if (name := value.name or "")}


def whole(model: ir.Model, feed: Feed) -> dict[str, Array]:
    """What the model gives."""
    return Session(model, threads=1, optimize=False).run(feed)


def check_exact(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """The same bits, NaN included; in half precision within `HALF_ROUNDING`."""
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        assert array.dtype == found[name].dtype
        if array.dtype == np.float16:
            one, other = array.astype(np.float32), found[name].astype(np.float32)
            np.testing.assert_allclose(other, one, HALF_ROUNDING, HALF_ROUNDING, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
