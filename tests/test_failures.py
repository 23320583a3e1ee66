"""What users get wrong: one message that says what and what to do, and no traceback."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import message, run

from onnxpress import model_file


def test_missing_model_is_named(tmp_path: Path) -> None:
    result = run("optimize", tmp_path / "absent.onnx")
    assert result.exit_code == 2
    assert "absent.onnx: there is no such file" in message(result)


def test_folder_instead_of_model_is_refused(tmp_path: Path) -> None:
    result = run("optimize", tmp_path)
    assert result.exit_code == 2
    assert "folder" in message(result)


@pytest.mark.parametrize("content", [b"", b"this is text, not a model\n" * 50, b"\x00\x01\x02"])
def test_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    result = run("optimize", path)
    assert result.exit_code == 2
    assert "model.onnx: " in message(result)
    assert not list(tmp_path.glob("*.opt.onnx"))


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_truncated_model_is_refused(tmp_path: Path, models: Path, share: float) -> None:
    whole = (models / "fashion_mlp.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    result = run("optimize", path)
    assert result.exit_code == 2
    assert "model.onnx: " in message(result)


def test_model_without_its_external_data_is_refused(tmp_path: Path, linear_model: Path) -> None:
    model_file.save(model_file.load(linear_model), tmp_path / "split.onnx", external_data=True)
    for data in tmp_path.glob("split.onnx.*.data"):
        data.unlink()
    result = run("optimize", tmp_path / "split.onnx")
    assert result.exit_code == 2
    assert "external data" in message(result)


def image(number: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((number, 1, 28, 28), np.float32)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"picture": image()}, "not an input: picture"),
        ({"image": image()[:, :, :27]}, "has shape [4, 1, 27, 28]"),
        ({"image": image()[:, 0]}, "expected [samples, ...]"),
        ({"image": image().astype(np.float64)}, "astype('float32')"),
        ({"image": np.where(np.arange(28) == 3, np.nan, image()).astype(np.float32)}, "NaN"),
        ({"image": image(0)}, "holds no samples"),
        ({}, "holds no array"),
        ({"image": image(), "__labels__": np.arange(3)}, "one integer class per sample, [4]"),
        ({"image": image(), "__labels__": np.arange(4) + 90}, "labels up to 9"),
    ],
)
def test_npz_that_does_not_fit_is_refused(
    tmp_path: Path, models: Path, arrays: dict[str, np.ndarray], expected: str
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)  # type: ignore[arg-type]
    output = tmp_path / "out.onnx"
    result = run("optimize", models / "fashion_mlp.onnx", "--evaluation", data, "-o", output)
    assert result.exit_code == 2
    assert expected in message(result)
    assert str(data) in message(result)
    assert not output.exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_broken_npz_is_refused(tmp_path: Path, models: Path, content: bytes) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(content)
    result = run(
        "optimize", models / "fashion_mlp.onnx", "--calibration", data, "-o", tmp_path / "o.onnx"
    )
    assert result.exit_code == 2
    assert "data.npz" in message(result)


def test_too_few_samples_to_hold_some_out_is_said(tmp_path: Path, models: Path) -> None:
    data = tmp_path / "two.npz"
    np.savez(data, image=image(2))
    result = run("optimize", models / "fashion_mlp.onnx", "--calibration", data)
    assert result.exit_code == 2
    assert "at least 3" in message(result)


def test_missing_output_folder_is_said_before_any_work(tmp_path: Path, models: Path) -> None:
    result = run("optimize", models / "fashion_mlp.onnx", "-o", tmp_path / "absent" / "out.onnx")
    assert result.exit_code == 2
    assert "does not exist" in message(result)


def test_input_is_never_the_output(linear_model: Path) -> None:
    before = linear_model.read_bytes()
    result = run("optimize", linear_model, "-o", linear_model)
    assert result.exit_code == 2
    assert "never overwritten" in message(result)
    assert linear_model.read_bytes() == before


def test_model_that_onnxruntime_cannot_load_is_refused(tmp_path: Path, linear_model: Path) -> None:
    model = onnx.load(linear_model)
    # Valid for the checker's rules on structure, but the product has no shape.
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros((3, 5), np.float32), "weight")
    )
    path = tmp_path / "bad.onnx"
    onnx.save(model, path)
    result = run("optimize", path)
    assert result.exit_code == 2
    assert "onnxruntime" in message(result)


def test_custom_operator_is_kept_and_reported(tmp_path: Path, linear_model: Path) -> None:
    model = onnx.load(linear_model)
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(onnx.helper.make_node("Identity", ["h"], ["i"]))
    model.graph.node.append(onnx.helper.make_node("Mystery", ["i"], ["y"], domain="com.acme"))
    model.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    path, output = tmp_path / "custom.onnx", tmp_path / "out.onnx"
    onnx.save(model, path)
    result = run("optimize", path, "-o", output)
    assert result.exit_code == 1
    assert "com.acme::Mystery" in result.output
    assert [node.op_type for node in onnx.load(output).graph.node] == ["Gemm", "Mystery"]


def test_budget_that_cannot_be_met_leaves_a_simplified_model(
    tmp_path: Path,
    models: Path,
    small_data: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "severe.py").write_text(
        "def metric(outputs, original, label):\n    return float(outputs is original)\n"
    )
    monkeypatch.chdir(tmp_path)
    output, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run(
        *("optimize", models / "fashion_cnn.onnx", "--calibration", small_data[0]),
        *("--evaluation", small_data[1], "--metric", "severe:metric"),
        *("--passes", "quantize", "-o", output, "--json", report),
    )
    assert result.exit_code == 1
    assert "the budget does not hold" in " ".join(result.output.split())
    operators = {node.op_type for node in onnx.load(output).graph.node}
    assert "BatchNormalization" not in operators
    assert "DequantizeLinear" not in operators
    assert json.loads(report.read_text())["within_budget"] is False


def test_pass_asked_for_by_name_without_effect_is_exit_status_1(
    tmp_path: Path, models: Path
) -> None:
    result = run("factorize", models / "fashion_mlp.onnx", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 1
    assert "changed nothing" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimise"], "did you mean 'optimize'"),
        (["optimize", "{model}", "--calibraton", "x"], "--calibration"),
        (["optimize", "{model}", "--passes", "qantize"], "did you mean 'quantize'"),
        (["optimize", "{model}", "--target", "phone"], "there is no target 'phone'"),
        (["optimize", "{model}", "--max-drop", "-3"], "expected a percentage"),
        (["optimize", "{model}", "--metric", "acuracy"], "there are: auto, accuracy"),
        (["optimize", "{model}", "--max-drop", "1"], "needs a task metric"),
        (["optimize", "{model}", "--metric", "accuracy"], "needs labels"),
        (["optimize", "{model}", "--calibration", "absent.npz"], "absent.npz"),
        (["optimize", "{model}", "--calibration", "absent:function"], "module:function"),
        (["optimize", "{model}", "--recipe", "absent.toml"], "absent.toml"),
        (
            ["sparsify", "{model}", "--sparsity", "1.5"],
            "sparsity is 1.5; expected a number above 0, below 1",
        ),
        (["factorize", "{model}", "--rank", "-1"], "rank is -1; expected a whole number at least"),
        (["factorize", "{model}", "--energy", "1.2"], "energy is 1.2; expected a number above 0"),
        (["factorize", "{model}", "--rank", "4", "--ratio", "0.5"], "exclude each other"),
        (["factorize", "{model}", "--weighting", "svd"], "'outputs', 'inputs', 'weights'"),
        (["sparsify", "{model}", "--pattern", "4:2"], "N below M"),
        (["sparsify", "{model}", "--layers", "wieght"], "did you mean 'weight'"),
        (["pack", "{model}", "--least-gain", "2"], "least_gain is 2.0; expected a number at least"),
        (["quantize", "{model}", "--form", "int3"], "'auto', 'static', 'dynamic', 'weight_only'"),
        (["quantize", "{model}", "--layout", "u4s4"], "'auto', 'u8s8'"),
        (["quantize", "{model}", "--ranges", "max"], "'mse', 'minmax'"),
    ],
)
def test_mistyped_arguments_are_named(
    tmp_path: Path, linear_model: Path, arguments: list[str], expected: str
) -> None:
    result = run(*(argument.format(model=linear_model) for argument in arguments))
    assert result.exit_code == 2
    assert expected in message(result)
    assert not list(tmp_path.glob("*.opt.onnx"))
