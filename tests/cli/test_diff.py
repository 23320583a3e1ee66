"""`onnxpress diff`: exit statuses like those of diff(1), and what is printed."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import message, run
from planted import plant
from rich.cells import cell_len

from onnxpress import model_file
from onnxpress.difference.tensors import prepared


@pytest.fixture(scope="module")
def broken(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = models / "fashion_mlp.onnx"
    model = prepared(model_file.load(path), str(path))
    output = tmp_path_factory.mktemp("broken") / "broken.onnx"
    model_file.save(plant(model, "bias negated", "/fc2/Gemm_output_0").model, output)
    return output


def test_same_model_is_status_0(models: Path) -> None:
    path = models / "fashion_mlp.onnx"
    result = run("diff", path, path, "--samples", 2)
    assert result.exit_code == 0
    assert message(result).startswith(
        "the same outputs over 2 samples (random inputs): logits equal"
    )


def test_different_model_is_status_1_and_says_where_first(models: Path, broken: Path) -> None:
    result = run("diff", models / "fashion_mlp.onnx", broken, "--samples", 2)
    assert result.exit_code == 1
    lines = message(result).splitlines()
    assert lines[0].startswith("different outputs over 2 samples (random inputs): logits ")
    assert lines[1].startswith("first parting Gemm /fc2/Gemm at /fc2/Gemm_output_0:")
    assert "fc2.bias [512] differs (-6.0 dB)" in " ".join(message(result).split())


def test_line_to_paste_names_the_worst_node(models: Path, broken: Path) -> None:
    path = models / "fashion_mlp.onnx"
    result = run("diff", path, broken, "--samples", 2)
    assert f"onnxpress optimize {path} --keep /fc2/Gemm" in message(result).splitlines()


def test_all_but_the_line_to_paste_fits_80_columns(models: Path, broken: Path) -> None:
    result = run("diff", models / "fashion_mlp.onnx", broken, "--samples", 2)
    lines = [line for line in result.output.splitlines() if "--keep" not in line]
    assert all(cell_len(line) <= 80 for line in lines)


def test_json_has_the_first_parting_and_all_tensors(models: Path, broken: Path) -> None:
    result = run("diff", models / "fashion_mlp.onnx", broken, "--samples", 2, "--json", "-")
    document = json.loads(result.output)
    assert document["first"]["node"] == "/fc2/Gemm"
    assert document["first"]["before_db"] is None
    assert document["parted"] == 1
    assert {row["tensor"] for row in document["tensors"]} >= {"/fc2/Gemm_output_0", "logits"}
    assert result.exit_code == 1


def test_report_is_a_page_with_the_worst_nodes(models: Path, broken: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("diff", models / "fashion_mlp.onnx", broken, "--samples", 2, "--report", page)
    text = page.read_text()
    assert "Where the error comes in" in text
    assert "/fc2/Gemm" in text


def test_tolerance_decides_what_is_the_same(models: Path, broken: Path) -> None:
    path = models / "fashion_mlp.onnx"
    assert run("diff", path, broken, "--samples", 2, "--tolerance", -10).exit_code == 0


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"text\n" * 9, "not a complete ONNX")]
)
def test_wrong_file_is_status_2(models: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(content)
    result = run("diff", models / "fashion_mlp.onnx", wrong)
    assert result.exit_code == 2
    assert reason in message(result)


def test_data_that_does_not_fit_is_status_2(models: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, picture=np.zeros((2, 3), np.float32))
    path = models / "fashion_mlp.onnx"
    result = run("diff", path, path, "--data", data)
    assert result.exit_code == 2
    assert "missing: image" in message(result)


def test_report_into_a_missing_folder_is_refused_before_any_work(
    models: Path, tmp_path: Path
) -> None:
    path = models / "fashion_mlp.onnx"
    result = run("diff", path, path, "--report", tmp_path / "absent" / "page.html")
    assert result.exit_code == 2
    assert "does not exist" in message(result)


def test_report_over_what_is_no_page_or_is_read_is_refused(models: Path, tmp_path: Path) -> None:
    path, notes = models / "fashion_mlp.onnx", tmp_path / "notes.txt"
    notes.write_text("mine")
    result = run("diff", path, path, "--report", notes)
    assert result.exit_code == 2
    assert "choose another name" in message(result)
    assert notes.read_text() == "mine"
    data = tmp_path / "data.npz"
    data.write_bytes((models / "fashion_calibration.npz").read_bytes())
    before = data.read_bytes()
    assert run("diff", path, path, "--data", data, "--report", data).exit_code == 2
    assert data.read_bytes() == before
