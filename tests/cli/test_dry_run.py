"""`optimize --dry-run` says what would be tried, measures nothing and writes nothing."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from command_line import run
from onnx import TensorProto, helper

from onnxpress.constraints import Constraints


@pytest.fixture
def cnn(models: Path, tmp_path: Path) -> Path:
    """A model alone in its folder."""
    return Path(shutil.copy(models / "fashion_cnn.onnx", tmp_path / "cnn.onnx"))


def test_nothing_is_written_and_what_would_be_is_named(cnn: Path) -> None:
    result = run("optimize", cnn, "--dry-run")
    assert result.exit_code == 0
    assert [path.name for path in cnn.parent.iterdir()] == ["cnn.onnx"]
    assert "cnn.opt.onnx" in "".join(result.output.split())
    assert "cnn.opt.recipe.toml" in "".join(result.output.split())


def test_what_is_not_measured_is_not_given(cnn: Path, models: Path) -> None:
    data = models / "fashion_calibration.npz"
    document = json.loads(
        run("optimize", cnn, "--calibration", data, "--dry-run", "--json", "-").output
    )
    assert document["dry_run"] is True
    assert document["latency"]["speedup"] is None
    assert document["latency"]["original_ms"] > 0
    assert document["loss"] is None
    assert document["samples"] == {"observed": 128, "choosing": 64, "judging": 64, "apart": True}
    assert document["size"]["original_bytes"] == cnn.stat().st_size
    assert document["size"]["predicted_bytes"] < cnn.stat().st_size / 3
    assert [entry["pass"] for entry in document["order"]] == [
        "simplify",
        "prune",
        "factorize",
        "quantize",
        "pack",
    ]


def test_json_goes_into_a_file_that_is_asked_for(cnn: Path, tmp_path: Path) -> None:
    run("optimize", cnn, "--dry-run", "--json", tmp_path / "tried.json")
    assert json.loads((tmp_path / "tried.json").read_text())["dry_run"] is True


def test_kept_layers_are_no_sites(cnn: Path) -> None:
    def sites(*options: str) -> int:
        output = run("quantize", cnn, "--dry-run", "--json", "-", *options).output
        (entry,) = json.loads(output)["passes"]
        return int(entry["sites"])

    assert sites("--keep", "stage3*") < sites()


def test_a_pass_that_is_named_is_no_longer_by_name_only(cnn: Path) -> None:
    output = run("sparsify", cnn, "--dry-run").output
    assert "sparsify" in output
    assert "only when it is named" not in output


def test_wrong_options_are_refused_as_in_a_real_run(cnn: Path) -> None:
    refused = run("optimize", cnn, "--dry-run", "--keep", "stage9.nothing")
    assert refused.exit_code == 2
    assert "error[U001]" in refused.output


def test_a_recipe_has_nothing_to_try(cnn: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("")
    refused = run("optimize", cnn, "--dry-run", "--recipe", recipe)
    assert refused.exit_code == 2
    assert "error[U008]" in refused.output


def test_a_model_that_cannot_be_run_without_samples_is_not_timed(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    path = tmp_path / "strings.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    document = json.loads(run("optimize", path, "--dry-run", "--json", "-").output)
    assert document["latency"]["original_ms"] is None


def expected(cnn: Path, *options: object) -> dict[str, object]:
    output = run("optimize", cnn, "--dry-run", "--json", "-", *options).output
    return {entry["name"]: entry["reached"] for entry in json.loads(output)["constraints"]}


def test_a_dry_run_says_which_constraints_the_predictions_reach(cnn: Path) -> None:
    assert expected(cnn) == {}
    reached = {"size": True, "latency": True}
    assert expected(cnn, "--max-size", "1MB", "--max-latency", "10s") == reached
    # Samples open pruning, which no prediction has.
    open_ = {"size": None, "speedup": None}
    assert expected(cnn, "--max-size", "0.1MB", "--min-speedup", "50") == open_


def test_what_is_predicted_whole_and_falls_short_is_not_reached() -> None:
    wanted = Constraints(max_size=1000, min_speedup=2.0, max_latency=3.0)
    found = wanted.expectations(1001, 6.0, 3.1, whole=True)
    assert [one.reached for one in found] == [False, False, False]
    found = wanted.expectations(1000, 6.0, 3.0, whole=True)
    assert [one.reached for one in found] == [True, True, True]
    found = wanted.expectations(1000, 6.0, None, whole=True)
    assert [one.reached for one in found] == [True, None, None]


def test_the_console_labels_what_is_predicted_of_a_constraint(cnn: Path) -> None:
    lines = " ".join(run("optimize", cnn, "--dry-run", "--max-size", "1MB").output.split())
    assert "asked size: at most 1,000,000 bytes; about 7" in lines
    assert "predicted: reached, if the budget allows all of that" in lines
    lines = " ".join(run("optimize", cnn, "--dry-run", "--max-size", "0.1MB").output.split())
    assert "only a search can tell" in lines
