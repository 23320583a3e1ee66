"""What the pass offers, removes and leaves."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from built_graphs import Builder
from clocks import BY_WORK, work_of
from command_line import message, run
from fashion import fashion_data
from generated import rewritten_fully

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Context, Decision, Proposal, Skip
from onnxpress.data import load_samples, random_samples
from onnxpress.errors import RecipeError, UsageError
from onnxpress.layers import find_layers
from onnxpress.passes.prune import Prune
from onnxpress.pool import Pool
from onnxpress.registry import create
from onnxpress.runtime import Session
from onnxpress.targets import load_target

Float64 = npt.NDArray[np.float64]


def simplified(model: ir.Model) -> ir.Model:
    return rewritten_fully(create("simplify"), model)


def gemm_pair(first: Float64, bias: Float64, second: Float64, *between: str) -> ir.Model:
    """x[batch, in] → Gemm → operators → Gemm → y."""
    b = Builder(0, 0)
    weights = [b.constant(array.astype(np.float32)) for array in (first, bias, second)]
    value = b.add("Gemm", "x", weights[0], weights[1], transB=1)[0]
    for op_type in between:
        extra = [b.constant(np.ones((), np.float32))] if op_type == "Add" else []
        value = b.add(op_type, value, *extra)[0]
    b.add("Gemm", value, weights[2], transB=1)
    return b.model(["batch", first.shape[1]], ["batch", len(second)])


def test_dead_and_copied_channels_go_without_data_and_without_loss() -> None:
    rng = np.random.default_rng(0)
    first, bias, second = (rng.standard_normal(shape) for shape in ((12, 6), (12,), (4, 12)))
    first[3], bias[3] = 0, -1  # never above zero
    first[5], bias[5] = 2 * first[1], 2 * bias[1]  # a copy up to a factor
    first[8], bias[8] = first[2], bias[2]
    second[:, 10] = 0  # read by nobody
    model = gemm_pair(first, bias, second, "Relu")
    result = onnxpress.optimize(model, passes=["prune"], clock=BY_WORK)
    assert [layer.shape for layer in find_layers(result.model)] == [(8, 6), (4, 8)]
    assert result.validation is not None
    assert result.validation.measurement.worst_sqnr_db > 120


@pytest.mark.parametrize("between", [("Sigmoid",), ("Add",), ("Relu", "Add"), ("Softplus", "Relu")])
def test_unit_of_zeros_stays_where_what_follows_makes_something_of_it(
    between: tuple[str, ...],
) -> None:
    rng = np.random.default_rng(0)
    first, bias, second = (rng.standard_normal(shape) for shape in ((8, 6), (8,), (4, 8)))
    first[3], bias[3] = 0, 0
    model = gemm_pair(first, bias, second, *between)
    for item in Prune().propose(Context(model, load_target("cpu"))):
        assert isinstance(item, Skip), "nothing is free here"


def test_depthwise_transposed_convolution_keeps_its_weights() -> None:
    b = Builder(0, 3)
    b.conv(16)
    (b.value,) = b.add("Relu", b.value)
    weight = b.drawn(16, 1, 3, 3)
    (b.value,) = b.add("ConvTranspose", b.value, weight, group=16, pads=[1, 1, 1, 1])
    b.conv(4)
    model = b.model([1, 3, 6, 6], [1, 4, 6, 6])
    samples = random_samples(Session(model), 64, seed=1)
    narrow = rewritten_fully(Prune(ratio=0.6, importance="magnitude"), model, samples)
    left = {layer.name: layer for layer in find_layers(narrow)}[weight]
    assert left.shape[0] < 16
    assert all(np.abs(row).max() > 0 for row in left.read())


@pytest.mark.slow
def test_half_of_the_residual_network_costs_less_than_two_points(models: Path) -> None:
    original = simplified(onnxpress.load(models / "fashion_cnn.onnx"))
    result = onnxpress.optimize(
        original,
        passes=[Prune(ratio=0.5)],
        max_drop=100,
        clock=BY_WORK,
        **fashion_data(evaluation=500),
    )
    assert result.validation is not None
    assert result.validation.measurement.drop <= 2
    assert 0.4 < work_of(result.model) / work_of(original) <= 0.5


def test_residual_block_is_left_out_whole(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_cnn.onnx"))
    data = str(models / "fashion_calibration.npz")
    samples = load_samples(data, Session(model).inputs).take(range(64))
    shorter = rewritten_fully(Prune(structure="block"), model, samples)
    before, after = find_layers(model), find_layers(shorter)
    assert len(before) - len(after) == 8, "four blocks of two convolutions"
    onnx.checker.check_model(onnx.load_from_string(model_file.to_bytes(shorter)), full_check=True)


def test_group_that_reaches_input_or_output_says_so(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_mlp.onnx"))
    proposals = Prune(ratio=0.5).propose(Context(model, load_target("cpu")))
    reasons = {item.site: item.reason for item in proposals if isinstance(item, Skip)}
    assert "the output 'logits' of the model" in reasons["head.weight"]


def test_counts_are_multiples_and_never_all(models: Path) -> None:
    model = simplified(onnxpress.load(models / "fashion_mlp.onnx"))
    found = Prune(ratio=0.5, multiple=24).propose(Context(model, load_target("cpu")))
    offered = [item for item in found if isinstance(item, Proposal)]
    assert [item.site for item in offered] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    widths = {layer.name: layer.shape[0] for layer in find_layers(model)}
    for item in offered:
        kept = [int(c.parameters["kept"]) for c in item.candidates]
        assert all(count % 24 == 0 for count in kept)
        assert 0 < min(kept) < max(kept) < widths[item.site]


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 1.0])
def test_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match=r"prune: ratio is .*; expected a number above 0, below 1"):
        Prune(ratio=ratio)


def test_unknown_layer_names_the_nearest(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    with pytest.raises(UsageError, match=r"did you mean 'fc1.weight'"):
        Prune(ratio=0.5, layers=("fc1.weigth",)).propose(Context(model, load_target("cpu")))


def test_decision_of_another_model_is_an_error_not_a_crash(models: Path) -> None:
    mlp, cnn = (
        Context(simplified(onnxpress.load(models / name)), load_target("cpu"))
        for name in ("fashion_mlp.onnx", "fashion_cnn.onnx")
    )
    pool = Pool((Prune(ratio=0.5),))
    proposals = pool.offer(mlp).proposals
    assert proposals
    decisions = [Decision(item.site, item.candidates[0]) for item in proposals]
    with pytest.raises(RecipeError, match="another model"):
        pool.rewrite(cnn, decisions)


def test_command_reports_why_nothing_was_removed(linear_model: Path) -> None:
    done = run("prune", linear_model, "--ratio", "0.5")
    assert done.exit_code == 1
    assert "cannot be pruned" in " ".join(message(done).split())
