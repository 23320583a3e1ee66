"""Passes of one stage offer into one pool; names and packages decide nothing."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from bad_passes import Raises, RaisesInRewrite, Rounds

import onnxpress
from onnxpress.contract import (
    OUT_OF_TIME,
    Candidate,
    Context,
    Decision,
    Pass,
    Proposal,
    Quota,
    Skip,
    Stage,
)
from onnxpress.data import random_samples
from onnxpress.errors import UsageError
from onnxpress.layers import find_layers
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.sparsify import Sparsify
from onnxpress.pool import Pool, pools_of
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.runtime import Session
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


@dataclass(frozen=True)
class Halves(Rounds):
    """Offers to halve every weight, and says that it saves 10 bytes each."""

    name: ClassVar[str] = "halves"

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """One."""
        return (Candidate(predicted_error=0.25, saved_bytes=10, family="half"),)

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Divide by two."""
        for decision in decisions:
            layer = context.layer(decision.site)
            layer.write(layer.read() / 2)


@dataclass(frozen=True)
class Wants(Halves):
    """Asks for a share of its own."""

    name: ClassVar[str] = "wants"

    def quota(self, context: Context) -> Quota | None:
        """Twenty bytes."""
        return Quota("saved_bytes", 20)


@dataclass(frozen=True)
class Joined(Halves):
    """Offers both layers as one site of its own."""

    name: ClassVar[str] = "joined"

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Named after neither."""
        members = tuple(layer.name for layer in context.layers)
        one = replace(self.candidates(context)[0], members=members)
        return [Proposal("both", (one,))]


@dataclass(frozen=True)
class Later(Halves):
    """Has to come after `halves`."""

    name: ClassVar[str] = "later"
    after: ClassVar[tuple[str, ...]] = ("halves",)


@dataclass(frozen=True)
class Earlier(Halves):
    """Waits for `later`, which waits for it through `halves`."""

    name: ClassVar[str] = "halves"
    after: ClassVar[tuple[str, ...]] = ("later",)


@dataclass(frozen=True)
class Codebook(Rounds):
    """A stranger's pass that errs much and whose name comes before `quantize`."""

    name: ClassVar[str] = "codebook"
    decimals: int = 1

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Saves hardly anything."""
        return (Candidate(predicted_error=0.1, saved_bytes=8, family="coarse", keeps_kernels=True),)


def context(*passes: Pass) -> tuple[Pool, Context]:
    pool = Pool(passes)
    return pool, pool.context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu"))


@pytest.mark.parametrize("order", [(Rounds(), Halves()), (Halves(), Rounds())])
def test_candidates_of_all_passes_for_a_site_lie_in_one_proposal(order: tuple[Pass, ...]) -> None:
    pool, known = context(*order)
    offer = pool.offer(known)
    assert [item.site for item in offer.proposals] == ["w1", "w2"]
    for item in offer.proposals:
        assert [c.pass_name for c in item.candidates] == ["halves", "rounds"], "most saved first"


def test_every_pass_carries_out_its_own_decisions() -> None:
    pool, known = context(Rounds(decimals=0), Halves())
    by_site = {item.site: item.candidates for item in pool.offer(known).proposals}
    chosen = {"w1": "halves", "w2": "rounds"}
    decisions = [
        Decision(site, next(c for c in by_site[site] if c.pass_name == name))
        for site, name in chosen.items()
    ]
    layers = {
        layer.name: layer for layer in Context(pool.rewrite(known, decisions), known.target).layers
    }
    before = {layer.name: layer.read() for layer in known.layers}
    np.testing.assert_array_equal(layers["w1"].read(), before["w1"] / 2)
    np.testing.assert_array_equal(layers["w2"].read(), before["w2"].round(0))


def test_a_site_that_overlaps_with_that_of_another_pass_is_left_with_the_reason() -> None:
    pool, known = context(Halves(), Joined())
    offer = pool.offer(known)
    assert [item.site for item in offer.proposals] == ["w1", "w2"]
    assert [(name, skip.site) for name, skip in offer.left] == [("joined", "both")]


def test_a_pass_that_fails_leaves_the_others_their_offers() -> None:
    pool, known = context(Raises(), Halves())
    offer = pool.offer(known)
    assert [failure.pass_name for failure in offer.failures] == ["rounds"]
    assert [c.pass_name for item in offer.proposals for c in item.candidates] == ["halves"] * 2


def test_two_shares_of_one_stage_are_refused() -> None:
    pool, known = context(Wants(), replace_name(Wants(), "wants2"))
    with pytest.raises(UsageError, match="share of their own"):
        pool.quota(known)


def replace_name(pass_: Pass, name: str) -> Pass:
    """A pass of another class that differs in its name alone."""
    kind: Any = type(name, (type(pass_),), {"name": name, "__doc__": "Another name."})
    made = dataclass(frozen=True)(kind)()
    assert isinstance(made, Pass)
    return made


def test_order_is_declared_and_never_spelled() -> None:
    passes = [Later(), Quantize(), Halves()]
    names = [[p.name for p in pool.passes] for pool in pools_of(passes)]
    assert names == [["halves", "quantize"], ["later"]]
    assert names == [[p.name for p in pool.passes] for pool in pools_of(passes[::-1])]


def test_passes_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="comes after another"):
        pools_of([Later(), Earlier()])


def test_a_second_pass_of_a_name_acts_after_the_first() -> None:
    pools = pools_of([Quantize(form="static"), Quantize(form="weight_only")])
    assert [len(pool.passes) for pool in pools] == [1, 1]


@pytest.mark.parametrize("name", ["codebook", "zcodebook"])
def test_a_weak_pass_of_the_same_stage_neither_displaces_quantize_nor_spends_its_budget(
    models: Path, name: str
) -> None:
    given = {
        "calibration": str(models / "fashion_calibration.npz"),
        "max_drop": 1.0,
        "goal": "size",
    }
    original = models / "fashion_mlp.onnx"
    alone = onnxpress.optimize(original, passes=["quantize"], **given)  # type: ignore[arg-type]
    stranger = replace_name(Codebook(), name)
    both = onnxpress.optimize(original, passes=[stranger, "quantize"], **given)  # type: ignore[arg-type]
    # What is only carried along follows from the layers' forms, which several choices share.
    decided = [
        {
            s.pass_.name: [d.site for d in s.decisions if not d.candidate.carried]
            for s in result.stages
            if s.pass_.stage.loses
        }
        for result in (alone, both)
    ]
    assert decided[1]["quantize"] == decided[0]["quantize"]
    assert decided[1][name] == []
    assert stranger.stage == Stage.QUANTIZATION


@dataclass(frozen=True)
class Grouped(Joined):
    """Offers both layers as one site, and saves more than each alone."""

    def candidates(self, context: Context) -> tuple[Candidate, ...]:
        """Of 50 bytes."""
        return (Candidate(predicted_error=0.25, saved_bytes=50, family="half"),)


@pytest.mark.parametrize("names", [("aaa", "zzz"), ("zzz", "aaa")])
def test_of_sites_that_overlap_the_one_that_saves_more_is_kept(names: tuple[str, str]) -> None:
    single, group = replace_name(Halves(), names[0]), replace_name(Grouped(), names[1])
    pool, known = context(single, group)
    assert [item.site for item in pool.offer(known).proposals] == ["both"]


def test_a_recipe_repeats_what_it_decided_and_searches_only_what_is_open() -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    first, second = replace_name(Halves(), "aaa"), replace_name(Halves(), "zzz")
    decided = Decision("w1", Candidate(family="half", pass_name="aaa"))
    stages = (RecipeStage(first, (decided,)), RecipeStage(second, None))
    recipe = Recipe(stages, "cpu", 0, None, None)
    result = onnxpress.optimize(model, recipe=recipe, min_sqnr=0.1, goal="size")
    done = {s.pass_.name: [d.site for d in s.decisions] for s in result.stages}
    assert done["aaa"] == ["w1"]
    assert done["zzz"], "the open pass is searched on what is left"


def test_a_recipe_may_hold_one_pass_twice() -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    twice = tuple(
        RecipeStage(Halves(), (Decision(site, Candidate(family="half", pass_name="halves")),))
        for site in ("w1", "w2")
    )
    result = onnxpress.optimize(model, recipe=Recipe(twice, "cpu", 0, None, None))
    assert [[d.site for d in s.decisions] for s in result.stages] == [["w1"], ["w2"]]
    before = {layer.name: layer.read() for layer in find_layers(model)}
    after = {layer.name: layer.read() for layer in find_layers(result.model)}
    for name, weights in before.items():
        np.testing.assert_array_equal(after[name], weights / 2)


def test_a_recipe_goes_on_without_a_pass_that_fails() -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    stages = (
        RecipeStage(RaisesInRewrite(), (Decision("w2", Candidate(pass_name="rounds")),)),
        RecipeStage(Halves(), (Decision("w1", Candidate(family="half", pass_name="halves")),)),
    )
    result = onnxpress.optimize(model, recipe=Recipe(stages, "cpu", 0, None, None))
    assert {s.pass_.name: len(s.decisions) for s in result.stages} == {"rounds": 0, "halves": 1}
    assert result.validation is not None
    assert any("pass rounds" in warning for warning in result.validation.warnings)


def test_two_lossless_passes_act_one_on_what_the_other_left() -> None:
    result = onnxpress.optimize(
        SAMPLE_MODELS["mlp_opset17"](), passes=[Marks(), replace_name(Marks(), "marks2")]
    )
    assert result.model.metadata_props["marks"] == "yes"
    assert result.model.metadata_props["marks2"] == "yes"


@dataclass(frozen=True)
class Marks(Rounds):
    """Leaves a mark and changes nothing else."""

    name: ClassVar[str] = "marks"
    stage: ClassVar[Stage] = Stage.LOSSLESS

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """The whole graph."""
        return [Proposal("graph", (Candidate(family="marked", keeps_kernels=True),))]

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """In the metadata."""
        context.model.metadata_props[self.name] = "yes"


def test_a_named_pass_that_was_outdone_by_another_is_no_failure() -> None:
    result = onnxpress.optimize(
        SAMPLE_MODELS["mlp_opset17"](), passes=[Rounds(decimals=6), "quantize"], goal="size"
    )
    assert result.within_budget, result.problems


@pytest.mark.parametrize("pass_", [Prune(), Factorize(), Sparsify()], ids=lambda p: p.name)
def test_sites_that_there_is_no_time_for_are_left_with_the_reason(pass_: Pass) -> None:
    pool = Pool((pass_,))
    model = SAMPLE_MODELS["wide_cnn"]()
    context = pool.context(
        model, load_target("cpu"), random_samples(Session(model), 16, seed=1), threads=1
    )
    asked = itertools.count()
    some = pool.offer(replace(context, out_of_time=lambda: next(asked) > 0))
    none = pool.offer(replace(context, out_of_time=lambda: True))
    every = pool.offer(context)
    assert not none.proposals
    assert OUT_OF_TIME in {skip.reason for skip in none.left_by(pass_.name)}
    assert len(some.proposals) < len(every.proposals)
    sites = {p.site for p in every.proposals} | {s.site for s in every.left_by(pass_.name)}
    answered = {p.site for p in some.proposals} | {s.site for s in some.left_by(pass_.name)}
    assert answered <= sites
