"""What is kept from passes: which layers a selector means, and that nobody touches them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from bad_passes import Rounds
from clocks import BY_WORK
from command_line import message, run
from fashion import fashion_data
from generated import initialized

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip
from onnxpress.errors import RecipeError, UsageError
from onnxpress.layers import find_layers
from onnxpress.lossless import simplified
from onnxpress.passes.prune import Prune
from onnxpress.passes.simplify import Simplify
from onnxpress.pinning import KEPT, Pins
from onnxpress.pool import Pool
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.selectable import Selectable, selectable_sites
from onnxpress.selection import Selection, Selector
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS

PASSES = ("prune", "quantize")
SITES = [
    Selectable("body.w", frozenset({"/body/conv"}), frozenset({"Conv"}), is_layer=True),
    Selectable("head.w", frozenset({"/head/conv"}), frozenset({"Conv"}), is_layer=True),
    Selectable("head[0].w", frozenset({"/head/fc"}), frozenset({"Gemm"}), is_layer=True),
    Selectable("/head/Sigmoid", operators=frozenset({"Sigmoid"})),
]


def selection(
    keep: Sequence[str] = (), only: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Selection:
    return Selection.parse(keep, only, exclude, PASSES)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("head.w", {"head.w"}),
        ("/head/conv", {"head.w"}),
        ("Conv", {"body.w", "head.w"}),
        ("/head/*", {"head.w", "head[0].w", "/head/Sigmoid"}),
        ("head[0].w", {"head[0].w"}),
        ("head*", {"head.w", "head[0].w"}),
        ("conv", set()),
    ],
)
def test_a_selector_means_a_name_or_an_operator_and_else_a_pattern_of_names(
    pattern: str, found: set[str]
) -> None:
    assert Selector(pattern).matches(SITES) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quantize:/head/*", Selector("/head/*", "quantize")),
        ("dense/kernel:0", Selector("dense/kernel:0")),
        ("quantize:dense/kernel:0", Selector("dense/kernel:0", "quantize")),
        ("Conv", Selector("Conv")),
    ],
)
def test_what_stands_before_a_colon_is_a_pass_where_it_is_the_name_of_one(
    text: str, expected: Selector
) -> None:
    assert selection(exclude=[text]).kept == (expected,)
    assert selection(only=[text]).only == (expected,)


def test_exclude_without_a_pass_is_keep() -> None:
    assert selection(keep=["a"]) == selection(exclude=["a"])


@pytest.mark.parametrize(
    ("given", "pass_name", "kept"),
    [
        (selection(keep=["/head/*"]), "prune", {"head.w", "head[0].w", "/head/Sigmoid"}),
        (selection(exclude=["quantize:Gemm"]), "quantize", {"head[0].w"}),
        (selection(exclude=["quantize:Gemm"]), "prune", set()),
        (selection(only=["Conv"]), "prune", {"head[0].w", "/head/Sigmoid"}),
        (selection(only=["prune:body.w"]), "prune", {"head.w", "head[0].w", "/head/Sigmoid"}),
        (selection(only=["prune:body.w"]), "quantize", set()),
        (selection(only=["Conv"], keep=["head.w"]), "prune", {"head.w", "head[0].w"}),
    ],
)
def test_a_pass_is_kept_from_what_the_options_say(
    given: Selection, pass_name: str, kept: set[str]
) -> None:
    pins = Pins.of(given, SITES)
    found = {site.name for site in SITES if pins.keep(pass_name, site.name)}
    assert found - {"/head/Sigmoid"} == kept - {"/head/Sigmoid"}


def test_what_a_pass_made_of_a_layer_goes_by_the_layers_name() -> None:
    sites = [Selectable(name, is_layer=True) for name in ("fc", "fc_1", "fc_10")]
    pins = Pins.of(selection(exclude=["quantize:fc_1"]), sites)
    assert pins.keep("quantize", "fc_1_factor_2")
    assert not pins.keep("quantize", "fc_10_factor_2")
    assert not pins.keep("quantize", "fc_factor_1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ["/head/cnv"]}, "'/head/cnv' matches no layer.*did you mean '/head/conv'"),
        ({"keep": ["quantize:Conv"]}, "for quantize alone it is --exclude quantize:Conv"),
        ({"exclude": ["quantise:Conv"]}, "did you mean 'quantize'"),
        ({"only": ["nothing*"]}, "matches no layer, node or operator type of the model"),
    ],
)
def test_a_selector_that_means_nothing_is_an_error_with_the_nearest_name(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        selection(**options).require_matches(SITES, PASSES)


@pytest.mark.parametrize("text", ["", " ", "quantize:"])
def test_an_empty_selector_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is empty"):
        selection(exclude=[text])


def test_a_layer_is_found_by_the_names_of_the_model_as_it_was_given(models: Path) -> None:
    given = model_file.load(models / "fashion_cnn.onnx")
    model = simplified(given, [Simplify()], load_target("cpu"))
    layers = {site.name: site for site in selectable_sites(model, given) if site.is_layer}
    stem = layers["stem.conv.weight_folded"]
    assert stem.all_names >= {"stem.conv.weight", "/stem/conv/Conv", "/stem/bn/BatchNormalization"}
    for site in layers.values():
        (found,) = [n for n in site.aliases if n.endswith(("/Conv", "/Gemm"))]
        assert Selector(found).matches(layers.values()) == {site.name}


def test_a_product_with_a_bias_is_found_by_its_operator_in_the_given_model() -> None:
    given = initialized(
        """<ir_version: 9, opset_import: ["" : 17]>
        g (float[2, 3] x, float[3, 4] w, float[4] b) => (float[2, 4] y)
        { p = MatMul (x, w)  y = Add (p, b) }"""
    )
    model = simplified(given, [Simplify()], load_target("cpu"))
    assert [layer.op_type for layer in find_layers(model)] == ["Gemm"]
    for operator in ("Gemm", "MatMul"):
        assert len(Selector(operator).matches(selectable_sites(model, given))) == 1


@dataclass(frozen=True)
class Coupled(Rounds):
    """One site for all layers, or only for the first."""

    name: ClassVar[str] = "coupled"

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Two candidates, of which the second changes the first layer alone."""
        names = tuple(layer.name for layer in context.layers)
        strong = Candidate(predicted_error=0.1, saved_bytes=20, family="all", members=names)
        weak = replace(strong, family="one", members=names[:1], saved_bytes=10)
        return [Proposal("both", (strong, weak))]

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """All its members."""
        for decision in decisions:
            for name in decision.layers:
                layer = context.layer(name)
                layer.write(layer.read().round(1))


