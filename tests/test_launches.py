"""What more kernels cost on a target that is not timed here."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from clocks import BY_WORK
from fakes import candidate
from fashion import fashion_data
from generated import initialized

import onnxpress
from onnxpress.contract import Candidate, Decision
from onnxpress.data import random_samples
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.pool import Pool
from onnxpress.report.document import document
from onnxpress.runtime import Session
from onnxpress.search.objective import Goal, Objective
from onnxpress.search.trial import SearchOptions
from onnxpress.targets import load_target


def test_an_added_kernel_has_to_save_what_it_takes() -> None:
    options = SearchOptions(Objective("size"), launch_multiply_adds=1000)

    def pays(added: int, saved: float) -> bool:
        return options.pays_its_launches(Candidate(added_kernels=added, saved_multiply_adds=saved))

    assert [pays(1, 1001), pays(1, 1000), pays(2, 1500), pays(0, 0)] == [True, False, False, True]
    # Where nothing is known, or a slower model is welcome, kernels cost nothing.
    assert SearchOptions().pays_its_launches(Candidate(added_kernels=9))
    assert candidate(0.1).added_kernels == 0


def test_what_a_factorization_says_it_adds_is_what_the_rewritten_model_has() -> None:
    model = initialized(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 32, 8, 8] x, float[48, 32, 3, 3] w, float[64, 64] m) => (float[n, 48, 8, 8] y,
            float[n, 32, 64] z) {
            y = Conv <pads = [1, 1, 1, 1]> (x, w)
            s = Constant <value_ints = [0, 32, 64]> ()
            t = Reshape (x, s)
            z = MatMul (t, m) }""",
        seed=3,
    )
    pool = Pool((Factorize(rank=16),))
    context = pool.context(model, load_target("cpu"))
    before = len(find_layers(model))
    tried = [
        (proposal.site, one) for proposal in pool.offer(context).proposals
        for one in proposal.candidates
    ]  # fmt: skip
    assert {one.family for _, one in tried} == {"pair", "spatial", "tucker"}
    for site, one in tried:
        rewritten = pool.rewrite(context, [Decision(site, one)])
        assert len(find_layers(rewritten)) - before == one.added_kernels, one.family


def test_a_shared_factor_is_one_kernel_more() -> None:
    model = initialized(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 96] x, float[96, 96] q, float[96, 96] k, float[96, 96] v)
            => (float[n, 96] c, float[n, 96] d, float[n, 96] e) {
            c = MatMul (x, q)  d = MatMul (x, k)  e = MatMul (x, v) }""",
        seed=3,
    )
    rng = np.random.default_rng(6)
    common = rng.standard_normal((96, 16))
    for name in "qkv":
        thin = (common @ rng.standard_normal((16, 96)) / 20).astype(np.float32)
        model.graph.initializers[name].const_value = ir.Tensor(thin, name=name)
    pool = Pool((Factorize(),))
    samples = random_samples(Session(model), 64, seed=1)
    context = pool.context(model, load_target("cpu"), samples)
    (proposal,) = pool.offer(context).proposals
    (one, *_) = proposal.candidates
    assert one.family == "shared"
    rewritten = pool.rewrite(context, [Decision(proposal.site, one)])
    assert len(find_layers(rewritten)) - len(find_layers(model)) == one.added_kernels == 1


@pytest.mark.parametrize(("goal", "factorized"), [("balanced", False), ("size", True)])
def test_a_gpu_gets_no_more_kernels_unless_the_size_alone_counts(
    models: Path, goal: Goal, *, factorized: bool
) -> None:
    """On a GPU the pairs of this network ran at 0.75 times the speed of its layers."""
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        target="cuda",
        goal=goal,
        passes=["factorize"],
        clock=BY_WORK,
        **fashion_data(),
    )
    layers = len(find_layers(result.model))
    assert (layers > len(find_layers(onnxpress.load(models / "fashion_mlp.onnx")))) is factorized
    left = " ".join(str(row["code"]) for row in result.layers)
    assert ("L030" in left) is not factorized
    validation = document(result)["validation"]
    assert validation["timed_on_target"] is False
    assert not any("[W001]" in warning for warning in validation["warnings"])
    assert result.frontier[-1]["speedup"] is None
    assert "on this CPU, not on the target" in result._repr_markdown_()
