"""Masks against their definitions, solvers against each other, packed files against dense ones."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxpress
from onnxpress import model_file
from onnxpress.adapter import observe
from onnxpress.contract import Candidate, Context, Decision, Proposal, Skip
from onnxpress.data import random_samples
from onnxpress.errors import UsageError
from onnxpress.layers import find_layers
from onnxpress.passes.pack import Pack
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.sparsify import Sparsify
from onnxpress.passes.sparsify.compensate import Problem, alternating, columns, solve_masked
from onnxpress.passes.sparsify.masks import Pattern, keep_highest, keep_n_of_m
from onnxpress.runtime import Session
from onnxpress.search import apply
from onnxpress.targets import load_target

Float64 = npt.NDArray[np.float64]


def weights_of(model: ir.Model) -> dict[str, npt.NDArray[np.floating]]:
    return {layer.name: layer.read() for layer in find_layers(model)}


def strongest(pass_: Sparsify, context: Context) -> list[Decision]:
    return [
        Decision(item.site, item.candidates[0])
        for item in pass_.propose(context)
        if isinstance(item, Proposal)
    ]


def test_global_magnitude_is_the_smallest_share_of_all_weights(models: Path) -> None:
    """What torch.nn.utils.prune.global_unstructured with L1Unstructured does."""
    model = onnxpress.load(models / "fashion_mlp.onnx")
    context = Context(model, load_target("cpu"))
    pass_ = Sparsify(sparsity=0.2, importance="magnitude", compensation="none", scope="global")
    pruned = weights_of(apply(pass_, context, strongest(pass_, context)))
    dense = weights_of(model)
    flat = np.concatenate([np.abs(weight).ravel() for weight in dense.values()])
    limit = np.sort(flat)[round(0.2 * flat.size) - 1]
    for name, weight in dense.items():
        np.testing.assert_array_equal(pruned[name], np.where(np.abs(weight) <= limit, 0, weight))


def test_threshold_takes_what_is_at_most_so_large(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    context = Context(model, load_target("cpu"))
    pass_ = Sparsify(threshold=0.01)
    pruned = weights_of(apply(pass_, context, strongest(pass_, context)))
    for name, weight in weights_of(model).items():
        np.testing.assert_array_equal(pruned[name], np.where(np.abs(weight) <= 0.01, 0, weight))


@given(
    seed=st.integers(0, 100),
    kernel=st.sampled_from([1, 9]),
    pattern=st.sampled_from(["2:4", "4:8", "1:4"]),
)
@settings(max_examples=20, deadline=None)
def test_n_of_m_holds_along_the_input_channels(seed: int, kernel: int, pattern: str) -> None:
    parsed = Pattern.parse(pattern)
    assert parsed is not None
    scores = np.random.default_rng(seed).standard_normal((3, 5, 16 * kernel))
    mask = keep_n_of_m(scores, parsed, kernel)
    grouped = mask.reshape(15, 16 // parsed.group, parsed.group, kernel)
    assert (grouped.sum(axis=2) == parsed.kept).all()
    values = scores.reshape(grouped.shape)
    highest_out = np.where(grouped, -np.inf, values).max(axis=2)
    assert (highest_out <= np.where(grouped, values, np.inf).min(axis=2)).all()


def test_exactly_the_share_goes_even_among_equals() -> None:
    assert keep_highest(np.zeros((4, 5)), 7).sum() == 13
    assert (keep_highest(np.zeros((4, 5)), 2, by_row=True).sum(axis=1) == 3).all()


def problem(seed: int) -> tuple[Float64, Float64]:
    """(weights `[1, out, in]`, Gram matrix `[1, in, in]`) with inputs that are correlated."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((600, 64)) @ rng.standard_normal((64, 64))
    return rng.standard_normal((1, 32, 64)), (rows.T @ rows / len(rows))[None]


def loss(delta: Float64, gram: Float64) -> float:
    return float(np.einsum("goi,gij,goj->", delta, gram, delta))


