"""A selector names layers of any part or of one; it is unknown where it matches in none."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from decoders import prompts, write_encoder, write_head, write_seq2seq

from onnxpress import Budget
from onnxpress.errors import UsageError
from onnxpress.pinning import Pins
from onnxpress.pipelines import PipelineResult, optimize_pipeline, read_folder
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.pipelines.result import RECIPE
from onnxpress.pipelines.selecting import selected
from onnxpress.selectable import Selectable
from onnxpress.selection import Selection, Selector

CALIBRATION = {"input_ids": prompts(16)}
BUDGET = Budget(min_sqnr=15.0, max_drop=20.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seq2seq(tmp_path_factory.mktemp("selected"))


def of_parts(folder: Path, **options: Any) -> dict[str, Any]:
    found = selected(read_folder(folder), {"passes": ["quantize"], **options})
    return {name: {k: v for k, v in own.items() if v} for name, own in found.items()}


@pytest.mark.parametrize(
    ("options", "encoder", "decoders"),
    [
        ({"keep": ["in"]}, {"keep": ["in"]}, {}),
        ({"keep": ["encoder:MatMul"]}, {"keep": ["MatMul"]}, {}),
        ({"keep": ["MatMul"]}, {"keep": ["MatMul"]}, {"keep": ["MatMul"]}),
        ({"exclude": ["quantize:head"]}, {}, {"exclude": ["quantize:head"]}),
        ({"exclude": ["encoder:quantize:in"]}, {"exclude": ["quantize:in"]}, {}),
        ({"only": ["head"]}, {"only": [Selector("")]}, {"only": ["head"]}),
        ({"only": ["prune:in"]}, {"only": ["prune:in"]}, {"only": [Selector("", "prune")]}),
        ({"only": ["encoder:in"]}, {"only": ["in"]}, {"only": [Selector("")]}),
    ],
)
def test_each_part_is_told_what_means_something_in_it(
    folder: Path, options: dict[str, list[str]], encoder: Any, decoders: Any
) -> None:
    found = of_parts(folder, **options)
    assert found == {"encoder": encoder, "decoder": decoders, "decoder_with_past": decoders}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"keep": ["/nowhere/*"]},
            r"'/nowhere/\*' matches no .* of the parts encoder, decoder, decoder_with_past.*U001",
        ),
        ({"keep": ["encoder:ine"]}, "'encoder:ine' matches no .* of the part encoder"),
        ({"keep": ["encoder:ine"]}, "did you mean 'encoder:in'"),
        ({"exclude": ["quantize:hed"]}, "'quantize:hed' matches .* did you mean 'quantize:head'"),
        ({"keep": ["encoder:quantize:in"]}, "it is --exclude encoder:quantize:in"),
        ({"keep": ["quantize:encoder:in"]}, "it is --exclude encoder:quantize:in"),
        ({"only": ["prune:encoder:in"]}, "part stands in front: encoder:prune:in"),
        ({"keep": ["hed"]}, "did you mean 'head'"),
        ({"exclude": ["encodr:in"]}, "did you mean 'encoder'"),
        ({"keep": ["quantize:in"]}, "for quantize alone it is --exclude quantize:in"),
        ({"only": ["encoder:"]}, "the selector 'encoder:' is empty"),
        ({"only": ["encoder:quantize:"]}, "the selector 'encoder:quantize:' is empty"),
    ],
)
def test_what_matches_in_no_part_is_refused(
    folder: Path, options: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(UsageError) as raised:
        of_parts(folder, **options)
    assert re.search(said, str(raised.value))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder and a head, with a node that simplifying takes out."""
    folder = tmp_path_factory.mktemp("two")
    write_encoder(folder / "encoder.onnx")
    write_head(folder / "head.onnx")
    model = onnx.load(folder / "head.onnx")
    model.graph.node[0].input[0] = "same"
    made = onnx.helper.make_node("Identity", ["last_hidden_state"], ["same"], name="copied")
    model.graph.node.insert(0, made)
    onnx.save(model, folder / "head.onnx")
    (folder / "pipeline.toml").write_text(
        "".join(f"[[part]]\nname = '{n}'\nmodel = '{n}.onnx'\n" for n in ("encoder", "head"))
    )
    return folder


