"""The checks, small and named: what each asks is its name and its first line."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnxpress import model_file
from onnxpress.contract import Candidate, Decision, Stage
from onnxpress.data import random_samples
from onnxpress.judge import Budget, Evaluator, interface_problems
from onnxpress.layers import multiply_adds
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.runtime import Session
from onnxpress.settings import settings_of
from onnxpress.testing.cell import Cell

__all__ = ["CHECKS"]

_FACTOR = 10.0
"""Predictions are for a layer, on other samples: through a few layers they may be off, but not by
an order of magnitude."""
_FLOOR = 1e-5
_LOSSLESS_DB = 90.0
_BYTES_A_SITE = 700
"""Of nodes and names, which a pass only estimates."""


def is_a_frozen_data_class(cell: Cell) -> None:
    """Settings cannot change, and their defaults are a pass."""
    kind = type(cell.pass_)
    assert dataclasses.is_dataclass(kind), "a pass is a data class"
    assert kind.__dataclass_params__.frozen, "a pass is frozen"  # type: ignore[attr-defined]
    kind()


def explains_every_setting(cell: Cell) -> None:
    """Each setting can stand in a recipe and has a sentence for `--help`."""
    for setting in settings_of(type(cell.pass_)):
        assert len(setting.help.split()) >= 3, f"{setting.name} is not explained"


def has_a_stage_and_a_name(cell: Cell) -> None:
    """Both are known without an instance."""
    assert isinstance(type(cell.pass_).stage, Stage)
    assert type(cell.pass_).name.replace("_", "").isalnum()


def proposes_without_changing_the_model(cell: Cell) -> None:
    """Bytes before and after are the same, and no contract was broken on the way."""
    for context, offer in cell.situations:
        assert not offer.failures, f"propose failed: {offer.failures}"
        before = model_file.to_bytes(context.model)
        cell.pool.offer(context)
        assert model_file.to_bytes(context.model) == before
    assert model_file.to_bytes(cell.model) == cell.content


def proposes_the_same_again(cell: Cell) -> None:
    """Whatever was remembered of the first time."""
    for observed, (_, offer) in zip((True, False), cell.situations, strict=True):
        assert cell.pool.offer(cell.fresh_context(observed=observed)) == offer


def answers_for_every_layer(cell: Cell) -> None:
    """Each layer is in a candidate, or there is a reason why it is not."""
    if not cell.pass_.stage.loses:
        return
    for context, offer in cell.situations:
        answered = {skip.site for _, skip in offer.left}
        for proposal in offer.proposals:
            answered.add(proposal.site)
            answered.update(n for c in proposal.candidates for n in c.members)
        silent = [layer.name for layer in context.layers if layer.name not in answered]
        assert not silent, f"nothing is said of {silent}"


def gives_readable_reasons(cell: Cell) -> None:
    """Sentences for people: some words, one line."""
    for _, offer in cell.situations:
        reasons = [skip.reason for _, skip in offer.left]
        reasons += [item.limit for item in offer.proposals if item.limit is not None]
        for reason in reasons:
            assert len(reason.split()) >= 3, f"no sentence: {reason!r}"
            assert reason.isprintable(), f"not one line: {reason!r}"


def offers_the_strongest_first(cell: Cell) -> None:
    """Within a family no candidate saves more in one unit, and no less in another, than one before.

    The search takes the first that the budget allows.
    """
    for _, offer in cell.situations:
        for proposal in offer.proposals:
            for place, later in enumerate(proposal.candidates):
                for earlier in proposal.candidates[:place]:
                    if earlier.family == later.family:
                        stronger = _saves_more(later, earlier)
                        assert not stronger, f"{proposal.site}: {later} after {earlier}"


def _saves_more(one: Candidate, other: Candidate) -> bool:
    units = ("saved_bytes", "saved_multiply_adds", "zeroed_weights")
    gains = [getattr(one, unit) - getattr(other, unit) for unit in units]
    return bool(max(gains) > 0 and min(gains) >= 0)


def offers_something(cell: Cell) -> None:
    """No vacuous cell: some candidate is offered with statistics."""
    assert cell.offer.proposals, "nothing is offered, so no other check can fail"


def changes_nothing_by_an_empty_plan(cell: Cell) -> None:
    """Nothing was decided, so nothing is done."""
    for context, _ in cell.situations:
        assert model_file.to_bytes(cell.pool.rewrite(context, ())) == model_file.to_bytes(
            context.model
        )


def rewrites_without_changing_its_input(cell: Cell) -> None:
    """What it was proposed on stays as it was."""
    before = [model_file.to_bytes(context.model) for context, _ in cell.situations]
    assert cell.rewritten is not None
    assert [model_file.to_bytes(context.model) for context, _ in cell.situations] == before
    assert model_file.to_bytes(cell.model) == cell.content


def rewrites_to_the_same_bytes(cell: Cell) -> None:
    """Twice the same, the second time from nothing: no result hangs on what is remembered."""
    for context, plan, model in cell.rewritten:
        fresh = cell.fresh_context(observed=context is cell.context)
        for known in (context, fresh):
            again = cell.pool.rewrite(known, plan)
            assert model_file.to_bytes(again) == model_file.to_bytes(model)


def replays_a_recipe_from_nothing(cell: Cell) -> None:
    """Decisions and settings survive the text, refined ones too, and give the same bytes."""
    for context, plan, _ in cell.rewritten[:1]:
        refined = _refined(plan) if cell.pool.refines else plan
        made = cell.pool.rewrite_refined(context, refined, cell.samples)
        stage = RecipeStage(cell.pass_, refined)
        text = Recipe((stage,), "cpu", 0, None, None).to_toml()
        read = _read_with(cell, text)
        assert read.pass_ == cell.pass_, "the settings do not survive a recipe"
        known = cell.samples if cell.pass_.rewrites_from_statistics else None
        fresh = cell.pool.context(cell.model, context.target, known)
        if context is cell.bare:
            fresh = cell.fresh_context(observed=False)
        again = cell.pool.rewrite_refined(fresh, read.decisions or (), cell.samples)
        assert model_file.to_bytes(again) == model_file.to_bytes(made)


def _refined(plan: tuple[Decision, ...]) -> tuple[Decision, ...]:
    return tuple(
        dataclasses.replace(d, candidate=dataclasses.replace(d.candidate, refined=True))
        for d in plan
    )


def _read_with(cell: Cell, text: str) -> RecipeStage:
    """The one stage of a recipe, also for a pass that is not installed."""
    kind = type(cell.pass_)
    return Recipe.from_toml(text, classes={kind.name: kind}).stages[0]


def writes_a_valid_model(cell: Cell) -> None:
    """The full ONNX check, and onnxruntime loads it."""
    for _, _, model in cell.rewritten:
        content = model_file.to_bytes(model)
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        Session(model)


def keeps_the_interface(cell: Cell) -> None:
    """The same inputs and outputs, by name, type and rank."""
    for _, _, model in cell.rewritten:
        assert not interface_problems(cell.session, Session(model))


def saves_the_bytes_it_promises(cell: Cell) -> None:
    """Of each site alone: the file gets smaller by nine tenths of what was promised."""
    for context, offer in cell.situations:
        before = len(model_file.to_bytes(context.model))
        for proposal in offer.proposals:
            promised = proposal.candidates[0].saved_bytes
            plan = (Decision(proposal.site, proposal.candidates[0]),)
            if promised > 0:
                saved = before - len(model_file.to_bytes(cell.pool.rewrite(context, plan)))
                assert saved >= 0.9 * promised - _BYTES_A_SITE, (
                    f"{proposal.site}: {saved} bytes saved, {promised} promised"
                )


def saves_the_multiply_adds_it_promises(cell: Cell) -> None:
    """Of each site alone: a run takes fewer by nine tenths of what was promised."""
    context = cell.context
    for proposal in cell.offer.proposals:
        promised = proposal.candidates[0].saved_multiply_adds
        plan = (Decision(proposal.site, proposal.candidates[0]),)
        # A static count does not know how often a body runs.
        inside = any(layer.in_subgraph for layer in context.layers if layer.name in plan[0].layers)
        if promised > 0 and not inside:
            before = _multiply_adds(context.model)
            saved = before - _multiply_adds(cell.pool.rewrite(context, plan))
            assert saved >= 0.9 * promised, (
                f"{proposal.site}: {saved} multiply-adds saved, {promised:.0f} promised"
            )


def _multiply_adds(model: ir.Model) -> int:
    known = ShapeInferencePass(data_prop=True)(model.clone()).model
    return sum(multiply_adds(node) for node in known.graph.all_nodes())


def zeroes_the_weights_it_promises(cell: Cell) -> None:
    """Of each site alone: as many more zeros as promised."""
    for context, offer in cell.situations:
        for proposal in offer.proposals:
            promised = proposal.candidates[0].zeroed_weights
            plan = (Decision(proposal.site, proposal.candidates[0]),)
            if promised > 0:
                made = _zeros(cell.pool.rewrite(context, plan)) - _zeros(context.model)
                assert made >= 0.99 * promised, f"{proposal.site}: {made} of {promised} zeros"


def _zeros(model: ir.Model) -> int:
    return sum(
        int((value.const_value.numpy() == 0).sum())
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None and len(value.const_value.shape) > 1
    )


def stays_finite(cell: Cell) -> None:
    """No NaN and no infinity on inputs that were not observed."""
    for _, _, model in cell.rewritten:
        session = Session(model)
        for feed in random_samples(cell.session, 4, seed=2):
            for name, array in session.run(feed).items():
                assert array.dtype.kind != "f" or np.isfinite(array).all(), name


def errs_as_it_predicts(cell: Cell) -> None:
    """The noise at the outputs is at most ten times the sum of what was predicted."""
    evaluator = _evaluator(cell)
    for _, plan, model in cell.rewritten:
        predicted = sum(decision.candidate.predicted_error for decision in plan)
        noise = 10 ** (-evaluator.measure(Session(model)).worst_whole_db / 10)
        assert noise <= _FACTOR * predicted + _FLOOR, (
            f"noise {noise:.2g}, predicted {predicted:.2g}"
        )


def loses_nothing_where_it_says_so(cell: Cell) -> None:
    """A pass of a stage that changes no answer changes none."""
    if cell.pass_.stage.loses:
        return
    evaluator = _evaluator(cell)
    for _, _, model in cell.rewritten:
        found = evaluator.measure(Session(model)).worst_whole_db
        assert math.isinf(found) or found >= _LOSSLESS_DB, f"{found:.0f} dB"


def _evaluator(cell: Cell) -> Evaluator:
    fresh = random_samples(cell.session, 16, seed=2)
    return Evaluator(cell.session, fresh, Budget(metric="none"))


CHECKS: Mapping[str, Callable[[Cell], None]] = {
    check.__name__: check
    for check in (
        is_a_frozen_data_class,
        explains_every_setting,
        has_a_stage_and_a_name,
        proposes_without_changing_the_model,
        proposes_the_same_again,
        answers_for_every_layer,
        gives_readable_reasons,
        offers_the_strongest_first,
        offers_something,
        changes_nothing_by_an_empty_plan,
        rewrites_without_changing_its_input,
        rewrites_to_the_same_bytes,
        replays_a_recipe_from_nothing,
        writes_a_valid_model,
        keeps_the_interface,
        saves_the_bytes_it_promises,
        saves_the_multiply_adds_it_promises,
        zeroes_the_weights_it_promises,
        stays_finite,
        errs_as_it_predicts,
        loses_nothing_where_it_says_so,
    )
}
"""By name, in the order in which they explain each other."""
