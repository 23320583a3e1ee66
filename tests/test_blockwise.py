"""Runs by blocks: what is observed and recorded is what the whole gives."""

import gc
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import onnx_ir as ir
import pytest
from block_runs import HALF_ROUNDING
from bodies import if_model, loop_model, nested_model, scan_model
from generated import initialized
from large_models import small_decoder

from onnxpress import model_file
from onnxpress.blocks import Held
from onnxpress.blockwise import Blockwise, observed, recorded
from onnxpress.contract import Context
from onnxpress.data import Samples, random_samples
from onnxpress.errors import DataError, OutputError
from onnxpress.runtime import Session
from onnxpress.statistics import LayerStatistics, Observations, Statistics, collect
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS

MODELS = {
    **SAMPLE_MODELS,
    "if": if_model,
    "loop": loop_model,
    "nested": nested_model,
    "scan": scan_model,
}
ARRAYS = ("mean", "minimum", "maximum", "second_moment", "gram")


def given(model: ir.Model, number: int = 5) -> tuple[Context, Observations, Samples]:
    """Everything that can be observed of a model, on random inputs."""
    context = Context(model, load_target("cpu"), seed=3)
    tensors = frozenset(
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype == ir.DataType.FLOAT
    )
    wanted = Observations(tensors, frozenset(layer.name for layer in context.layers), gram=True)
    return context, wanted, random_samples(Session(model), number, seed=1, model=model)


def same(one: LayerStatistics, other: LayerStatistics) -> None:
    assert (one.rows, one.rows_per_sample) == (other.rows, other.rows_per_sample)
    assert one.input_shape == other.input_shape
    for name in ARRAYS:
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_array_equal(first, second)


def whole(context: Context, wanted: Observations, samples: Samples) -> Statistics:
    """As one run of the model gives it, without what onnxruntime fuses."""
    return collect(
        context.model, context.layers, samples, wanted, seed=3, threads=1, optimize=False
    )


@pytest.mark.parametrize("what", ["ranges too", "layers"])
@pytest.mark.parametrize("most_bytes", [8, 160_000, 10**9])
@pytest.mark.parametrize("name", MODELS)
def test_statistics_of_blocks_are_those_of_the_whole(name: str, most_bytes: int, what: str) -> None:
    context, wanted, samples = given(MODELS[name]())
    wanted = wanted if what == "ranges too" else replace(wanted, tensors=frozenset())
    expected = whole(context, wanted, samples)
    found, notes = observed(context, wanted, samples, Blockwise(most_bytes, threads=1))
    assert not notes
    assert found.samples == len(samples)
    assert found.layers.keys() == expected.layers.keys()
    for layer, one in expected.layers.items():
        same(one, found.layers[layer])
    assert found.tensors.keys() == expected.tensors.keys()
    for tensor, range_ in expected.tensors.items():
        mine = found.tensors[tensor]
        assert (mine.minimum, mine.maximum, mine.exponent) == (
            range_.minimum,
            range_.maximum,
            range_.exponent,
        )
        np.testing.assert_array_equal(mine.counts, range_.counts)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_what_the_whole_gives(name: str) -> None:
    model = MODELS[name]()
    samples = random_samples(Session(model), 3, seed=1, model=model)
    found = recorded("it", model, samples, Blockwise(8, threads=1))
    session = Session(model, threads=1)
    for feed in samples.feeds:
        wanted, outputs = session.run(feed), found.run(feed)
        assert list(wanted) == list(outputs)
        for output, array in wanted.items():
            # Blocks are fused each for itself, so that sums go in another order.
            rounding = HALF_ROUNDING if array.dtype == np.float16 else 1e-5
            mine, theirs = (np.asarray(a, np.float64) for a in (outputs[output], array))
            np.testing.assert_allclose(mine, theirs, rounding, rounding)