@pytest.mark.parametrize("seed", range(5))
def test_solvers_rank_as_published(seed: int) -> None:
    """Alternating is nearer than columns and than Wanda's mask, also where that is solved for."""
    weights, gram = problem(seed)

    def choose(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        return keep_highest(scores, round(0.7 * scores.size))

    norms = np.sqrt(np.einsum("gii->gi", gram))[:, None, :]
    mask = choose(np.abs(weights) * norms)
    wanda = loss(np.where(mask, 0, weights), gram)
    solved = solve_masked(Problem.of(weights, gram), mask)
    assert not solved[~mask].any()
    best, block = alternating(Problem.of(weights, gram), choose), columns(weights, gram, choose)
    assert (best == 0).mean() == pytest.approx(0.7, abs=0.002)
    assert (block == 0).mean() == pytest.approx(0.7, abs=0.002)
    assert loss(weights - best, gram) < 0.5 * loss(weights - block, gram)
    assert loss(weights - best, gram) < loss(weights - solved, gram) < wanda


def test_masked_solution_is_the_normal_equations() -> None:
    weights, gram = problem(3)
    mask = np.random.default_rng(3).random(weights.shape) > 0.5
    found = solve_masked(Problem.of(weights, gram), mask)[0]
    damped = gram[0] + 0.01 * np.diag(np.diagonal(gram[0]))
    for row, kept, target in zip(found, mask[0], weights[0], strict=True):
        exact = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ target)
        delta, least = row - target, -target.copy()
        least[kept] += exact
        assert delta @ damped @ delta < 1.01 * (least @ damped @ least)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8])
@pytest.mark.parametrize("shape", [(37, 53), (8, 16, 3, 3), (4096,)])
def test_packed_weight_is_the_dense_one(dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Bit by bit, in onnxruntime and in ONNX's reference evaluator."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 100, shape)
    background = 128 if dtype is np.uint8 else 0
    array = np.where(rng.random(shape) < 0.9, background, numbers).astype(dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["w"], ["y"], to=onnx.TensorProto.FLOAT)],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(array, "w")],
    )
    assert graph.initializer[0].data_type == kind
    opset = onnx.helper.make_opsetid("", 13)
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8))
    context = Context(model, load_target("cpu"))
    proposal = next(iter(Pack().propose(context)))
    # The smallest ones are not worth their nodes; what is written must be right all the same.
    assert isinstance(proposal, Proposal | Skip)
    candidate = Candidate({"form": "bit_mask"}, 0.0, keeps_kernels=True)
    packed = apply(Pack(), context, [Decision("w", candidate)])
    onnx.checker.check_model(ir.to_proto(packed), full_check=True)
    for found in (
        Session(packed).run({})["y"],
        next(iter(onnx.reference.ReferenceEvaluator(ir.to_proto(packed)).run(None, {}))),
    ):
        np.testing.assert_array_equal(np.asarray(found), array.astype(np.float32))


def test_dense_weights_are_not_packed(models: Path) -> None:
    context = Context(onnxpress.load(models / "fashion_mlp.onnx"), load_target("cpu"))
    (skip,) = Pack().propose(context)
    assert isinstance(skip, Skip)


