"""What passes could save of a run: predicted, labelled, and without running anything."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from command_line import run
from costs_of import keys_of, mlp, row_of

from onnxpress import registry
from onnxpress.costs import ModelTime, load_table, model_digest, save_table, this_machine
from onnxpress.costs.store import table_path
from onnxpress.gains import Saving, predicted_times
from onnxpress.lossless import simplified
from onnxpress.model_file import load
from onnxpress.report.outlook import in_ms, time_words
from onnxpress.targets import load_target


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRESS_CACHE", str(tmp_path / "cache"))


def measured(microseconds: list[float], whole: float | None = None) -> None:
    """Put a table of `mlp` on the disk, as if this machine had measured it."""
    keys = keys_of(mlp())
    table = load_table(this_machine(1))
    table.add(row_of(*pair) for pair in zip(keys, microseconds, strict=True))
    if whole is not None:
        table.models[model_digest(keys)] = ModelTime(whole, sum(microseconds), {"x": (1, 64)})
    save_table(table)


def test_layers_take_the_time_of_their_nodes_and_sites_save_their_share() -> None:
    measured([64.0, 4.0, 16.0])
    times = predicted_times(mlp(), threads=1)
    assert times.basis == "measured on this machine"
    assert times.layers == pytest.approx({"w": 0.064, "v": 0.016})
    assert times.layers_ms(["w", "v", "nothing"]) == pytest.approx(0.080)
    assert times.saved_ms([Saving(("w",), 0.5), Saving(("v",), 0.0)]) == pytest.approx(0.032)
    told = times.document([0.042])
    assert told["original_ms"] == pytest.approx(0.084)
    assert told["predicted_ms"] == pytest.approx(0.042)
    assert (told["sizes"], told["sizes_assumed"]) == ({"N": 1}, True)


def test_other_kernels_save_what_integers_are_faster_by() -> None:
    measured([64.0, 4.0, 16.0])
    times = predicted_times(mlp(), threads=1)
    share = 1 - times.prediction.rates.products / times.prediction.rates.integers
    assert times.saved_ms([Saving(("w",), None)]) == pytest.approx(share * 0.064)


def test_a_model_that_was_measured_itself_takes_that_and_its_layers_their_part() -> None:
    measured([64.0, 4.0, 16.0], whole=168.0)
    times = predicted_times(mlp(), threads=1)
    assert times.ms == pytest.approx(0.168)
    assert times.layers_ms(["w"]) == pytest.approx(0.128)
    clocked = predicted_times(mlp(), threads=1, clocked=0.84)
    assert clocked.layers_ms(["w"]) == pytest.approx(0.64)


def test_without_a_table_it_is_an_estimate() -> None:
    times = predicted_times(mlp(), threads=1)
    assert times.basis == "estimate"
    assert times.ms > 0


def test_nothing_is_run_and_no_session_is_opened(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target("cpu")
    passes, _ = registry.default_passes()
    model = simplified(load(models / "fashion_cnn.onnx"), passes, target)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(ort, "InferenceSession", refused)
    assert predicted_times(model).ms > 0


def test_inspect_tells_milliseconds_beside_bytes(models: Path) -> None:
    document = json.loads(run("inspect", models / "fashion_cnn.onnx", "--json", "-").output)
    told = document["latency"]
    assert told["basis"] == "estimate"
    assert told["shares"]["estimate"] == pytest.approx(1.0)
    passes = {entry["pass"]: entry for entry in document["passes"]}
    # Weights that are expanded when the model is loaded are computed with as before.
    assert passes["quantize"]["saved_ms"] == 0.0
    opened = passes["quantize"]["opened_by_samples"]
    assert 0.5 * told["original_ms"] < opened["layers_ms"] <= told["original_ms"]
    shown = " ".join(run("inspect", models / "fashion_cnn.onnx").output.split())
    assert "batch = 1 assumed (estimate)" in shown


def test_a_damaged_table_is_told_by_inspect(models: Path, tmp_path: Path) -> None:
    path = table_path(this_machine())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    result = run("inspect", models / "fashion_mlp.onnx", "--json", "-")
    assert result.exit_code == 0
    assert any(problem.endswith("[W021]") for problem in json.loads(result.output)["problems"])


def test_a_target_that_is_not_timed_here_has_no_times(models: Path) -> None:
    args = ("inspect", models / "fashion_mlp.onnx", "--target", "xnnpack", "--json", "-")
    document = json.loads(run(*args).output)
    assert document["latency"] is None
    assert {entry["saved_ms"] for entry in document["passes"]} == {None}


def test_a_dry_run_tells_what_is_predicted_of_the_time_that_it_measured(models: Path) -> None:
    data = models / "fashion_calibration.npz"
    args = ("optimize", models / "fashion_mlp.onnx", "--calibration", data, "--dry-run")
    told = json.loads(run(*args, "--json", "-").output)["latency"]
    assert 0 < told["predicted_ms"] <= told["original_ms"]
    assert told["prediction"]["basis"] == "measured on this machine"
    assert told["prediction"]["sizes_assumed"] is False


def test_times_are_told_in_words() -> None:
    assert [in_ms(value) for value in (0.0, 0.1234, 12.34, 1234.5)] == [
        "0 ms",
        "0.12 ms",
        "12 ms",
        "1,234 ms",
    ]
    told = {
        "original_ms": 2.0,
        "predicted_ms": 1.0,
        "threads": 1,
        "sizes": {"N": 1},
        "sizes_assumed": True,
        "basis": "estimate",
    }
    assert time_words(told) == (
        "about 2 ms a run, 1 ms with all of that, with 1 thread and N = 1 assumed (estimate)"
    )