@dataclass(frozen=True)
class Conceals(Rounds):
    """Changes layers that it does not name."""

    name: ClassVar[str] = "conceals"

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """All of them."""
        for layer in context.layers:
            layer.write(layer.read().round(1))


@dataclass(frozen=True)
class Admits(Conceals):
    """Says what it changes besides."""

    name: ClassVar[str] = "admits"

    def changes(self, context: Context, decision: Decision) -> Collection[str]:
        """All layers."""
        return [layer.name for layer in context.layers]


def pinned_pool(pass_: Pass, **options: Any) -> tuple[Pool, Context]:
    model = SAMPLE_MODELS["mlp_opset17"]()
    pool = Pool((pass_,), Pins.of(selection(**options), selectable_sites(model)))
    return pool, pool.context(model, load_target("cpu"))


def test_a_kept_site_is_left_with_the_reason_and_the_others_are_offered() -> None:
    pool, known = pinned_pool(Rounds(), keep=["w1"])
    offer = pool.offer(known)
    assert [item.site for item in offer.proposals] == ["w2"]
    assert offer.left_by("rounds") == (Skip("w1", KEPT),)


def test_candidates_that_change_a_kept_layer_among_others_are_dropped() -> None:
    pool, known = pinned_pool(Coupled(), keep=["w2"])
    (proposal,) = pool.offer(known).proposals
    assert [candidate.family for candidate in proposal.candidates] == ["one"]
    assert proposal.limit == f"would change w2, which is {KEPT}"
    pool, known = pinned_pool(Coupled(), keep=["w1"])
    offer = pool.offer(known)
    assert not offer.proposals
    assert offer.left_by("coupled") == (Skip("both", f"would change w1, which is {KEPT}"),)


