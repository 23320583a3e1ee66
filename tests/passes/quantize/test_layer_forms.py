"""What an expert says of single layers: which of several counts, and what comes of it."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import onnxpress
from onnxpress import model_file
from onnxpress.cli import cli
from onnxpress.contract import Context, Proposal, Skip
from onnxpress.data import random_samples
from onnxpress.enforcement import offered
from onnxpress.errors import UsageError
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.layer_forms import LayerForm
from onnxpress.pool import Pool
from onnxpress.recipe import Recipe
from onnxpress.runtime import Session
from onnxpress.targets import load_target

_TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
net (float[n, 128] x, int64[n] id) => (float[n, 128] y)
<float[500, 128] words, float[128, 128] attention_query, float[128, 128] attention_key,
 float[128, 128] head> {
   e = Gather (words, id)
   q = MatMul (x, attention_query)
   k = MatMul (e, attention_key)
   s = Add (q, k)
   y = MatMul (s, head)
}
"""
NODES = ("/embed", "/attention/query", "/attention/key", "/sum", "/out/head")
SHAPES = {
    "words": (500, 128),
    "attention_query": (128, 128),
    "attention_key": (128, 128),
    "head": (128, 128),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table, two layers of an attention, a head."""
    model, rng = onnx.parser.parse_model(_TEXT), np.random.default_rng(0)
    for node, name in zip(model.graph.node, NODES, strict=True):
        node.name = name
    for name, shape in SHAPES.items():
        array = rng.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    place = tmp_path / "net.onnx"
    onnx.save(model, place)
    return place


def offers(path: Path, *layer_forms: str, **settings: Any) -> dict[str, set[str]]:
    """The families that are offered, by site; none of what is left."""
    pass_ = Quantize(layer_forms=layer_forms, **{"form": "weight_only", **settings})
    offer = offered(pass_, Context(model_file.load(path), load_target("cpu")))
    found: dict[str, set[str]] = {skip.site: set() for skip in offer.left}
    for item in offer.proposals:
        found[item.site] = {candidate.family for candidate in item.candidates}
    return found


def parameters(path: Path, site: str, *layer_forms: str) -> dict[str, Any]:
    """Of the only candidate of a site."""
    pass_ = Quantize(form="weight_only", layer_forms=layer_forms)
    offer = offered(pass_, Context(model_file.load(path), load_target("cpu")))
    (candidate,) = next(p for p in offer.proposals if p.site == site).candidates
    return dict(candidate.parameters) | {"family": candidate.family}


def test_bits_are_those_said_of_a_name_a_pattern_or_an_operator_type(path: Path) -> None:
    found = offers(path, "*attention*=4:32", "Gather=3", "head=5,8")
    assert found == {
        "words": {"weight_only_3_bit"},
        "attention_query": {"weight_only_4_bit"},
        "attention_key": {"weight_only_4_bit"},
        "head": {"weight_only_5_bit", "weight_only"},
    }


def test_layers_of_which_nothing_is_said_are_as_all(path: Path) -> None:
    found = offers(path, "head=3", weight_bits=(6,))
    assert found["head"] == {"weight_only_3_bit"}
    assert found["attention_key"] == found["words"] == {"weight_only_6_bit"}


@pytest.mark.parametrize(
    "texts", [("head=3", "*head=4", "MatMul=5"), ("MatMul=5", "*=6", "head=3")]
)
def test_a_name_counts_for_more_than_a_pattern_and_that_than_a_type(
    path: Path, texts: tuple[str, ...]
) -> None:
    assert offers(path, *texts)["head"] == {"weight_only_3_bit"}


def test_of_equals_the_last_counts(path: Path) -> None:
    assert offers(path, "*head=3", "h*=4")["head"] == {"weight_only_4_bit"}


def test_nodes_have_names_too(path: Path) -> None:
    assert offers(path, "/attention/*=2")["attention_key"] == {"weight_only_2_bit"}


def test_float_leaves_a_layer_alone_and_says_so(path: Path) -> None:
    pass_ = Quantize(form="weight_only", layer_forms=("Gather=float",))
    offer = offered(pass_, Context(model_file.load(path), load_target("cpu")))
    assert Skip("words", "left in float, as layer_forms says [L005]") in offer.left


def test_blocks_levels_and_zero_points_are_those_said(path: Path) -> None:
    assert parameters(path, "head", "head=4:16") == {
        "family": "weight_only_4_bit",
        "block_size": 16,
        "symmetric": True,
    }
    found = parameters(path, "head", "head=zero_points:3:0:codebook")
    assert found["family"] == "weight_only_3_bit_codebook"
    assert (found["block_size"], found["symmetric"]) == (0, False)


def test_a_layer_may_be_stored_for_an_operator_alone(path: Path) -> None:
    found = offers(path, "head=4:64:nbits", weight_bits=(4,))
    assert found["head"] == {"weight_only_4_bit_nbits"}
    assert found["attention_key"] == {"weight_only_4_bit"}


def test_blocks_for_an_operator_of_one_layer_raise_the_opset() -> None:
    assert Quantize(layer_forms=("head=4:blocked",)).needed_opset == 21
    assert Quantize(layer_forms=("head=4",)).needed_opset == Quantize().needed_opset


def test_one_layer_may_compute_in_integers_where_others_do_not(path: Path) -> None:
    model = model_file.load(path)
    pass_ = Quantize(form="weight_only", layer_forms=("head=static",))
    samples = random_samples(Session(model), 8, seed=0)
    pool = Pool((pass_,))
    context = pool.context(model, load_target("cpu"), samples)
    found = {
        item.site: {candidate.family for candidate in item.candidates}
        for item in pool.offer(context).proposals
        if isinstance(item, Proposal)
    }
    assert found["head"] == {"static"}
    assert found["attention_key"] == {"weight_only"}


def test_keep_counts_for_more(path: Path) -> None:
    result = onnxpress.optimize(
        path,
        passes=[Quantize(form="weight_only", layer_forms=("MatMul=4",))],
        keep=["head"],
        goal="size",
        min_sqnr=0,
    )
    (stage,) = [stage for stage in result.recipe.stages if stage.pass_.name == "quantize"]
    assert stage.decisions is not None
    families = {item.site: item.candidate.family for item in stage.decisions}
    assert "head" not in families
    assert families["attention_query"] == families["attention_key"] == "weight_only_4_bit"


def test_the_command_writes_what_was_said_and_the_recipe_repeats_it(path: Path) -> None:
    out = path.with_name("small.onnx")
    said = ["--layer-forms", "/attention/*=4:16", "--layer-forms", "Gather=8"]
    arguments = ["quantize", str(path), "-o", str(out), "--form", "weight_only", *said]
    done = CliRunner().invoke(cli, [*arguments, "--goal", "size", "--min-sqnr", "0", "-q"])
    assert done.exit_code == 0, done.output
    text = out.with_name("small.recipe.toml").read_text(encoding="utf-8")
    (entry,) = [item for item in tomllib.loads(text)["pass"] if item["name"] == "quantize"]
    assert entry["layer_forms"] == ["/attention/*=4:16", "Gather=8"]
    families = {item["site"]: item for item in entry["decision"]}
    assert families["attention_key"]["family"] == "weight_only_4_bit"
    assert families["attention_key"]["parameters"]["block_size"] == 16
    assert families["words"]["family"] == "weight_only"
    again = onnxpress.optimize(path, recipe=Recipe.from_toml(text))
    written = path.with_name("again.onnx")
    again.save(written)
    assert written.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("head", "expected PATTERN=FORM"),
        ("=4", "expected PATTERN=FORM"),
        ("head=", "expected PATTERN=FORM"),
        ("head=9", "9 are no bits of a weight; expected 2 to 8"),
        ("head=16", "sixteen_bit"),
        ("head=4:8,16", "several sizes of blocks"),
        ("head=codebok", "did you mean 'codebook'"),
        ("head=int4", "'int4' is no word of a form"),
        ("head=4:32:64", "says twice what block_size is"),
        ("head=float:4", "with float there is no more to say"),
        ("head=4:float8_e5m2", "expected 'head=float8_e5m2'"),
        ("head=4:5", "block_size is 5; expected 0 or at least 8"),
        ("head=4:nbits:512", "a power of two from 16 to 256"),
        ("head=8:log", "weight_bits below 8"),
        ("head=4:nbits:static", "stored_as is for weights that are only stored"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_possible(text: str, words: str) -> None:
    with pytest.raises(UsageError, match="layer_forms has") as raised:
        Quantize(layer_forms=(text,))
    assert words in str(raised.value)


def test_a_pattern_that_stands_for_nothing_is_told(path: Path) -> None:
    with pytest.raises(UsageError, match=r"'atention_key' matches no layer .*attention_key"):
        offers(path, "atention_key=4")


def test_an_operator_without_a_weight_is_told(path: Path) -> None:
    with pytest.raises(UsageError, match=r"'/sum' matches no layer"):
        offers(path, "/sum=4")


def test_a_target_without_the_operator_refuses_it_for_one_layer(path: Path) -> None:
    pass_ = Quantize(form="weight_only", layer_forms=("head=4:nbits",))
    with pytest.raises(UsageError, match="MatMulNBits"):
        offered(pass_, Context(model_file.load(path), load_target("qnn")))


@given(
    st.text(min_size=1).filter(str.strip),
    st.integers(2, 8),
    st.one_of(st.none(), st.integers(0, 4096)),
)
def test_any_pattern_is_read_back(pattern: str, bits: int, block: int | None) -> None:
    words = str(bits) if block is None else f"{bits}:{block}"
    found = LayerForm.parse(f"{pattern}={words}")
    assert found.pattern == pattern
    assert found.stored == {"bits": (bits,)} | ({} if block is None else {"block_size": block})
