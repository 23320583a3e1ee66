"""What rows of a weight have in common lies beside its codes, where that pays."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from low_bit_models import (
    KINDS,
    WRONG_IN_THE_REFERENCE,
    codes_of,
    evaluated,
    initializers,
    model_with,
    stored,
)
from weights_anywhere import checked, model_of

from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, RecipeError
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.forms import form_of
from onnxpress.runtime import Session
from onnxpress.targets import load_target

OUTPUTS: dict[str, tuple[int, ...]] = {
    "right": (1,), "batch": (0, 2), "left": (0,), "gemm": (1,), "turned": (0,), "conv": (0,),
    "transposed": (1, 2, 3), "table": (0,), "einsum": (0,), "shared": (1,), "lstm": (0, 1),
}  # fmt: skip
"""Axes of the weight that are no inputs."""


def put(model: ir.Model, w: npt.NDArray[np.float32]) -> ir.Model:
    model.graph.initializers["w"].const_value = ir.Tensor(w, name="w")
    return model


def mean_of(kind: str, w: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of all outputs, in a shape that broadcasts with the weight."""
    if kind == "grouped":
        # Two groups, of three inputs each.
        own = w.reshape(2, 3, -1).mean(axis=(0, 2), dtype=np.float64)
        return np.tile(own, 2).reshape(6, 1, 1, 1)
    return np.asarray(w.mean(axis=OUTPUTS[kind], dtype=np.float64, keepdims=True), np.float64)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_codes_and_the_mean_together(kind: str, *, symmetric: bool) -> None:
    model = model_with(kind)
    mean = 3 * np.random.default_rng(2).standard_normal(initializers(model)["w"].shape)
    w = (initializers(model)["w"] + mean_of(kind, mean.astype(np.float32))).astype(np.float32)
    put(model, w)
    centred = stored(model, 4, 16, symmetric=symmetric, centred=True)
    # Without the mean the codes are those of the rest.
    rest = put(model_with(kind), (w - mean_of(kind, w)).astype(np.float32))
    plain = stored(rest, 4, 16, symmetric=symmetric)
    for name in ("w_4_bits", *(() if symmetric else ("w_zero_points",))):
        own, other = (codes_of(initializers(m), name, 4) for m in (centred, plain))
        # One that lies between two codes may be rounded either way.
        assert np.mean(own != other) < 0.01
    (feed,) = random_samples(Session(model), 1, 0, model).feeds
    found = np.asarray(Session(centred).run(feed)["y"], np.float64)
    if kind != "lstm":
        # What the weights give adds up.
        both = put(model_with(kind), np.broadcast_to(mean_of(kind, w), w.shape).astype(np.float32))
        wanted = sum(np.asarray(Session(m).run(feed)["y"], np.float64) for m in (plain, both))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-2 * np.abs(found).max())
        assert np.abs(found - wanted).mean() < 1e-3 * np.abs(found).mean()
    checked(centred)
    if kind not in WRONG_IN_THE_REFERENCE:
        np.testing.assert_allclose(
            evaluated(centred, feed), found, rtol=1e-4, atol=1e-4 * np.abs(found).max()
        )


def proposed(model: ir.Model, pass_: Pass) -> Candidate:
    offer = offered(pass_, Context(model, load_target("cpu")))
    (proposal,) = [p for p in offer.proposals if isinstance(p, Proposal)]
    return proposal.candidates[0]


def table(common: float) -> ir.Model:
    model = model_of("int64[b] x", "float y", "y = Gather (w, x)", w=(300, 64))
    drawn = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    return put(model, initializers(model)["w"] + np.float32(common) * drawn)


def test_a_table_whose_rows_have_something_in_common_is_centred() -> None:
    model, pass_ = table(2.0), Quantize(form="weight_only", weight_bits=(4,))
    candidate = proposed(model, pass_)
    assert candidate.parameters["centred"] is True
    made = rewritten(pass_, Context(model, load_target("cpu")), [Decision("w", candidate)])
    before = initializers(model)["w"].astype(np.float64)
    found = np.asarray(Session(made).run({"x": np.arange(300)})["y"], np.float64)
    error = np.square(found - before).sum() / np.square(before).sum()
    plain = Session(stored(model, 4, 32, symmetric=True)).run({"x": np.arange(300)})["y"]
    lost = np.square(np.asarray(plain, np.float64) - before).sum() / np.square(before).sum()
    assert error < lost / 2
    assert candidate.predicted_error == pytest.approx(error, rel=0.2)
    saved = len(model_file.to_bytes(model)) - len(model_file.to_bytes(made))
    assert saved - 600 <= candidate.saved_bytes <= saved + 600
    assert form_of(candidate).centred


@pytest.mark.parametrize("pass_", [
    Quantize(form="weight_only", weight_bits=(4,), power_of_two_scales=True),
    Quantize(form="weight_only", weight_bits=(4,), stored_as="nbits"),
])  # fmt: skip
def test_what_only_shifts_or_is_read_by_an_operator_has_no_mean_beside(pass_: Quantize) -> None:
    assert "centred" not in proposed(table(2.0), pass_).parameters


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e38])
def test_rows_that_have_nothing_in_common_are_left_as_they_are(scale: float) -> None:
    model = table(0.0)
    put(model, (initializers(model)["w"] / 8 * scale).astype(np.float32))
    pass_ = Quantize(form="weight_only", weight_bits=(4,))
    assert "centred" not in proposed(model, pass_).parameters


def test_zeros_that_were_made_on_purpose_stay_zero() -> None:
    model = table(2.0)
    w = initializers(model)["w"].copy()
    w[::3] = 0
    put(model, w)
    pass_ = Quantize(form="weight_only", weight_bits=(4,))
    candidate = proposed(model, pass_)
    made = rewritten(pass_, Context(model, load_target("cpu")), [Decision("w", candidate)])
    found = np.asarray(Session(made).run({"x": np.arange(0, 300, 3)})["y"])
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("family", ["static_4_bit", "weight_only_4_bit_nbits"])
def test_a_recipe_that_centres_what_cannot_be_is_refused(family: str) -> None:
    with pytest.raises(RecipeError, match=r"centred = true, .*expected false"):
        form_of(Candidate({"block_size": 32, "centred": True}, family=family))
    with pytest.raises(RecipeError, match=r"centred = 1; expected true or false"):
        form_of(Candidate({"centred": 1}, family="weight_only_4_bit"))
