"""Files whose texts are not UTF-8, which protobuf hands over as bytes."""

from pathlib import Path

import onnx
import pytest
from command_line import run

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
    graph_name (float[2] input_name) => (float[2] output_name)
    { middle_name = Relu (input_name)  output_name = Neg (middle_name) }"""


def damaged(path: Path, name: str) -> Path:
    model = onnx.parser.parse_model(TEXT)
    model.graph.node[0].name, model.graph.node[0].doc_string = "node_name", "node_text"
    model.producer_name, model.producer_version = "producer_name", "producer_text"
    model.doc_string, model.domain = "model_text", "domain_name"
    content = model.SerializeToString()
    assert name.encode() in content
    path.write_bytes(content.replace(name.encode(), b"\xff" + name.encode()[1:]))
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("graph_name", "node_name", "node_text"),
        *("producer_name", "producer_text", "model_text", "domain_name"),
    ],
)
def test_text_that_nothing_depends_on_is_mended(tmp_path: Path, name: str) -> None:
    path, output = damaged(tmp_path / "in.onnx", name), tmp_path / "out.onnx"
    result = run("simplify", path, "-o", output)
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(output, full_check=True)


@pytest.mark.parametrize("name", ["input_name", "middle_name", "output_name"])
@pytest.mark.parametrize("command", ["simplify", "inspect"])
def test_tensor_name_that_is_no_text_is_refused(tmp_path: Path, name: str, command: str) -> None:
    path = damaged(tmp_path / "in.onnx", name)
    output = () if command == "inspect" else ("-o", tmp_path / "out.onnx")
    result = run(command, path, *output)
    assert result.exit_code == 2
    assert "the name of a tensor is not UTF-8" in " ".join(result.output.split())
