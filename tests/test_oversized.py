"""Models above the memory budget: no session of the whole, the same bytes, and it is said."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from large_models import small_decoder, without_sessions_of

import onnxpress
from onnxpress import inspection, model_file
from onnxpress.contract import Pass
from onnxpress.errors import UsageError
from onnxpress.inspection import inspect_model
from onnxpress.needed_memory import needed_bytes
from onnxpress.passes.factorize import Factorize
from onnxpress.passes.pack import Pack
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.simplify import Simplify
from onnxpress.report.document import document
from onnxpress.runtime import Session

PASSES: dict[str, Pass] = {
    "simplify": Simplify(),
    "pack": Pack(),
    "quantize": Quantize(form="weight_only"),
    "prune": Prune(ratio=0.8),
    "factorize": Factorize(ratio=0.9),
}
SMALL = "1MB"


def _feed(session: Session, length: int = 3, past: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for item in session.inputs:
        if item.name.startswith("past"):
            sizes = [dim if isinstance(dim, int) else 1 for dim in item.shape]
            sizes[2] = past
            made[item.name] = rng.standard_normal(sizes).astype(item.dtype)
        elif item.name == "attention_mask":
            made[item.name] = np.ones((1, past + length), np.int64)
        else:
            made[item.name] = np.arange(past, past + length)[None]
    return made


def _without_origin(path: Path) -> bytes:
    proto = onnx.load(path)
    del proto.metadata_props[:]
    return bytes(proto.SerializeToString(deterministic=True))


@pytest.mark.parametrize("kind", ["float", "half"])
@pytest.mark.parametrize("name", PASSES)
def test_above_the_budget_a_pass_acts_without_a_session_of_the_whole(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_decoder(tmp_path / "given", float16=kind == "half")
    with without_sessions_of(path, monkeypatch) as opened:
        result = onnxpress.optimize(path, passes=[PASSES[name]], max_memory="0.1MB")
        written = result.save(tmp_path / "out.onnx")[0]
    assert opened
    found = document(result)
    assert "nothing was run and compared" in found["warnings"][0]
    assert "--max-memory" in found["warnings"][0]
    session, given = Session(written), Session(path)
    feed = _feed(given)
    first, second = given.run(feed), session.run(feed)
    assert {n: a.shape for n, a in first.items()} == {n: a.shape for n, a in second.items()}
    if name in ("simplify", "pack"):
        wanted, found_logits = (np.asarray(run["logits"], np.float64) for run in (first, second))
        np.testing.assert_allclose(found_logits, wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["quantize", "prune", "factorize"])
def test_what_a_named_pass_costs_is_said_to_be_unknown(name: str, tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given", hidden=128, mlp=320)
    result = onnxpress.optimize(path, passes=[PASSES[name]], max_memory=SMALL)
    assert any(stage.decisions for stage in result.stages if stage.pass_.name == name)
    said = [w for w in document(result)["warnings"] if "of the weights alone it changes" in w]
    assert len(said) == 1
    assert f"what {name} costs at the outputs is not known" in said[0]
    assert result.within_budget


@pytest.mark.parametrize("name", ["simplify", "pack", "quantize"])
def test_the_budget_changes_no_bytes(name: str, tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given")
    for place, most in (("whole", "1GB"), ("limited", SMALL)):
        result = onnxpress.optimize(path, passes=[PASSES[name]], max_memory=most)
        assert (result.validation is None) == (place == "limited")
        result.save(tmp_path / f"{place}.onnx")
    assert _without_origin(tmp_path / "whole.onnx") == _without_origin(tmp_path / "limited.onnx")


def test_without_a_name_nothing_is_lost_and_a_budget_cannot_be_promised(tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given")
    result = onnxpress.optimize(path, max_memory=SMALL)
    assert all(not stage.decisions for stage in result.stages if stage.pass_.stage.loses)
    asked = onnxpress.optimize(path, passes=["quantize"], min_sqnr=30, max_memory=SMALL)
    assert not asked.within_budget
    assert "cannot be judged" in asked.problems[0]
    with pytest.raises(UsageError, match="--float16 needs runs of the model"):
        onnxpress.optimize(path, float16="all", max_memory=SMALL)


def test_a_recipe_is_repeated_above_the_budget(tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given")
    first = onnxpress.optimize(path, passes=[PASSES["quantize"]], max_memory=SMALL)
    again = onnxpress.optimize(path, recipe=first.recipe, max_memory=SMALL)
    assert model_file.to_bytes(again.model) == model_file.to_bytes(first.model)


def test_a_layer_larger_than_the_budget_is_left_and_it_is_said(tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given", vocabulary=1024)
    result = onnxpress.optimize(path, passes=[PASSES["quantize"]], max_memory="500kB")
    (stage,) = [stage for stage in result.stages if stage.pass_.name == "quantize"]
    left = {skip.site: skip.reason for skip in stage.left}
    assert "takes more memory to work on" in left["lm_head.weight"]
    assert "takes more memory to work on" in left["embed_tokens.weight"]
    assert stage.decisions
    assert "lm_head.weight" in result.model.graph.initializers


def test_inspect_reads_no_large_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_decoder(tmp_path / "given")
    usual = inspect_model(path)
    monkeypatch.setattr(inspection, "_READ_BYTES", 0)
    with without_sessions_of(path, monkeypatch) as opened:
        found = inspect_model(path)
    assert opened
    assert found["layers"] == usual["layers"]
    assert found["names"] == usual["names"]
    assert any("were not read" in problem for problem in found["problems"])
    sites = {entry["pass"]: entry["sites"] for entry in found["passes"]}
    assert sites["quantize"] == {e["pass"]: e["sites"] for e in usual["passes"]}["quantize"]


def test_inspect_runs_no_samples_on_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_decoder(tmp_path / "given")
    np.savez(tmp_path / "data.npz", **_feed(Session(path)))  # type: ignore[arg-type] # arrays
    monkeypatch.setattr(inspection, "memory_budget", lambda _: 1000)
    monkeypatch.setattr(inspection, "_READ_BYTES", 0)
    with without_sessions_of(path, monkeypatch):
        found = inspect_model(path, data=tmp_path / "data.npz")
    assert any("the samples were not run" in problem for problem in found["problems"])
    assert found["readings"]


def test_half_precision_needs_what_single_needs(tmp_path: Path) -> None:
    single = model_file.load(small_decoder(tmp_path / "single"))
    half = model_file.load(small_decoder(tmp_path / "half", float16=True))
    assert model_file.weight_bytes(half) < 0.6 * model_file.weight_bytes(single)
    assert needed_bytes(half) == pytest.approx(needed_bytes(single), rel=0.01)


def test_a_disk_that_fills_while_spilling_is_one_sentence(tmp_path: Path) -> None:
    path = small_decoder(tmp_path / "given", hidden=256, vocabulary=1024)
    scratch, output = tmp_path / "scratch", tmp_path / "out.onnx"
    scratch.mkdir()
    output.write_bytes(b"good")

    def limited() -> None:
        # Of a file; the system then refuses to write on, as where the disk is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    words = ["quantize", str(path), "--form", "weight_only", "--max-memory", "3MB", "--force", "-o"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxpress", *words, str(output)],
        preexec_fn=limited,
        env=os.environ | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{scratch}: a temporary file cannot be written there" in done.stderr
    assert "TMPDIR" in done.stderr
    assert output.read_bytes() == b"good"
    assert not list(scratch.iterdir())
