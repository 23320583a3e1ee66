"""Models corrected as they are rewritten: level by level, each layer once."""

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir
import pytest
from generated import initialized
from refitting import from_the_start, refined_decisions, rewriting

from onnxpress import model_file
from onnxpress.blocks import cut
from onnxpress.contract import Context, Decision, Pass
from onnxpress.correcting import Correction, corrected, refined
from onnxpress.data import random_samples
from onnxpress.errors import ModelError
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.refinement import Networks
from onnxpress.runtime import Session
from onnxpress.search.allocation import strongest
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS

PASSES: dict[str, Pass] = {
    "8 bits": Quantize(form="weight_only"),
    "4 bits": Quantize(weight_bits=(4,)),
    "low rank": Factorize(ratio=0.5),
}
SHARED = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[4, 64] x, float[64, 64] a, float[64, 64] b, float[64, 64] w, float[64, 64] d)
        => (float[4, 64] y) {
    p = MatMul (x, a)  q = Relu (p)  h = MatMul (q, b)  r = Relu (h)
    k = MatMul (r, w)  m = MatMul (q, w)  s = Add (k, m)  y = MatMul (s, d) }"""


def model_of(name: str) -> ir.Model:
    return initialized(SHARED) if name == "shared" else SAMPLE_MODELS[name]()


def prepared(pass_: Pass, model: ir.Model) -> tuple[Pool, Context, Correction]:
    samples = random_samples(Session(model), 12, seed=1)
    pool = Pool((pass_,))
    context = pool.context(model, load_target("cpu"), samples, threads=1)
    by = Correction(samples, lambda model: cut(model, 10_000), held_bytes=1_000, threads=1)
    return pool, context, by


def weights_of(model: ir.Model) -> list[bytes]:
    """Of the smaller of equal parts first: names differ by the order in which they were given."""
    values = model.graph.initializers.values()
    return sorted(value.const_value.tobytes() for value in values if value.const_value is not None)


@pytest.mark.parametrize(
    ("how", "name"),
    [*((how, "mlp_opset17") for how in PASSES), ("8 bits", "shared"), ("4 bits", "shared")],
)
def test_each_layer_is_rewritten_as_by_runs_from_the_start(how: str, name: str) -> None:
    pool, context, by = prepared(PASSES[how], model_of(name))
    decisions = refined_decisions(pool, context)
    assert len(decisions) > 1
    layers, rewrite = rewriting(pool, context, decisions)
    wanted = from_the_start(context, layers, by.samples, rewrite)
    found, carried_out = corrected(pool, context, decisions, by)
    assert carried_out == decisions
    assert weights_of(found) == weights_of(wanted)
    plain = pool.rewrite(context, decisions)
    assert weights_of(found) != weights_of(plain), "there was nothing to correct"
    whole = replace(by, cut=lambda model: cut(model, 10**9), held_bytes=10**9)
    again, _ = corrected(pool, context, decisions, whole)
    same = model_file.to_bytes(again) == model_file.to_bytes(found)
    assert same, "blocks of any size give the same"


def test_each_layer_is_rewritten_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large model one weight is worked on at a time."""
    pool, context, by = prepared(PASSES["4 bits"], model_of("shared"))
    rewritten: list[str] = []
    usual = Quantize.rewrite

    def noted(self: Quantize, context: Context, decisions: Sequence[Decision]) -> None:
        rewritten.extend(decision.site for decision in decisions)
        usual(self, context, decisions)

    monkeypatch.setattr(Quantize, "rewrite", noted)
    corrected(pool, context, refined_decisions(pool, context), by)
    assert rewritten[0] == "a"
    assert rewritten[-1] == "d"
    assert sorted(rewritten) == sorted(set(rewritten)) == ["a", "b", "d", "w"]


@pytest.mark.parametrize(
    "pass_", [Prune(ratio=0.5), Quantize(form="static")], ids=["prune", "int8"]
)
def test_what_reaches_into_the_next_layer_is_not_taken_alone(pass_: Pass) -> None:
    pool, context, _ = prepared(pass_, model_of("mlp_opset17"))
    chosen = strongest(pool, context, pool.offer(context))
    assert chosen
    assert refined(pool, chosen) is None


def test_no_pass_that_declines_is_corrected() -> None:
    pool, context, _ = prepared(Quantize(weight_bits=(4,), refinement=False), model_of("shared"))
    assert refined(pool, strongest(pool, context, pool.offer(context))) is None


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_when_time_is_over_the_rest_is_rewritten_without_and_recipes_say_so(levels: int) -> None:
    pool, context, by = prepared(PASSES["4 bits"], model_of("shared"))
    decisions = refined_decisions(pool, context)
    plain = weights_of(pool.rewrite(context, decisions))
    asked = iter([*[False] * levels, True, True, True])
    found, carried_out = corrected(pool, context, decisions, replace(by, over=lambda: next(asked)))
    assert (weights_of(found) == plain) is (levels == 0)
    assert len(set(weights_of(found)) & set(plain)) > 0, "the rest is as without"
    marked = {decision.site for decision in carried_out if decision.candidate.refined}
    assert marked == [set(), {"a"}, {"a", "b", "w"}][levels]
    again, same = corrected(pool, context, carried_out, by)
    assert same == carried_out
    assert model_file.to_bytes(again) == model_file.to_bytes(found)


def test_a_part_that_does_not_run_ends_the_correction_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, context, by = prepared(PASSES["4 bits"], model_of("shared"))
    decisions = refined_decisions(pool, context)
    usual = Networks.observed

    def failing(self: Networks, level: Sequence[object], *rest: object) -> object:
        if any(getattr(layer, "name", "") == "w" for layer in level):
            raise ModelError("no kernel [M000]")
        return usual(self, level, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Networks, "observed", failing)
    found, carried_out = corrected(pool, context, decisions, by)
    assert {d.site for d in carried_out if d.candidate.refined} == {"a"}
    (note,) = by.notes
    assert note.startswith("quantize: layers from ")
    assert note.endswith(" on are not corrected: no kernel [W015]")
    plain = weights_of(pool.rewrite(context, decisions))
    assert 0 < len(set(weights_of(found)) & set(plain)) < len(plain)
