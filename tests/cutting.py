"""Cut a share of every group of channels, and compare with the same channels set to zero."""

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.data import Samples, random_samples
from onnxpress.graph import Names
from onnxpress.layers import find_layers
from onnxpress.passes.prune.cut import remove, zeroed
from onnxpress.passes.prune.layout import Layout
from onnxpress.runtime import Session

__all__ = ["SAME_DB", "compared"]

SAME_DB = 80.0
"""Sums in another order differ by 1e-6 in float32, and deep random networks magnify that."""


def compared(model: ir.Model, share: float, samples: Samples | None = None) -> tuple[float, Layout]:
    """Worst SQNR of outputs with a share of every group removed, against the same zeroed."""
    rng = np.random.default_rng(0)
    layout = Layout(model, find_layers(model))
    chosen: list[tuple[str, int]] = []
    for group in layout.groups.values():
        if group.blocked is None and len(group.units) > 1:
            count = max(1, int(len(group.units) * share))
            picked = rng.choice(len(group.units), count, replace=False)
            chosen += [(group.name, int(index)) for index in picked]
    assert chosen, "nothing could be cut"
    narrow, reference = model.clone(), model.clone()
    for changed, action in ((narrow, remove), (reference, zeroed)):
        fresh = Layout(changed, find_layers(changed))
        units = {fresh.groups[name].units[index] for name, index in chosen}
        if action is remove:
            remove(Names(changed), changed, fresh.reader, units)
        else:
            zeroed(changed, fresh.reader.coupling, units)
    content = model_file.to_bytes(narrow)
    weights = [sum(layer.nbytes for layer in find_layers(made)) for made in (narrow, model)]
    assert weights[0] < weights[1]
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    before, after = Session(reference), Session(narrow)
    worst = np.inf
    for feed in (samples or random_samples(before, 2, 0)).feeds[:2]:
        wanted, found = before.run(feed), after.run(feed)
        for name, array in wanted.items():
            assert found[name].shape == array.shape
            if array.dtype.kind != "f":
                np.testing.assert_array_equal(found[name], array)
                continue
            exact = array.astype(np.float64)
            error = np.square(exact - found[name].astype(np.float64)).sum()
            power = np.square(exact).sum()
            worst = min(worst, 10 * (np.log10(power + 1e-300) - np.log10(error + 1e-300)))
    return worst, layout
