"""Models of tests from ONNX's text form, and statistics of drawn rows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxpress.contract import Pass, Proposal
from onnxpress.data import Samples
from onnxpress.pool import Pool
from onnxpress.runtime import Array
from onnxpress.search.allocation import strongest
from onnxpress.statistics import LayerStatistics
from onnxpress.targets import load_target

__all__ = ["hold", "initialized", "only_proposal", "rewritten_fully", "statistics_of"]

Float64 = npt.NDArray[np.float64]


def hold(model: ir.Model, arrays: Mapping[str, Array]) -> ir.Model:
    """The model itself, whose inputs of these names have become initializers.

    ONNX's text form has no room for large weights.
    """
    for value in list(model.graph.inputs):
        name = value.name or ""
        if name in arrays:
            model.graph.inputs.remove(value)
            value.const_value = ir.Tensor(arrays[name], name=name)
            model.graph.register_initializer(value)
    return model


def initialized(text: str, *, seed: int = 0, scale: float = 1.0) -> ir.Model:
    """A model from text, all of whose inputs but the first become random initializers."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in model.graph.inputs[1:]:
        assert value.shape is not None
        drawn = scale * rng.standard_normal(tuple(value.shape.numpy()))
        arrays[value.name or ""] = drawn.astype(np.float32)
    return hold(model, arrays)


def statistics_of(x: Float64, reference: Float64 | None = None) -> LayerStatistics:
    """Of rows `[rows, in]`, beside the rows of a reference."""
    return LayerStatistics(
        rows=len(x),
        rows_per_sample=1.0,
        mean=x.mean(axis=0)[None],
        minimum=x.min(axis=0)[None],
        maximum=x.max(axis=0)[None],
        second_moment=np.square(x).mean(axis=0)[None],
        gram=(x.T @ x / len(x))[None],
        reference_mean=None if reference is None else reference.mean(axis=0)[None],
        cross=None if reference is None else (reference.T @ x / len(x))[None],
    )


def only_proposal(pass_: Pass, model: ir.Model, samples: Samples | None = None) -> Proposal:
    """What the pass proposes for the one site it does not leave alone."""
    pool = Pool((pass_,))
    (found,) = pool.offer(pool.context(model, load_target("cpu"), samples)).proposals
    return found


def rewritten_fully(pass_: Pass, model: ir.Model, samples: Samples | None = None) -> ir.Model:
    """A new model in which every site has the pass's strongest candidate, or its quota is met."""
    pool = Pool((pass_,))
    context = pool.context(model, load_target("cpu"), samples)
    return pool.rewrite(context, strongest(pool, context, pool.offer(context)))
