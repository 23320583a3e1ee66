"""Models above the memory budget with samples: run block by block, observed and judged."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from fashion import fashion_data
from large_models import small_decoder

import onnxpress
from onnxpress import model_file
from onnxpress.contract import Pass
from onnxpress.data import Samples, load_samples
from onnxpress.errors import BudgetError, DataError
from onnxpress.judge import Budget, Evaluator
from onnxpress.output_file import FileSet
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.prune import Prune, solving
from onnxpress.passes.quantize import Quantize
from onnxpress.report.document import document
from onnxpress.report.html import write_html
from onnxpress.runtime import Array, Session

SMALL = "1MB"
VOCABULARY = 256


def drawn(path: Path, number: int, seed: int = 0, length: int = 6) -> dict[str, Array]:
    """Words and a past for a decoder."""
    rng, past = np.random.default_rng(seed), 2
    made: dict[str, Array] = {}
    for item in Session(path).inputs:
        if item.name.startswith("past"):
            sizes = [dim if isinstance(dim, int) else 1 for dim in item.shape]
            sizes[2] = past
            made[item.name] = rng.standard_normal((number, *sizes)).astype(item.dtype)
        elif item.name == "attention_mask":
            made[item.name] = np.ones((number, 1, past + length), np.int64)
        elif item.name == "position_ids":
            made[item.name] = np.tile(np.arange(past, past + length), (number, 1, 1))
        else:
            made[item.name] = rng.integers(0, VOCABULARY, (number, 1, length))
    return made


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_decoder(tmp_path_factory.mktemp("decoder"), hidden=96, mlp=160)


def sqnr(result: onnxpress.Result) -> float:
    """Of the output that is worst, as the result says."""
    assert result.validation is not None
    return result.validation.measurement.worst_sqnr_db


def by_whole_sessions(original: Path, model: ir.Model, samples: Samples) -> float:
    """Of the output that is worst, with both models run as wholes."""
    evaluator = Evaluator(Session(original), samples, Budget(metric="none"))
    return evaluator.measure(Session(model)).worst_sqnr_db


@pytest.mark.parametrize(
    "pass_",
    [Quantize(form="weight_only"), Prune(ratio=0.8), Factorize(ratio=0.8)],
    ids=["quantize", "prune", "factorize"],
)
def test_samples_make_a_named_pass_lose_less_on_others(pass_: Pass) -> None:
    data = fashion_data(calibration=128, evaluation=64)
    path = Path(__file__).parents[1] / "models" / "fashion_mlp.onnx"
    held_out = load_samples(data["evaluation"], Session(path).inputs)
    blind = onnxpress.optimize(path, passes=[pass_], max_memory="4MB")
    found = onnxpress.optimize(
        path,
        calibration=data["calibration"],
        evaluation=held_out,
        passes=[pass_],
        max_memory="4MB",
    )
    assert blind.validation is None
    # From 53 to 63, from 29 to 35 and from 39 to 44 dB on 100 images.
    assert sqnr(found) > by_whole_sessions(path, blind.model, held_out) + 3
    # Blocks are fused each for itself.
    assert sqnr(found) == pytest.approx(by_whole_sessions(path, found.model, held_out), abs=0.1)


def test_weights_are_what_a_run_of_the_whole_makes_of_them(decoder: Path) -> None:
    """But for single steps, as a run of the whole is observed with what onnxruntime fuses."""
    made = [
        onnxpress.optimize(
            decoder,
            calibration=drawn(decoder, 16),
            # What fits is rounded again for what the rounded network feeds it.
            passes=[Quantize(form="weight_only", refinement=False)],
            metric="none",
            max_memory=most,
        ).model.graph.initializers
        for most in (SMALL, "1GB")
    ]
    assert made[0].keys() == made[1].keys()
    integers = [name for name in made[0] if name.endswith("_quantized")]
    assert integers
    for name in integers:
        first, second = (np.asarray(one[name].const_value, np.int64) for one in made)
        assert np.abs(first - second).max() <= 1
        assert (first != second).mean() < 0.01


def test_figures_replace_what_is_said_without_samples(decoder: Path, tmp_path: Path) -> None:
    result = onnxpress.optimize(
        decoder,
        calibration=drawn(decoder, 8),
        passes=[Quantize(form="weight_only")],
        metric="none",
        max_memory=SMALL,
    )
    assert result.within_budget
    assert result.validation is not None
    assert result.validation.measurement.samples == 4
    assert "held out" in result.validation.measurement.source
    assert result.recipe.calibration is not None
    assert result.recipe.calibration.held_out
    said = document(result)
    assert "run block by block and never as a whole" in said["warnings"][0]
    text = json.dumps(said)
    for gone in ("nothing was run", "not known", "were not used"):
        assert gone not in text
    assert said["validation"]["latency"]["speedup"] is None
    with FileSet() as files:
        write_html(said, tmp_path / "report.html", files)
    assert "0.00x" not in (tmp_path / "report.html").read_text()


def test_a_budget_is_judged_on_samples_that_no_choice_has_seen(decoder: Path) -> None:
    given = {"calibration": drawn(decoder, 8), "passes": [Prune(ratio=0.5)], "max_memory": SMALL}
    result = onnxpress.optimize(decoder, min_sqnr=30, metric="none", **given)  # type: ignore[arg-type] # a dictionary
    assert not result.within_budget
    assert result.problems[0].startswith("the budget does not hold: ")
    assert result.validation is not None
    assert not result.validation.within_budget
    loose = onnxpress.optimize(decoder, min_sqnr=-90, metric="none", **given)  # type: ignore[arg-type] # a dictionary
    assert loose.within_budget
    with pytest.raises(BudgetError, match="--max-drop needs a task metric"):
        onnxpress.optimize(decoder, max_drop=1, metric="none", **given)  # type: ignore[arg-type] # a dictionary


def test_a_session_holds_one_block_and_there_is_one_at_a_time(
    decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxpress.runtime.session._LARGE_BYTES", 1024)
    monkeypatch.setattr("onnxpress.spill._LEAST_BYTES", 1024)
    whole = model_file.weight_bytes(model_file.load(decoder))
    opened: list[int] = []
    alive: dict[int, int] = {}
    usual = Session.__init__

    def init(self: Session, model: ir.Model | Path, **options: object) -> None:
        assert isinstance(model, ir.Model)
        nbytes, number = model_file.weight_bytes(model), len(opened)
        opened.append(nbytes)
        alive[number] = nbytes
        weakref.finalize(self, alive.pop, number)
        assert sum(alive.values()) <= 1_000_000 / 4, "more than a block"
        usual(self, model, **options)  # type: ignore[arg-type] # handed on

    data = drawn(decoder, 6)
    gc.collect()
    monkeypatch.setattr(Session, "__init__", init)
    result = onnxpress.optimize(
        decoder,
        calibration=data,
        passes=["quantize"],
        max_memory=SMALL,
    )
    assert result.validation is not None
    assert len(opened) > 10
    assert max(opened) < whole / 4


@pytest.mark.parametrize("refinement", [False, True])
def test_the_size_of_blocks_and_the_number_of_threads_change_no_bytes(
    decoder: Path, *, refinement: bool
) -> None:
    """What is fitted to a rewritten network follows the last bit of sums, which threads split."""
    data = drawn(decoder, 16)
    passes = [Quantize(form="weight_only", refinement=refinement)]
    found = [
        onnxpress.optimize(
            decoder, calibration=data, passes=passes, max_memory=most, threads=threads
        )
        for most, threads in ((SMALL, 1), ("500kB", 1), (SMALL, 2))
    ]
    written = [model_file.to_bytes(result.model) for result in found]
    assert written[0] == written[1]
    assert found[0].recipe == found[2].recipe
    assert refinement or written[0] == written[2]


def test_a_recipe_is_repeated_with_its_samples(decoder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **drawn(decoder, 8))  # type: ignore[arg-type] # arrays
    first = onnxpress.optimize(
        decoder, calibration=tmp_path / "data.npz", passes=["quantize"], max_memory=SMALL
    )
    again = onnxpress.optimize(decoder, recipe=first.recipe, max_memory=SMALL)
    assert model_file.to_bytes(again.model) == model_file.to_bytes(first.model)
    assert sqnr(again) == sqnr(first)


def test_static_forms_take_their_ranges_from_blocks(decoder: Path) -> None:
    result = onnxpress.optimize(
        decoder,
        calibration=drawn(decoder, 8),
        passes=[Quantize(form="static")],
        max_memory=SMALL,
    )
    kinds = {node.op_type for node in result.model.graph}
    assert "QuantizeLinear" in kinds
    assert sqnr(result) > 5


def test_samples_of_another_shape_are_refused_before_anything_is_run(decoder: Path) -> None:
    data = drawn(decoder, 4)
    data["input_ids"] = data["input_ids"].astype(np.float32)
    with pytest.raises(DataError, match="'input_ids' is float32; the model wants"):
        onnxpress.optimize(decoder, calibration=data, max_memory=SMALL)
    data["input_ids"] = np.full_like(drawn(decoder, 4)["input_ids"], VOCABULARY)
    with pytest.raises(DataError, match=r"block 1 of \d+ of the model does not run on them"):
        onnxpress.optimize(decoder, calibration=data, max_memory=SMALL)


def test_a_block_that_does_not_fit_keeps_samples_from_being_used(decoder: Path) -> None:
    result = onnxpress.optimize(
        decoder, calibration=drawn(decoder, 4), passes=["quantize"], max_memory="50kB"
    )
    assert result.validation is None
    said = document(result)["warnings"]
    assert "nothing was run and compared" in said[0]
    (unused,) = [line for line in said if "the samples that were given were not used" in line]
    assert "cannot be cut where little crosses" in unused


def test_prune_leaves_what_holds_a_layer_that_is_too_large() -> None:
    path = Path(__file__).parents[1] / "models" / "fashion_cnn.onnx"
    result = onnxpress.optimize(path, passes=[Prune(ratio=0.9)], max_memory="300kB")
    (stage,) = [stage for stage in result.stages if stage.pass_.name == "prune"]
    assert not stage.failed
    assert any("which is left alone" in skip.reason for skip in stage.left)


def test_the_command_shows_what_was_lost(decoder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **drawn(decoder, 8))  # type: ignore[arg-type] # arrays
    words = ["quantize", str(decoder), "--form", "weight_only", "--max-memory", SMALL]
    words += ["--calibration", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out.onnx")]
    done = subprocess.run(
        [sys.executable, "-m", "onnxpress", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode in (0, 1), done.stderr
    assert "dB" in done.stdout
    assert "run block by block" in done.stdout
    assert "latency  " not in done.stdout
    assert (tmp_path / "out.onnx").is_file()


def test_a_second_pass_observes_what_the_first_left(
    decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxpress.spill._LEAST_BYTES", 1024)
    said: list[str] = []
    result = onnxpress.optimize(
        decoder,
        calibration=drawn(decoder, 16),
        passes=[Prune(ratio=0.9), Quantize(form="weight_only")],
        metric="none",
        max_memory=SMALL,
        progress=lambda event: said.append(str(event)),
    )
    decided = {stage.pass_.name: len(stage.decisions) for stage in result.stages}
    assert decided["prune"] > 0
    assert decided["quantize"] > 0
    first = [text for text in said if text.startswith("statistics, block by block: 0 of")]
    assert len(first) == 2
    assert sqnr(result) > -5
    assert "NaN" not in json.dumps(document(result)["warnings"])


def test_prune_solves_large_layers_some_outputs_at_a_time(
    decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"calibration": drawn(decoder, 16), "max_memory": SMALL, "metric": "none"}
    passes = [Prune(ratio=0.9)]
    whole = onnxpress.optimize(decoder, passes=passes, **given)  # type: ignore[arg-type] # a dictionary
    monkeypatch.setattr(solving, "_LARGE", 0)
    monkeypatch.setattr(solving, "_AT_A_TIME", 1000)
    pieces = onnxpress.optimize(decoder, passes=passes, **given)  # type: ignore[arg-type] # a dictionary
    first, second = (result.model.graph.initializers for result in (whole, pieces))
    assert first.keys() == second.keys()
    for name, value in first.items():
        one, other = (np.asarray(v.const_value) for v in (value, second[name]))
        # Products of fewer rows are summed in another order.
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(solving, "_MOST_BYTES", 0)
    small = onnxpress.optimize(decoder, passes=passes, **given)  # type: ignore[arg-type] # a dictionary
    (stage,) = [stage for stage in small.stages if stage.pass_.name == "prune"]
    assert stage.decisions, "by magnitude where what readers tell takes too much memory"


def test_of_forms_that_save_as_much_the_nearest_is_taken(decoder: Path) -> None:
    """Static integers round what layers read as well, and no run can take that back."""
    data = drawn(decoder, 8)
    nearest, static = (
        onnxpress.optimize(decoder, calibration=data, passes=[pass_], max_memory=SMALL)
        for pass_ in (Quantize(), Quantize(form="static"))
    )
    families = [decision.candidate.family for s in nearest.stages for decision in s.decisions]
    assert "weight_only" in families
    assert sqnr(nearest) > sqnr(static) + 3


@pytest.mark.parametrize("count", [0, 8])
def test_an_amount_that_stands_in_the_settings_is_carried_out(decoder: Path, count: int) -> None:
    data = drawn(decoder, count) if count else None
    result = onnxpress.optimize(decoder, calibration=data, passes=["sparsify"], max_memory=SMALL)
    (stage,) = (stage for stage in result.stages if stage.pass_.name == "sparsify")
    assert stage.decisions
