"""The division of the budget that is searched, on a real model by a clock of work."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx_ir as ir
import pytest
from clocks import BY_WORK, work_of
from generated import initialized

import onnxpress
from onnxpress import dividing, model_file
from onnxpress.contract import Candidate, Decision
from onnxpress.dividing import _Looks, divided, most_looks
from onnxpress.original import Latest, Run
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.pooled import _findings, searched
from onnxpress.recipe import RecipeStage
from onnxpress.search import Findings, SearchOptions, even_split, until_each
from onnxpress.stage_result import StageResult
from onnxpress.stages import Variant, _options, _steps, lossy_pools


def weighing(width: int) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[1, {width}] x, float[{width}, {width}] a) => (float[1, {width}] y) {{
        y = MatMul (x, a) }}"""
    return initialized(text)


def a_run(width: int = 8, **options: Any) -> Run:
    """Of two pools on a model of so many weights squared."""
    recipe = SimpleNamespace(stages=[RecipeStage(Prune(), None), RecipeStage(Quantize(), None)])
    original = SimpleNamespace(model=weighing(width))
    nothing: Any = None
    return Run(
        nothing,
        cast("Any", recipe),
        cast("Any", original),
        nothing,
        nothing,
        nothing,
        SearchOptions(**options),
        nothing,
    )


def spending(share: float) -> SimpleNamespace:
    """A chain whose first pool may spend such a share."""
    decision = Decision("a", Candidate({}, 0.1, 10))
    stages = tuple(StageResult(p, weighing(8), (decision,)) for p in (Prune(), Quantize()))
    return SimpleNamespace(stages=stages, share=share)


def test_division_that_costs_least_is_among_what_is_found() -> None:
    """Where the first pool should spend nine tenths."""
    found = divided(
        a_run(),
        Variant(),
        spending(0.5),
        0.0,
        lambda _, variant: spending(variant.splits["prune"]),
        lambda chain: abs(chain.share - 0.9),
    )
    assert found[0][1].share == 0.5
    assert min(abs(chain.share - 0.9) for _, chain in found) < 0.05
    assert all(variant.splits == {"prune": chain.share} for variant, chain in found[1:])


def test_equal_parts_are_the_same_share_however_they_are_reached() -> None:
    recipe = [RecipeStage(pass_, None) for pass_ in (Prune(), Factorize(), Quantize())]
    run = replace(a_run(), recipe=cast("Any", SimpleNamespace(stages=recipe)))
    steps = _steps(run, Variant())
    names = [pool.names for pool in lossy_pools(run, Variant())]
    told = Variant(splits=dict(zip(names, until_each(even_split(3)), strict=False)))
    for done, step in enumerate(steps, 1):
        even, same = (_options(run, way, step, done, steps).share for way in (Variant(), told))
        assert even == same


def test_no_division_is_looked_at_for_which_there_is_no_time() -> None:
    asked: list[Variant] = []

    def follow(_: Run, variant: Variant) -> SimpleNamespace:
        asked.append(variant)
        return spending(variant.splits["prune"])

    run = a_run(deadline=time.monotonic() + 1000.0)
    for took, looked in ((2000.0, False), (1.0, True)):
        divided(run, Variant(), spending(0.5), took, follow, lambda chain: chain.share)
        assert bool(asked) is looked


def test_a_look_takes_as_long_as_those_that_began_with_the_same_pool() -> None:
    looks = _Looks({(0.3, 0.5): 17.0})
    assert looks.expected_s((0.3, 0.9)) == 17.0, "nothing better is known"
    looks.took_s[0.3, 0.9] = 5.0
    looks.took_s[0.3, 0.95] = 1.0
    assert looks.expected_s((0.3, 0.99)) == 5.0
    assert looks.expected_s((0.8, 0.95)) == 17.0
    looks.took_s[0.8, 0.95] = 13.0
    assert looks.expected_s((0.8, 0.99)) == 5.0
    assert looks.expected_s((0.9, 0.95)) == 17.0


def test_larger_models_get_fewer_looks_and_those_with_a_limit_more() -> None:
    assert [most_looks(a_run(width)) for width in (8, 1800, 4000)] == [4, 1, 1]
    assert most_looks(a_run(4000, deadline=time.monotonic() + 60.0)) > 4


def test_searched_division_costs_no_more_than_even_parts_and_is_repeated_byte_for_byte(
    models: Path, small_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration, evaluation = small_data
    given: dict[str, Any] = {
        "calibration": calibration,
        "evaluation": evaluation,
        "clock": BY_WORK,
        "threads": 1,
    }
    path = models / "fashion_mlp.onnx"
    divided_anew = onnxpress.optimize(path, **given)
    again = onnxpress.optimize(path, recipe=divided_anew.recipe, **given)
    monkeypatch.setattr(dividing, "most_looks", lambda _: 0)
    even = onnxpress.optimize(path, **given)
    costs = [
        model_file.weight_bytes(one.model) * work_of(one.model, integers=3.0)
        for one in (divided_anew, even)
    ]
    assert costs[0] <= costs[1]
    assert divided_anew.within_budget
    assert model_file.to_bytes(again.model) == model_file.to_bytes(divided_anew.model)


def test_what_was_observed_of_two_models_is_held_where_both_are_small() -> None:
    def seen(nbytes: int) -> Findings:
        context = SimpleNamespace(statistics=SimpleNamespace(nbytes=nbytes))
        return Findings(context=cast("Any", context))

    pools, run = [Pool((pass_,)) for pass_ in (Prune(), Quantize())], a_run()
    for nbytes, held in ((1_000, ["prune", "quantize"]), (10**9, ["quantize"])):
        run.latest.clear()
        run.latest["prune"] = Latest(weighing(8), seen(nbytes))
        found = _findings(run, pools[1], weighing(8))
        assert list(run.latest) == held
        assert run.latest["quantize"].findings is found


def test_what_a_pool_made_with_a_share_is_found_once_and_the_same_choice_is_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three shares; the first two allow the same."""
    asked: list[float] = []

    def found(_: Run, pool: Pool, __: ir.Model, options: SearchOptions, ___: object) -> Any:
        asked.append(options.share)
        decision = Decision("a", Candidate({"kept": int(options.share > 0.5)}, 0.1, 10))
        return [StageResult(pool.passes[0], weighing(8), (decision,))]

    monkeypatch.setattr("onnxpress.pooled._found", found)
    run, pool, model = a_run(), Pool((Prune(),)), weighing(8)
    made = [
        searched(run, pool, model, SearchOptions(share=share), ())[-1].model
        for share in (0.3, 0.4, 0.8, 0.3)
    ]
    assert asked == [0.3, 0.4, 0.8]
    assert made[0] is made[1] is made[3]
    assert made[2] is not made[0]
