"""A pass that breaks its contract is named, and harms neither the model nor the run."""

from dataclasses import dataclass
from typing import ClassVar

import bad_passes as bad
import numpy as np
import onnx_ir as ir
import pytest

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip
from onnxpress.data import random_samples
from onnxpress.enforcement import offered, rewritten
from onnxpress.errors import PassError
from onnxpress.pool import Pool
from onnxpress.report.document import document
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
        (bad.BlamesAnother(), "w1", "PassError"),
        (bad.ChangesShapes(), "", "changed the model"),
        (bad.ChangesMetadata(), "the metadata", "changed the model"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_propose_that_breaks_the_contract_names_pass_site_and_what_happened(
    pass_: Pass, site: str, what: str
) -> None:
    with pytest.raises(PassError, match="pass rounds") as caught:
        offered(pass_, context())
    assert caught.value.pass_name == "rounds"
    assert not site or caught.value.site == site
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
        (bad.FailsAtRun(), []),
        (bad.RaisesInPrepare(), ["quantize"]),
        (bad.RaisesInQuota(), ["quantize"]),
        (bad.CountsNothing(), ["quantize"]),
        (bad.BlamesAnother(), ["quantize"]),
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


def test_of_two_passes_the_one_that_leaves_garbage_is_blamed() -> None:
    @dataclass(frozen=True)
    class Garbage(bad.LeavesGarbage):
        """Under a name that comes last."""

        name: ClassVar[str] = "zgarbage"

        def propose(self, context: Context) -> list[Proposal | Skip]:
            """Only the second layer, and more bytes than anyone."""
            return [Proposal("w2", (Candidate(saved_bytes=10**6, family="garbage"),))]

    result = onnxpress.optimize(
        SAMPLE_MODELS["mlp_opset17"](), passes=[Garbage(), "quantize"], goal="size"
    )
    notes = {stage.pass_.name: (stage.failed, len(stage.decisions)) for stage in result.stages}
    assert notes["zgarbage"] == (True, 0)
    assert notes["quantize"] == (False, 2)


def test_weights_that_show_the_same_memory_are_protected_and_given_back() -> None:
    model = SAMPLE_MODELS["shared_weights"]()
    whole = np.ones((64, 64), np.float32)
    names = list(model.graph.initializers)
    for name, array in zip(names, (whole[:], whole), strict=True):
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    given = Context(model, load_target("cpu"))
    assert offered(bad.Rounds(), given).proposals is not None
    for name in names:
        weight = model.graph.initializers[name].const_value
        assert weight is not None
        assert weight.numpy().flags.writeable
