"""Which weights go, how many, and what a file is worth in which they are packed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from fashion import fashion_data
from generated import initialized, rewritten_fully

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Context, Skip
from onnxpress.data import random_samples
from onnxpress.errors import UsageError
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.sparsify import Sparsify
from onnxpress.runtime import Session
from onnxpress.targets import load_target


def weights_of(model: ir.Model) -> dict[str, npt.NDArray[np.floating]]:
    return {layer.name: layer.read() for layer in find_layers(model)}


def test_global_magnitude_is_the_smallest_share_of_all_weights(models: Path) -> None:
    """What torch.nn.utils.prune.global_unstructured with L1Unstructured does."""
    model = onnxpress.load(models / "fashion_mlp.onnx")
    pass_ = Sparsify(sparsity=0.2, importance="magnitude", compensation="none", scope="global")
    pruned = weights_of(rewritten_fully(pass_, model))
    dense = weights_of(model)
    flat = np.concatenate([np.abs(weight).ravel() for weight in dense.values()])
    limit = np.sort(flat)[round(0.2 * flat.size) - 1]
    for name, weight in dense.items():
        np.testing.assert_array_equal(pruned[name], np.where(np.abs(weight) <= limit, 0, weight))


def test_threshold_takes_what_is_at_most_so_large(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    pruned = weights_of(rewritten_fully(Sparsify(threshold=0.01), model))
    for name, weight in weights_of(model).items():
        np.testing.assert_array_equal(pruned[name], np.where(np.abs(weight) <= 0.01, 0, weight))


SPARSE = Sparsify(sparsity=0.8, refinement=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("passes", "share"),
    [([SPARSE], 0.35), ([SPARSE, Quantize()], 0.12)],
    ids=["float", "int8"],
)
def test_sparse_file_is_small_and_keeps_its_answers(
    tmp_path: Path, models: Path, passes: Any, share: float
) -> None:
    """Bars of size and of accuracy, with 80% of the weights where the budget is for them alone."""
    given = {**fashion_data(evaluation=1000), "clock": BY_WORK}
    original = models / "fashion_mlp.onnx"
    result = onnxpress.optimize(original, passes=passes, **given)
    assert result.within_budget
    result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < share * original.stat().st_size
    assert result.validation is not None
    assert result.validation.measurement.drop <= 1.0
    if len(passes) > 1:
        again = onnxpress.optimize(original, recipe=result.recipe, **given)
        assert model_file.to_bytes(again.model) == model_file.to_bytes(result.model)


def test_quantizing_leaves_pruned_weights_at_zero(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    samples = random_samples(Session(model), 64, seed=0)
    pass_ = Sparsify(sparsity=0.7, scope="layer", importance="magnitude", compensation="none")
    sparse = rewritten_fully(pass_, model)
    zeros = {name: weight == 0 for name, weight in weights_of(sparse).items()}
    quantized = rewritten_fully(Quantize(form="weight_only"), sparse, samples)
    integers = [
        value.const_value.numpy()
        for value in quantized.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.INT8
    ]
    masks = [mask for mask in zeros.values() if mask.size > 10_000]
    assert len(masks) == 3
    for mask in masks:
        (same,) = [array for array in integers if array.shape == mask.shape]
        assert mask.mean() == pytest.approx(0.7, abs=0.01)
        assert (same[mask] == 0).all(), mask.shape


def test_n_of_m_that_does_not_fit_is_left_with_the_reason() -> None:
    """A first convolution of three channels cannot be 2:4."""
    model = initialized(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[8, 3, 3, 3] w) => (float[1, 8, 6, 6] y) { y = Conv (x, w) }"""
    )
    (skip,) = Sparsify(pattern="2:4").propose(Context(model, load_target("cpu")))
    assert isinstance(skip, Skip)
    assert "no multiple of 4" in skip.reason


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sparsity": 0.0}, "sparsity is 0.0; expected a number above 0, below 1"),
        ({"sparsity": 1.0}, "sparsity is 1.0; expected a number above 0, below 1"),
        ({"pattern": "4:2"}, "N below M"),
        ({"pattern": "half"}, "N below M"),
        ({"threshold": -1.0}, "threshold is -1.0; expected a number at least 0"),
        ({"scope": "network"}, "scope is 'network'; expected one of auto, loss"),
        ({"compensation": "magic"}, "compensation is 'magic'; expected one of auto, alternating"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Sparsify(**options)


def test_unknown_layer_is_answered_with_the_nearest(models: Path) -> None:
    context = Context(onnxpress.load(models / "fashion_mlp.onnx"), load_target("cpu"))
    with pytest.raises(UsageError, match=r"did you mean 'fc1\.weight'"):
        Sparsify(layers=("fc1.wight",)).propose(context)


def test_only_named_layers_are_pruned(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    pass_ = Sparsify(layers=("fc2.weight",), scope="layer")
    changed = weights_of(rewritten_fully(pass_, model))
    for name, weight in weights_of(model).items():
        assert np.array_equal(weight, changed[name]) == (name != "fc2.weight")


def test_sparsity_that_the_budget_forbids_is_said(models: Path) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=[Sparsify(sparsity=0.95, importance="wanda", compensation="none")],
        min_sqnr=25.0,
        metric="none",
        clock=BY_WORK,
        **fashion_data(calibration=96, evaluation=600),
    )
    assert result.within_budget
    stage = next(stage for stage in result.stages if stage.pass_.name == "sparsify")
    assert "% of what was asked for: more would break the budget" in stage.note
    zeros = sum(int((weight == 0).sum()) for weight in weights_of(stage.model).values())
    assert zeros > 1000