@pytest.mark.parametrize("given", ["copied", "head:copied"])
def test_a_node_that_simplifying_removes_is_told(two: Path, given: str) -> None:
    with pytest.raises(UsageError, match=f"what '{given}' matches is no layer or node of its own"):
        of_parts(two, keep=[given])


def floats_of(found: PipelineResult, part: str) -> set[str]:
    """Names of weights that are as they were."""
    (model,) = (one.model for one in found.parts if one.name == part)
    return {
        name
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype.numpy() == np.float32
    }


def optimized(folder: Path, **options: Any) -> PipelineResult:
    return optimize_pipeline(folder, calibration=CALIBRATION, budget=BUDGET, threads=1, **options)


def test_kept_layers_stay_in_the_result_and_in_a_repetition(two: Path, tmp_path: Path) -> None:
    found = optimized(two, passes=["quantize"], keep=["encoder:in", "classes"])
    assert floats_of(found, "encoder") & {"in", "out"} == {"in"}
    assert "classes" in floats_of(found, "head")
    written = {path.name: path for path in found.save(tmp_path / "out")}
    # What is given beside a recipe is added to it.
    again = optimized(two, recipe=written[RECIPE], keep=["encoder:out"])
    assert floats_of(again, "encoder") >= {"in", "out"}


def test_a_part_without_any_that_is_named_is_left_alone(two: Path) -> None:
    found = optimized(two, passes=["quantize"], only=["encoder:in"])
    assert floats_of(found, "encoder") & {"in", "out"} == {"out"}
    assert "classes" in floats_of(found, "head")


@pytest.mark.parametrize(
    "only",
    [
        ["encoder:quantize:in"],
        ["encoder:quantize:in", "head:classes"],
        ["quantize:*", "head:classes"],
        ["encoder:quantize:in", "encoder:out"],
        ["quantize:in", "prune:classes"],
        ["prune:out", "in", "head:quantize:classes"],
    ],
)
def test_several_of_only_allow_what_they_allow_in_one_model(two: Path, only: list[str]) -> None:
    parts = {"encoder": ["source", "in", "out"], "head": ["classes"]}
    sites = {part: [Selectable(n, is_layer=True) for n in own] for part, own in parts.items()}
    passes = ("prune", "quantize")
    bare = [text.removeprefix("encoder:").removeprefix("head:") for text in only]
    every = [site for own in sites.values() for site in own]
    whole = Pins.of(Selection.parse((), bare, (), passes), every)
    found = selected(read_folder(two), {"only": only})
    for part, own in sites.items():
        pins = Pins.of(Selection.parse((), found[part]["only"], (), passes), own)
        for name in (site.name for site in own):
            for pass_name in passes:
                assert pins.keep(pass_name, name) == whole.keep(pass_name, name)


def test_only_for_a_pass_and_only_of_another_part_both_have_their_layers_changed(
    two: Path, tmp_path: Path
) -> None:
    found = optimized(two, passes=["quantize"], only=["encoder:quantize:in", "head:classes"])
    assert floats_of(found, "encoder") & {"in", "out"} == {"out"}
    assert "classes" not in floats_of(found, "head")
    written = {path.name: path for path in found.save(tmp_path / "out")}
    again = optimized(two, recipe=written[RECIPE])
    assert floats_of(again, "encoder") == floats_of(found, "encoder")
    assert floats_of(again, "head") == floats_of(found, "head")


def test_only_beside_a_recipe_opens_a_part_that_it_left_alone(two: Path, tmp_path: Path) -> None:
    found = optimized(two, passes=["quantize"], only=["encoder:in"])
    recipe = {path.name: path for path in found.save(tmp_path / "out")}[RECIPE]
    told = PipelineRecipe.load(recipe).parts["head"]
    assert told is not None
    assert told.selection.only == (Selector(""),)
    both = told.selection.joined(Selection(only=(Selector("classes"),)))
    pins = Pins.of(both, [Selectable("classes", is_layer=True)])
    assert not pins.keep("quantize", "classes")