def test_what_a_pass_says_that_it_changes_besides_counts() -> None:
    pool, known = pinned_pool(Admits(), keep=["w1"])
    assert not pool.offer(known).proposals


def test_a_rewrite_that_touches_a_kept_layer_is_a_fault_of_the_pass() -> None:
    pool, known = pinned_pool(Conceals(), keep=["w1"])
    (proposal,) = pool.offer(known).proposals
    with pytest.raises(onnxpress.errors.PassError, match=r"w1.*weight of a layer that is kept"):
        pool.rewrite(known, [Decision(proposal.site, proposal.candidates[0])])


def test_pruning_leaves_groups_alone_that_would_cut_a_kept_layer(models: Path) -> None:
    given = model_file.load(models / "fashion_mlp.onnx")
    model = simplified(given, [Simplify()], load_target("cpu"))
    pins = Pins.of(selection(keep=["/fc2/Gemm"]), selectable_sites(model, given))
    prune = Prune(ratio=0.5, importance="magnitude")
    free, pinned = Pool((prune,)), Pool((prune,), pins)
    known = free.context(model, load_target("cpu"))
    # fc1 makes what fc2 reads, and fc2 what fc3 reads: of three groups one is left.
    assert [item.site for item in free.offer(known).proposals] == [
        f"fc{number}.weight" for number in (1, 2, 3)
    ]
    offer = pinned.offer(known)
    assert [item.site for item in offer.proposals] == ["fc3.weight"]
    reasons = {skip.site: skip.reason for skip in offer.left_by("prune")}
    assert reasons["fc1.weight"] == f"would change fc2.weight, which is {KEPT}"
    decisions = [Decision(p.site, p.candidates[0]) for p in offer.proposals]
    shapes = {layer.name: layer.shape for layer in find_layers(pinned.rewrite(known, decisions))}
    before = {layer.name: layer.shape for layer in known.layers}
    assert {name for name in before if shapes[name] != before[name]} == {
        "fc3.weight",
        "head.weight",
    }


def weights_of(model: ir.Model) -> dict[str, np.ndarray[Any, Any]]:
    return {layer.name: layer.read() for layer in find_layers(model)}


def quick(**options: Any) -> onnxpress.Result:
    """The convolutional network, quantized on few images."""
    model = options.pop("model")
    return onnxpress.optimize(
        model, clock=BY_WORK, **{**fashion_data(calibration=48, evaluation=64), **options}
    )


@pytest.mark.slow
def test_kept_layers_are_what_simplification_left_bit_for_bit(models: Path) -> None:
    path = models / "fashion_cnn.onnx"
    given = model_file.load(path)
    before = weights_of(simplified(given, [Simplify()], load_target("cpu")))
    wanted = ["/stage3/block0/conv*", "stem.conv.weight"]
    result = quick(model=path, passes=["quantize"], keep=wanted)
    after = weights_of(result.model)
    assert sorted(after) == [
        "stage3.block0.conv1.weight",
        "stage3.block0.conv2.weight",
        "stem.conv.weight_folded",
    ]
    for name, weight in after.items():
        np.testing.assert_array_equal(weight, before[name])
    assert result.recipe.selection == selection(keep=wanted)
    again = quick(model=path, recipe=Recipe.from_toml(result.recipe.to_toml()))
    assert model_file.to_bytes(again.model) == model_file.to_bytes(result.model)


def test_only_leaves_all_other_layers_as_they_were(models: Path) -> None:
    result = quick(model=models / "fashion_mlp.onnx", passes=["quantize"], only=["/fc2/*"])
    assert sorted(weights_of(result.model)) == ["fc1.weight", "fc3.weight", "head.weight"]


