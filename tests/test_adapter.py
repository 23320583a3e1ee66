"""A pass inside anyone's sequence of onnx-ir passes."""

from pathlib import Path

import onnx_ir as ir
import pytest
from fashion import fashion_data
from onnx_ir.passes import common

from onnxpress import model_file
from onnxpress.adapter import PressPass
from onnxpress.layers import find_layers
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.sparsify import Sparsify


def zeros(model: ir.Model) -> float:
    """Share of the weights of all layers."""
    weights = [layer.read() for layer in find_layers(model)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def test_pass_runs_inside_sequential_and_leaves_the_given_model(models: Path) -> None:
    model = model_file.load(models / "fashion_mlp.onnx")
    before = model_file.to_bytes(model)
    pass_ = Sparsify(sparsity=0.5, importance="wanda", compensation="none")
    data = fashion_data(calibration=32)["calibration"]
    both = ir.passes.Sequential(PressPass(pass_, calibration=data), common.CheckerPass())
    # Shared out in steps of 1% of a layer; the largest holds half of the weights.
    assert zeros(both(model).model) == pytest.approx(0.503, abs=0.003)
    assert model_file.to_bytes(model) == before


def test_model_in_which_nothing_is_left_to_do_goes_through_as_it_is(models: Path) -> None:
    once = PressPass(Quantize(form="weight_only"))(
        model_file.load(models / "fashion_mlp.onnx")
    ).model
    again = PressPass(Quantize(form="weight_only"))(once)
    assert not again.modified
    assert model_file.to_bytes(again.model) == model_file.to_bytes(once)


def test_pass_that_prepares_the_model_does_so_here_too(models: Path) -> None:
    """Integers are taken out before they are chosen anew."""
    model = model_file.load(models / "fashion_mlp.onnx")
    data = fashion_data(calibration=32)["calibration"]
    signed = PressPass(Quantize(form="static"), calibration=data)(model).model
    unsigned = Quantize(form="static", layout="u8u8", requantize=True)
    again = PressPass(unsigned, calibration=data)(signed)
    assert again.modified
    kinds = {
        value.const_value.dtype
        for value in again.model.graph.initializers.values()
        if value.const_value is not None and value.const_value.size > 1000
    }
    assert kinds == {ir.DataType.UINT8}