PASSED_ON = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 4] x, float[4, 4] a) => (float[1, 4] x, float[1, 4] y, float[4, 4] a2) {
    a2 = Identity (a)  h = MatMul (x, a)  y = Relu (h) }"""


def test_outputs_that_are_inputs_or_constants_are_recorded() -> None:
    model = initialized(PASSED_ON)
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(2))
    found = recorded("it", model, Samples(feeds, None, "drawn"), Blockwise(8))
    session = Session(
        initialized(PASSED_ON.replace("(float[1, 4] x, float[1, 4] y", "(float[1, 4] y"))
    )
    for feed in feeds:
        outputs = found.run(feed)
        assert set(outputs) == {"x", "y", "a2"}
        np.testing.assert_array_equal(outputs["x"], feed["x"])
        for name, array in session.run(feed).items():
            np.testing.assert_array_equal(outputs[name], array)


def test_gram_matrices_wait_in_one_file_that_goes_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context, wanted, samples = given(SAMPLE_MODELS[next(iter(SAMPLE_MODELS))]())
    found, _ = observed(context, wanted, samples, Blockwise(8))
    grams = [one.gram for one in found.layers.values() if one.gram is not None]
    assert grams
    (file,) = tmp_path.rglob("*.data")
    assert file.stat().st_size == sum(gram.nbytes for gram in grams)
    for name in found.layers:
        assert found.layers[name] is found.layers[name], "what follows from it is remembered"
    gone = weakref.ref(found.layers)
    del found, grams
    gc.collect()
    assert gone() is None
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_while_gram_matrices_are_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    context, wanted, samples = given(SAMPLE_MODELS[next(iter(SAMPLE_MODELS))]())
    usual = Path.open

    def full(path: Path, mode: str = "r") -> IO[bytes]:
        place = Path("/dev/full") if path.name == "gram.data" else path
        return usual(place, mode)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left on device; make room"):
        observed(context, wanted, samples, Blockwise(8))
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


NAN = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
    h = MatMul (x, a)  [root] r = Sqrt (h)  y = MatMul (r, b) }"""


def test_nan_in_the_middle_is_told_with_its_block_and_node() -> None:
    model = initialized(NAN)
    rng = np.random.default_rng(0)
    feeds = tuple({"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(6))
    context = Context(model, load_target("cpu"))
    names = {use.node.outputs[0].name: layer.name for layer in context.layers for use in layer.uses}
    wanted = Observations(layers=frozenset(names.values()), gram=True)
    found, notes = observed(context, wanted, Samples(feeds, None, "drawn"), Blockwise(8))
    assert list(found.layers) == [names["h"]]
    assert "NaN comes out of Sqrt 'root' with sample" in notes[0]
    assert notes[0].startswith("block ")
    assert "1 layers are fed numbers that are not finite" in notes[1]


def test_samples_that_a_block_does_not_take_are_refused_with_its_number() -> None:
    model = SAMPLE_MODELS[next(iter(SAMPLE_MODELS))]()
    samples = random_samples(Session(model), 3, seed=1, model=model)
    feeds = tuple(
        {name: np.zeros((*array.shape, 2), array.dtype) for name, array in feed.items()}
        for feed in samples.feeds
    )
    with pytest.raises(DataError, match=r"mine: block 1 of \d+ of the model does not run on them"):
        recorded("it", model, Samples(feeds, None, "mine"), Blockwise(8))


def test_it_is_told_how_far_a_walk_is() -> None:
    said: list[str] = []
    model = SAMPLE_MODELS[next(iter(SAMPLE_MODELS))]()
    samples = random_samples(Session(model), 2, seed=1, model=model)
    means = Blockwise(8, progress=lambda event: said.append(str(event)))
    recorded("the original", model, samples, means)
    number = len(said)
    assert number > 2
    assert said[0] == f"the original, block by block: 0 of {number}"
    assert said[-1] == f"the original, block by block: {number - 1} of {number}"


def test_activations_beyond_the_limit_wait_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    usual = Held._written

    def counted(held: Held, name: str, array: np.ndarray) -> object:
        written.append(array.nbytes)
        return usual(held, name, array)

    monkeypatch.setattr(Held, "_written", counted)
    context, wanted, samples = given(SAMPLE_MODELS[next(iter(SAMPLE_MODELS))]())
    in_files, _ = observed(context, wanted, samples, Blockwise(8, threads=1))
    assert written
    written.clear()
    in_memory, _ = observed(context, wanted, samples, Blockwise(10**9, threads=1))
    assert not written
    for name, one in in_memory.layers.items():
        same(one, in_files.layers[name])


def test_what_is_observed_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chain of layers: each node in one session, and none behind the last layer's input."""
    model = SAMPLE_MODELS["mlp_opset17"]()
    context, wanted, samples = given(model)
    ran: list[str] = []
    usual = Session.__init__

    def init(self: Session, model: ir.Model | Path, **options: object) -> None:
        assert isinstance(model, ir.Model)
        ran.extend(node.op_type for node in model.graph)
        usual(self, model, **options)  # type: ignore[arg-type] # handed on

    monkeypatch.setattr(Session, "__init__", init)
    observed(context, replace(wanted, tensors=frozenset()), samples, Blockwise(8))
    kinds = [node.op_type for node in model.graph]
    last = max(n for n, kind in enumerate(kinds) if kind in ("Gemm", "MatMul"))
    assert ran == kinds[:last]


def test_weights_in_half_precision_take_the_room_of_single(tmp_path: Path) -> None:
    means = Blockwise(1_000_000)
    counts = [
        len(means.blocks(model_file.load(small_decoder(tmp_path / name, float16=half))).blocks)
        for name, half in (("single", False), ("half", True))
    ]
    assert counts[0] == counts[1] > 4