def test_a_pass_is_kept_from_layers_that_another_may_change(models: Path) -> None:
    passes: list[str | Pass] = [Prune(ratio=0.6, importance="magnitude"), "quantize"]
    result = quick(
        model=models / "fashion_mlp.onnx",
        passes=passes,
        exclude=["quantize:fc1.weight"],
        min_sqnr=3,
    )
    changed = {
        stage.pass_.name: {n for d in stage.decisions for n in (d.site, *d.candidate.members)}
        for stage in result.stages
    }
    assert "fc1.weight" in changed["prune"]
    assert "fc1.weight" not in changed["quantize"]
    assert list(weights_of(result.model)) == ["fc1.weight"]


def test_a_layer_kept_beside_a_recipe_is_left_out_of_what_it_decided(models: Path) -> None:
    path = models / "fashion_mlp.onnx"
    first = quick(model=path, passes=["quantize"])
    assert "fc2.weight" not in weights_of(first.model)
    again = quick(model=path, recipe=first.recipe, keep=["/fc2/Gemm"])
    assert list(weights_of(again.model)) == ["fc2.weight"]
    (stage,) = [stage for stage in again.stages if stage.pass_.name == "quantize"]
    assert Skip("fc2.weight", KEPT) in stage.left
    assert again.recipe.selection == selection(keep=["/fc2/Gemm"])


def test_pins_survive_the_text_of_a_recipe() -> None:
    pinned = selection(
        keep=['/head/*"', "Gather"],
        exclude=["quantize:/body", "prune:/body", "quantize:Gather"],
        only=["Conv", "prune:Gather"],
    )
    recipe = Recipe((), "cpu", 0, None, None, selection=pinned)
    again = Recipe.from_toml(recipe.to_toml())
    assert again.selection == pinned
    assert again == recipe


def test_pins_of_a_recipe_written_by_hand_hold(models: Path) -> None:
    text = """
    version = 2
    [layers."/fc*"]
    keep = true
    [layers."head.weight"]
    exclude = ["prune"]
    [[pass]]
    name = "quantize"
    """
    result = quick(model=models / "fashion_mlp.onnx", recipe=Recipe.from_toml(text))
    assert sorted(weights_of(result.model)) == ["fc1.weight", "fc2.weight", "fc3.weight"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("kept = true", "unknown entries kept; expected some of keep, exclude, only"),
        ('keep = "yes"', "keep is 'yes'; expected true"),
        ('keep = ["quantize"]', "expected true"),
        ("exclude = true", r"exclude is True; expected names of passes"),
        ('exclude = ["quantise"]', "names the pass 'quantise'; did you mean 'quantize'"),
        ('only = ["simplify"]', "names the pass 'simplify'"),
    ],
)
def test_pins_that_mean_nothing_are_refused_by_their_place(entry: str, words: str) -> None:
    with pytest.raises(RecipeError, match=r'\[layers."/head"\].*' + words):
        Recipe.from_toml(f'version = 2\n[layers."/head"]\n{entry}\n')


@pytest.mark.parametrize("command", ["optimize", "quantize"])
def test_an_unknown_layer_ends_the_command_before_any_work(
    tmp_path: Path, linear_model: Path, command: str
) -> None:
    output = tmp_path / "out.onnx"
    result = run(command, linear_model, "-o", output, "--keep", "gem")
    assert result.exit_code == 2
    assert "did you mean 'gemm'" in message(result)
    assert not output.exists()


@pytest.mark.parametrize("option", ["--keep", "--exclude"])
def test_the_options_reach_the_command_of_a_single_pass(
    tmp_path: Path, linear_model: Path, option: str
) -> None:
    result = run("quantize", linear_model, "-o", tmp_path / "out.onnx", option, "Gemm")
    assert result.exit_code == 1
    assert "kept as asked" in message(result)
    assert Recipe.load(tmp_path / "out.recipe.toml").selection == selection(keep=["Gemm"])


def test_a_pass_prefix_of_a_third_partys_pass_is_known(linear_model: Path) -> None:
    recipe = onnxpress.optimize(
        linear_model, passes=[Rounds()], exclude=["rounds:gemm"], clock=BY_WORK
    ).recipe
    assert recipe.selection.kept == (Selector("gemm", "rounds"),)
    assert [s.decisions for s in recipe.stages if s.pass_.name == "rounds"] == [()]
    assert isinstance(recipe.stages[0], RecipeStage)
