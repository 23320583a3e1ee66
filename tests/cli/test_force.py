"""An output that is there is replaced where it is an earlier result, or with --force."""

import shutil
from pathlib import Path
from typing import Self

import onnx
import pytest
from command_line import run

from onnxpress.own_files import STAMP, was_written_by_us


@pytest.fixture
def mlp(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(models / "fashion_mlp.onnx", tmp_path / "mlp.onnx"))


@pytest.mark.parametrize("content", [b"", b"notes of mine", b"\x08", b"\xff" * 40, "a model"])
def test_a_file_of_others_is_left_and_said_before_any_work(mlp: Path, content: bytes | str) -> None:
    out = mlp.with_name("out.onnx")
    out.write_bytes(mlp.read_bytes() if isinstance(content, str) else content)
    before = out.read_bytes()
    result = run("quantize", mlp, "-o", out)
    assert result.exit_code == 2
    assert result.output.startswith("error[O004]: ")
    assert "--force" in result.output
    assert out.read_bytes() == before


def test_force_replaces_it(mlp: Path) -> None:
    out = mlp.with_name("out.onnx")
    out.write_bytes(b"notes of mine")
    assert run("quantize", mlp, "-o", out, "--force").exit_code == 0
    assert was_written_by_us(out)


def test_an_earlier_result_is_replaced_and_that_is_said(mlp: Path) -> None:
    out = mlp.with_name("out.onnx")
    first = run("quantize", mlp, "-o", out).output
    again = run("quantize", mlp, "-o", out)
    assert again.exit_code == 0
    assert "in place of the one that was there" in again.output
    assert "in place of" not in first


@pytest.mark.parametrize(
    ("name", "content", "replaced"),
    [
        ("r.json", b'{"a": 1}', True),
        ("r.json", b"[1, 2]", False),
        ("r.json", b"", False),
        ("r.html", b"<!DOCTYPE html><html></html>", True),
        ("r.html", b"my notes", False),
    ],
)
def test_reports_replace_reports_alone(
    mlp: Path, name: str, content: bytes, *, replaced: bool
) -> None:
    report = mlp.with_name(name)
    report.write_bytes(content)
    option = "--json" if name.endswith("json") else "--report"
    result = run("quantize", mlp, option, report)
    assert result.exit_code == (0 if replaced else 2)
    assert (report.read_bytes() == content) is not replaced


@pytest.mark.parametrize("command", ["inspect", "data"])
def test_findings_replace_findings_alone(command: str, mlp: Path, models: Path) -> None:
    out = mlp.with_name("found.txt")
    data = [models / "fashion_calibration.npz"] if command == "data" else []
    assert run(command, mlp, *data, "--json", out).exit_code == 0
    assert run(command, mlp, *data, "--json", out).exit_code == 0
    out.write_text("my notes")
    refused = run(command, mlp, *data, "--json", out)
    assert refused.output.startswith("error[O004]: ")
    assert "--force" not in refused.output
    assert out.read_text() == "my notes"


def test_a_recipe_that_a_person_wrote_is_kept_even_so(mlp: Path) -> None:
    recipe = mlp.with_name("out.recipe.toml")
    recipe.write_text("mine = 1\n")
    result = run("quantize", mlp, "-o", mlp.with_name("out.onnx"), "--force")
    assert result.output.startswith("error[O003]: ")
    assert recipe.read_text() == "mine = 1\n"


def test_a_model_is_known_by_its_metadata_without_reading_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.ModelProto(ir_version=8)
    model.graph.doc_string = "x" * 5_000_000
    model.metadata_props.add(key="author", value="y" * 70_000)
    model.metadata_props.add(key=STAMP, value="1")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    read: list[int] = []
    opened = path.open("rb")
    assert was_written_by_us(path)

    class Counting:
        def seek(self, *place: int) -> int:
            return opened.seek(*place)

        def tell(self) -> int:
            return opened.tell()

        def read(self, number: int) -> bytes:
            read.append(number)
            return opened.read(number)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None:
            opened.close()

    monkeypatch.setattr(Path, "open", lambda *_: Counting())
    assert was_written_by_us(path)
    assert sum(read) < 1000


def test_a_truncated_model_is_not_ours(mlp: Path) -> None:
    out = mlp.with_name("out.onnx")
    run("quantize", mlp, "-o", out)
    content = out.read_bytes()
    for part in (0.1, 0.5, 0.9):
        out.write_bytes(content[: int(part * len(content))])
        assert not was_written_by_us(out)
