"""A pass that breaks its contract is named, and harms neither the model nor the run."""

import bad_passes as bad
import pytest

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Context, Decision, Pass
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.errors import PassError
from onnxpress.pool import Pool
from onnxpress.report import document
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


def context() -> Context:
    return Context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu"))


@pytest.mark.parametrize(
    ("pass_", "site", "what"),
    [
        (bad.ZeroesInPropose(), "w1", "changed the model it may only look at"),
        (bad.WritesInPlace(), "w1", "read-only"),
        (bad.Raises(), "w2", "KeyError"),
        (bad.Nonsense(), "w1", "nan"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_propose_that_breaks_the_contract_names_pass_site_and_what_happened(
    pass_: Pass, site: str, what: str
) -> None:
    with pytest.raises(PassError, match="pass rounds") as caught:
        offered(pass_, context())
    assert caught.value.site == site
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("pass_", "what"),
    [
        (bad.RewritesInPlace(), "read-only"),
        (bad.RewritesTheBase(), "changed the model it may only look at"),
        (bad.RaisesInRewrite(), "site w2"),
        (bad.ChangesOutputs(), "inputs or outputs"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rewrite_that_breaks_the_contract_leaves_the_original_as_it_was(
    pass_: Pass, what: str
) -> None:
    given = context()
    before = model_file.to_bytes(given.model)
    decisions = [
        Decision(item.site, item.candidates[0]) for item in offered(bad.Rounds(), given).proposals
    ]
    with pytest.raises(PassError, match=what):
        rewritten(pass_, given, decisions)
    if not isinstance(pass_, bad.RewritesTheBase):
        assert model_file.to_bytes(given.model) == before


def test_statistics_cannot_be_written_to() -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    pool = Pool((bad.ChangesStatistics(),))
    samples = random_samples(Session(model), 4, 0)
    found = pool.offer(pool.context(model, load_target("cpu"), samples))
    assert [failure.pass_name for failure in found.failures] == ["rounds"]
    assert "read-only" in str(found.failures[0])


def test_arrays_can_be_written_to_again_afterwards() -> None:
    given = context()
    offered(bad.Rounds(), given)
    weight = given.layers[0].weight.const_value
    assert weight is not None
    assert weight.numpy().flags.writeable


@pytest.mark.parametrize(
    ("pass_", "others"),
    [
        (bad.ZeroesInPropose(), ["quantize"]),
        (bad.WritesInPlace(), ["quantize"]),
        (bad.RaisesInRewrite(), []),
        (bad.LeavesGarbage(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_goes_on_without_a_pass_that_fails(pass_: Pass, others: list[str]) -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    before = model_file.to_bytes(model)
    result = onnxpress.optimize(model, passes=[pass_, *others])
    assert model_file.to_bytes(model) == before
    assert result.validation is not None
    assert result.validation.within_budget, "the budget is not blamed"
    assert not result.within_budget, "a pass that was named did nothing"
    assert any("pass rounds" in problem for problem in result.problems)
    acted = {stage.pass_.name for stage in result.stages if stage.decisions}
    assert acted == {"simplify", *others}
    assert "pass rounds" in str(document(result)["stages"])
