"""Files that a command writes, and documents for machines."""

import json
from pathlib import Path

import pytest
from command_line import run

from onnxpress.cli.outputs import Outputs
from onnxpress.errors import UsageError


def test_files_of_a_target_carry_its_name_before_the_suffix() -> None:
    outputs = Outputs(Path("m.opt.onnx"), Path("r.html"), "r.json", external_data=False)
    assert outputs.of_target("cpu") == Outputs(
        Path("m.opt.cpu.onnx"), Path("r.cpu.html"), "r.cpu.json", external_data=False
    )


def test_several_documents_do_not_fit_on_standard_output() -> None:
    with pytest.raises(UsageError, match="give --json a file name"):
        Outputs(Path("m.onnx"), None, "-", external_data=False).of_target("cpu")


def test_no_pass_named_is_refused(linear_model: Path) -> None:
    result = run("optimize", linear_model, "--passes", " , ")
    assert result.exit_code == 2
    assert "--passes names none" in result.output


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["inspect", "{model}"], "operators"),
        (["validate", "{model}", "--reference", "{model}"], "within_budget"),
        (["targets"], "cpu"),
        (["targets", "show", "cpu"], "name"),
        (["targets", "check", "{model}", "--target", "cpu"], "cpu"),
        (["optimize", "{model}", "--passes", "simplify", "-o", "{out}"], "recipe"),
    ],
)
def test_standard_output_holds_json_and_nothing_else(
    tmp_path: Path, linear_model: Path, arguments: list[str], key: str
) -> None:
    out = tmp_path / "out.onnx"
    filled = [argument.format(model=linear_model, out=out) for argument in arguments]
    result = run(*filled, "--json", "-")
    assert result.exit_code in (0, 1), result.output
    assert key in json.loads(result.stdout)


def test_json_file_is_written_beside_the_table(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    result = run("targets", "--json", path)
    assert "cpu" in result.output
    assert "cpu" in json.loads(path.read_text())
