"""A pipeline keeps its one budget on unseen samples, is smaller, and its recipe makes the same."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from command_line import message, run
from decoders import prompts, write_decoder, write_encoder, write_head, write_merged, write_seq2seq

from onnxpress import Budget
from onnxpress.cli import cli
from onnxpress.errors import NoSamplesError, OutputError, RecipeError, UsageError
from onnxpress.judge import OutputFidelity
from onnxpress.passes.quantize import Quantize
from onnxpress.pipelines import (
    PipelineRecipe,
    PipelineResult,
    Running,
    compressing,
    optimize_pipeline,
    read_folder,
    wired,
)
from onnxpress.pipelines.judging import Figure
from onnxpress.pipelines.result import RECIPE, require_place
from onnxpress.pipelines.running import FORCED
from onnxpress.pipelines.sharing import SHARED
from onnxpress.report.pipeline import figure_rows
from onnxpress.runtime import Session

CALIBRATION = {"input_ids": prompts(40)}
UNSEEN = prompts(20, seed=77)
LEAST_DB = 28.0


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seq2seq(tmp_path_factory.mktemp("seq2seq"))


@pytest.fixture(scope="module")
def optimized(seq2seq: Path) -> PipelineResult:
    return optimize_pipeline(
        seq2seq,
        calibration=CALIBRATION,
        # Ten samples judge tokens: a few other ones are no fault.
        budget=Budget(min_sqnr=LEAST_DB, max_drop=5.0),
        passes=["quantize"],
        threads=1,
    )


@pytest.fixture(scope="module")
def written(optimized: PipelineResult, seq2seq: Path) -> Path:
    optimized.save(seq2seq / "out")
    return seq2seq / "out"


def opened(folder: Path) -> Running:
    pipeline = read_folder(folder)
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return Running(wired(pipeline, sessions), sessions)


def test_every_part_is_smaller_and_the_budget_holds(optimized: PipelineResult) -> None:
    assert optimized.within_budget
    assert [part.name for part in optimized.parts] == ["encoder", "decoder", "decoder_with_past"]
    assert all(part.bytes < 0.6 * part.original_bytes for part in optimized.parts)


def test_the_budget_holds_on_samples_nobody_has_looked_at(seq2seq: Path, written: Path) -> None:
    original, result = opened(seq2seq), opened(written)
    power = noise = 0.0
    for row in UNSEEN:
        feed = {"input_ids": row[None], FORCED: original.tokens({"input_ids": row[None]})}
        one, other = (r.run(feed)["logits"].astype(np.float64) for r in (original, result))
        power += float(((one - one.mean()) ** 2).sum())
        noise += float(((one - other) ** 2).sum())
    # The budget is about the worst group of slices, so that all of them together keep more.
    assert 10 * np.log10(power / noise) >= LEAST_DB


def test_the_recipe_makes_the_same_bytes(seq2seq: Path, written: Path, tmp_path: Path) -> None:
    again = optimize_pipeline(seq2seq, calibration=CALIBRATION, recipe=written / RECIPE, threads=1)
    for path in again.save(tmp_path):
        assert path.read_bytes() == (written / path.name).read_bytes(), path.name


def test_side_files_are_copied(seq2seq: Path, written: Path) -> None:
    assert (written / "config.json").read_bytes() == (seq2seq / "config.json").read_bytes()


def test_a_recipe_of_other_samples_is_refused(seq2seq: Path, written: Path) -> None:
    others = {"input_ids": prompts(40, seed=5)}
    with pytest.raises(RecipeError, match=r"other calibration data.*R002"):
        optimize_pipeline(seq2seq, calibration=others, recipe=written / RECIPE, threads=1)


def test_a_recipe_of_another_pipeline_is_refused(written: Path, tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    with pytest.raises(RecipeError, match=r"a part 'encoder'|a part 'decoder_with_past'"):
        optimize_pipeline(tmp_path, calibration=CALIBRATION, recipe=written / RECIPE, threads=1)


def test_a_recipe_without_one_of_the_parts_is_refused(written: Path) -> None:
    recipe = PipelineRecipe.load(written / RECIPE)
    few = {name: one for name, one in recipe.parts.items() if name != "decoder"}
    with pytest.raises(RecipeError, match=r"says nothing of the part 'decoder'.*R001"):
        replace(recipe, parts=few).require(list(recipe.parts), recipe.digest, "the same")


def test_a_merged_decoder_gets_smaller_with_its_cache_in_bytes(tmp_path: Path) -> None:
    write_merged(tmp_path / "decoder_model_merged.onnx")
    found = optimize_pipeline(
        tmp_path, calibration=CALIBRATION, passes=["quantize"], cache="int8", threads=1
    )
    assert found.within_budget, found.problems
    assert found.bytes < 0.7 * found.original_bytes
    assert found.cache_bytes == (256, 68)
    found.save(tmp_path / "out")
    ids = UNSEEN[:2]
    tokens = opened(tmp_path).tokens({"input_ids": ids})
    assert np.mean(opened(tmp_path / "out").tokens({"input_ids": ids}) == tokens) > 0.9


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_part_that_costs_the_whole_too_much_is_done_again_or_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr(compressing, "_ATTEMPTS", attempts)
    write_decoder(tmp_path / "model.onnx")
    found = optimize_pipeline(
        tmp_path,
        calibration=CALIBRATION,
        # The part alone may lose everything, and the whole no token.
        budget=Budget(min_sqnr=-40.0, max_drop=0.0),
        passes=[Quantize(form="weight_only", weight_bits=(2,), block_size=0)],
        threads=1,
    )
    assert found.within_budget, found.problems
    left = [note for note in found.warnings if note.endswith("[N007]")]
    assert bool(left) is (attempts == 1)
    assert bool(left) is (found.parts[0].result is None)


def test_parts_that_generate_nothing_are_judged_by_the_last_ones_outputs(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder.onnx")
    write_head(tmp_path / "head.onnx")
    parts = "".join(
        f"[[part]]\nname = '{name}'\nmodel = '{name}.onnx'\n" for name in ("encoder", "head")
    )
    (tmp_path / "pipeline.toml").write_text(parts)
    found = optimize_pipeline(
        tmp_path / "pipeline.toml", calibration=CALIBRATION, passes=["quantize"], threads=1
    )
    assert found.within_budget
    assert found.figures == ()
    assert found.measurement.metrics[0].name == "agreement of steps"
    assert found.bytes < 0.6 * found.original_bytes


def test_a_part_that_nothing_judges_is_left_and_told(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder.onnx")
    for name in ("head1", "head2"):
        write_head(tmp_path / f"{name}.onnx")
    (tmp_path / "pipeline.toml").write_text(
        "".join(
            f"[[part]]\nname = '{name}'\nmodel = '{name}.onnx'\n"
            for name in ("encoder", "head1", "head2")
        )
    )
    found = optimize_pipeline(tmp_path, calibration=CALIBRATION, passes=["quantize"], threads=1)
    done = {part.name for part in found.parts if part.result is not None}
    assert "encoder" in done
    assert "head1" not in done
    assert [n for n in found.warnings if n.startswith("part head1 is left") and "N008" in n]


def test_what_an_interruption_left_is_told(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    found = optimize_pipeline(tmp_path, calibration=CALIBRATION, threads=1, stop=lambda: True)
    assert found.parts[0].result is None
    assert any("interrupted before its turn" in note for note in found.warnings)


def test_another_task_than_to_generate_is_refused(seq2seq: Path) -> None:
    with pytest.raises(UsageError, match=r"--task is 'nonsense'.*sequence.*U005"):
        optimize_pipeline(seq2seq, calibration=CALIBRATION, budget=Budget(task="nonsense"))


def test_a_recipe_with_an_unknown_cache_is_refused(written: Path, tmp_path: Path) -> None:
    text = (written / RECIPE).read_text().replace('cache = "float"', 'cache = "int4"')
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"cache is 'int4'; expected one of float, int8.*R004"):
        PipelineRecipe.load(tmp_path / "recipe.toml")


def test_no_noise_is_said_of_floats_without_any_alone(optimized: PipelineResult) -> None:
    nan = math.nan
    outputs = {
        "same": OutputFidelity(math.inf, 1.0, 0.0, 1.0),
        "broken": OutputFidelity(-math.inf, 0.0, math.inf, 0.0),
        "label": OutputFidelity(nan, nan, nan, 0.5),
    }
    figures = (
        Figure("dB", math.inf, nan, level=True),
        Figure("perplexity", 3.0, math.inf),
    )
    measurement = replace(optimized.measurement, outputs=outputs, metrics=())
    found = replace(optimized, measurement=measurement, figures=figures).document(figures=False)
    json.dumps(found, allow_nan=False)
    rows = {name: rest for name, *rest in figure_rows(found)}
    rows.pop("bytes of cache a token")
    assert rows == {
        "SQNR of output same, dB": ["", "no noise"],
        "SQNR of output broken, dB": ["", "not finite"],
        "dB": ["no noise", "not finite"],
        "perplexity": ["3", "not finite"],
    }


def test_a_place_that_is_no_folder_is_told_before_the_search(seq2seq: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file is no folder, or closed to you.*O002"):
        require_place(read_folder(seq2seq), tmp_path / "file" / "out", force=False)


def test_without_samples_it_says_what_they_hold(seq2seq: Path) -> None:
    with pytest.raises(NoSamplesError, match=r"--calibration, of input_ids: int64"):
        optimize_pipeline(seq2seq, calibration=None)


def test_the_original_is_never_written_over(optimized: PipelineResult, seq2seq: Path) -> None:
    with pytest.raises(OutputError, match="would overwrite a part of the original"):
        optimized.save(seq2seq, force=True)


def test_a_description_of_models_elsewhere_is_not_written_over(
    optimized: PipelineResult, tmp_path: Path
) -> None:
    described = tmp_path / "pipeline.toml"
    described.write_text("# mine")
    pipeline = replace(optimized.pipeline, source=str(described))
    with pytest.raises(OutputError, match=r"would overwrite the description of the original.*O001"):
        require_place(pipeline, tmp_path, force=True)


@pytest.mark.parametrize("option", ["--report", "--json"])
@pytest.mark.parametrize(
    "name", ["pipeline.toml", "head.onnx.data", "tokenizer.json", "encoder.onnx", "samples.npz"]
)
def test_a_report_takes_the_place_of_no_file_of_the_pipeline(
    tmp_path: Path, name: str, option: str
) -> None:
    write_encoder(tmp_path / "encoder.onnx")
    write_head(tmp_path / "head.onnx")
    head = onnx.load(tmp_path / "head.onnx")
    onnx.save(
        head,
        tmp_path / "head.onnx",
        save_as_external_data=True,
        location="head.onnx.data",
        size_threshold=0,
    )
    np.savez(tmp_path / "samples.npz", input_ids=CALIBRATION["input_ids"])
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "pipeline.toml").write_text(
        "".join(f"[[part]]\nname = '{n}'\nmodel = '{n}.onnx'\n" for n in ("encoder", "head"))
    )
    before = (tmp_path / name).read_bytes()
    given = ["--calibration", tmp_path / "samples.npz", "--force", option, tmp_path / name]
    done = run("optimize", tmp_path, "-o", tmp_path / "out", *given)
    assert done.exit_code == 2
    assert "O001" in message(done)
    assert (tmp_path / name).read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_replaced_with_force_alone(
    optimized: PipelineResult, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.toml").write_text("# mine")
    with pytest.raises(OutputError, match=r"pipeline.toml: exists and is no earlier result.*O004"):
        optimized.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.toml"]
    optimized.save(tmp_path, force=True)
    optimized.save(tmp_path)


def test_shared_data_of_others_is_kept(optimized: PipelineResult, tmp_path: Path) -> None:
    (tmp_path / SHARED).write_text("mine")
    with pytest.raises(OutputError, match=r"shared.data: exists and is no earlier.*O004"):
        optimized.save(tmp_path)
    assert (tmp_path / SHARED).read_text() == "mine"


def test_perplexity_is_of_what_the_samples_hold(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    pipeline = read_folder(tmp_path)
    (part,) = pipeline.parts
    assert part.loop is not None
    looped = replace(part, loop=replace(part.loop, prompt=4, steps=8))
    found = optimize_pipeline(
        replace(pipeline, parts=(looped,)),
        calibration={"input_ids": prompts(24, 12)},
        passes=["quantize"],
        threads=1,
    )
    (figure,) = [one for one in found.figures if one.name.startswith("perplexity")]
    # Tokens were drawn at random from 22.
    assert figure.original > 15
    assert figure.result == pytest.approx(figure.original, rel=0.05)


def test_the_command_writes_a_folder_and_prints_figures(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    np.savez(tmp_path / "samples.npz", input_ids=CALIBRATION["input_ids"])
    done = CliRunner().invoke(
        cli,
        [
            "optimize",
            str(tmp_path),
            "--calibration",
            str(tmp_path / "samples.npz"),
            "--passes",
            "quantize",
            "-o",
            str(tmp_path / "out"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "bytes of cache a token" in done.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.onnx", "pipeline.toml", RECIPE}


def test_the_folder_in_which_it_runs_gets_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny-v1.5"
    folder.mkdir()
    write_decoder(folder / "model.onnx")
    np.savez(folder / "samples.npz", input_ids=CALIBRATION["input_ids"])
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(
        cli,
        [
            "optimize",
            ".",
            "--calibration",
            "samples.npz",
            "--passes",
            "quantize",
            "--time-limit",
            "60",
        ],
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tiny-v1.5.opt" / "model.onnx").is_file()


def test_the_dry_run_names_files_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_encoder(tmp_path / "sub" / "encoder.onnx")
    path = tmp_path / "pipeline.toml"
    path.write_text("[[part]]\nname = 'encoder'\nmodel = 'sub/encoder.onnx'\n")
    done = CliRunner().invoke(cli, ["optimize", str(path), "--dry-run"])
    assert 'model = "sub/encoder.onnx"' in done.output


def test_the_dry_run_prints_a_description_that_can_be_read(seq2seq: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["optimize", str(seq2seq), "--dry-run"])
    assert done.exit_code == 0, done.output
    for part in read_folder(seq2seq).parts:
        (tmp_path / part.model.name).write_bytes(part.model.read_bytes())
    (tmp_path / "pipeline.toml").write_text(done.output)
    assert [part.name for part in read_folder(tmp_path).parts][-1] == "decoder_with_past"


@pytest.mark.parametrize(
    "option", [("--float16", "all"), ("--max-size", "1MB"), ("--min-speedup", "2")]
)
def test_an_option_of_one_model_is_refused(seq2seq: Path, option: tuple[str, str]) -> None:
    done = CliRunner().invoke(cli, ["optimize", str(seq2seq), *option])
    assert done.exit_code != 0
    assert "U008" in str(done.exception) + done.output