@pytest.mark.slow
def test_sparse_file_is_small_and_keeps_its_answers(tmp_path: Path, models: Path) -> None:
    """80% of the network's weights: bars of size unquantized and with int8, and of accuracy."""
    given = {
        "calibration": str(models / "fashion_calibration.npz"),
        "evaluation": str(models / "fashion_evaluation.npz"),
    }
    original = models / "fashion_mlp.onnx"
    for passes, share in (
        ([Sparsify(sparsity=0.8)], 0.35),
        ([Sparsify(sparsity=0.8), Quantize()], 0.12),
    ):
        result = onnxpress.optimize(original, passes=passes, **given)  # type: ignore[arg-type]
        assert result.within_budget
        result.save(tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx").stat().st_size < share * original.stat().st_size
        assert result.validation is not None
        assert result.validation.measurement.drop <= 1.0
        recipe = onnxpress.optimize(original, recipe=result.recipe, **given)  # type: ignore[arg-type]
        assert model_file.to_bytes(recipe.model) == model_file.to_bytes(result.model)
    content = (tmp_path / "out.onnx").read_bytes()
    assert len(zlib.compress(content)) <= len(content)


def test_quantizing_leaves_pruned_weights_at_zero(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    session = Session(model)
    samples = random_samples(session, 64, seed=0)
    context = Context(model, load_target("cpu"))
    sparsify = Sparsify(sparsity=0.7)
    context = replace(context, statistics=observe(sparsify, context, samples))
    pruned = apply(sparsify, context, strongest(sparsify, context))
    zeros = {name: weight == 0 for name, weight in weights_of(pruned).items()}
    quantize = Quantize(form="weight_only")
    context = Context(pruned, load_target("cpu"))
    context = replace(context, statistics=observe(quantize, context, samples))
    decisions = [
        Decision(item.site, item.candidates[0])
        for item in quantize.propose(context)
        if isinstance(item, Proposal)
    ]
    quantized = apply(quantize, context, decisions)
    integers = [
        value.const_value.numpy()
        for value in quantized.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.INT8
    ]
    masks = [mask for mask in zeros.values() if mask.mean() > 0.2]
    for mask in masks:
        same = [array for array in integers if array.shape == mask.shape]
        assert any((array[mask] == 0).all() for array in same), mask.shape


def test_n_of_m_that_does_not_fit_is_left_with_the_reason() -> None:
    """A first convolution of three channels cannot be 2:4."""
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[8, 3, 3, 3] w) => (float[1, 8, 6, 6] y) { y = Conv (x, w) }"""
    )
    value = model.graph.inputs.pop()
    value.const_value = ir.Tensor(rng.standard_normal((8, 3, 3, 3)).astype(np.float32), name="w")
    model.graph.register_initializer(value)
    (skip,) = Sparsify(pattern="2:4").propose(Context(model, load_target("cpu")))
    assert isinstance(skip, Skip)
    assert "no multiple of 4" in skip.reason


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sparsity": 0.0}, "above 0 and below 1"),
        ({"sparsity": 1.0}, "above 0 and below 1"),
        ({"pattern": "4:2"}, "N below M"),
        ({"pattern": "half"}, "N below M"),
        ({"threshold": -1.0}, "0 or more"),
        ({"scope": "network"}, "expected one of"),
        ({"compensation": "magic"}, "expected one of"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    options: dict[str, float | str], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        Sparsify(**options)  # type: ignore[arg-type]


def test_unknown_layer_is_answered_with_the_nearest(models: Path) -> None:
    context = Context(onnxpress.load(models / "fashion_mlp.onnx"), load_target("cpu"))
    with pytest.raises(UsageError, match=r"did you mean 'fc1\.weight'"):
        Sparsify(layers="fc1.wight").propose(context)


def test_only_named_layers_are_pruned(models: Path) -> None:
    model = onnxpress.load(models / "fashion_mlp.onnx")
    context = Context(model, load_target("cpu"))
    pass_ = Sparsify(layers="fc2.weight", scope="layer")
    changed = weights_of(apply(pass_, context, strongest(pass_, context)))
    for name, weight in weights_of(model).items():
        assert np.array_equal(weight, changed[name]) == (name != "fc2.weight")


def test_sparsity_that_the_budget_forbids_is_said(models: Path) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=str(models / "fashion_calibration.npz"),
        passes=[Sparsify(sparsity=0.95, refinement=False)],
        min_sqnr=25.0,
        metric="none",
    )
    assert result.within_budget
    stage = next(stage for stage in result.stages if stage.pass_.name == "sparsify")
    assert "of what was asked for" in stage.note
