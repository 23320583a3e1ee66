"""Names from a file are shown, and obeyed by neither terminal nor markup."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run

HOSTILE = "\x1b[2J\x1b]0;t\x07a\rb\x9b1mc\u202ed\n[/x][bold]"


@pytest.fixture(params=["known", "custom"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model all of whose names hold what a terminal obeys, with an operator of its own or not."""
    make, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    last = (
        make("Relu", ["h"], [f"y{HOSTILE}"], name=HOSTILE)
        if request.param == "known"
        else make(f"[/x]{HOSTILE}", ["h"], [f"y{HOSTILE}"], domain="a[/b]", name=HOSTILE)
    )
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [make("Gemm", [f"x{HOSTILE}", f"w{HOSTILE}"], ["h"], name=f"g{HOSTILE}"), last],
        HOSTILE,
        [info(f"x{HOSTILE}", kind, [f"n{HOSTILE}", 64])],
        [info(f"y{HOSTILE}", kind, [None, 64])],
        [onnx.numpy_helper.from_array(weight, f"w{HOSTILE}")],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("a[/b]", 1)]
    path = tmp_path / "hostile.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{model}"],
        ["optimize", "{model}", "--goal", "size"],
        ["targets", "check", "{model}", "--target", "qnn"],
        ["targets", "check", "{model}", "--target", "cpu"],
        ["optimize", "{model}", "--fix-shape", "q=3"],
        ["optimize", "{model}", "--keep", "absent"],
        ["optimize", "{model}", "--calibration", "absent.npz"],
        ["optimize", "{model}", "--calibration", "{folder}/data.npz"],
        ["validate", "{model}", "--reference", "{model}"],
    ],
    ids=" ".join,
)
def test_what_a_terminal_obeys_is_never_printed(
    hostile: Path, tmp_path: Path, arguments: list[str]
) -> None:
    data: dict[str, Any] = {f"z{HOSTILE[:-1]}": np.zeros((4, 3), np.float32)}
    np.savez(tmp_path / "data.npz", **data)
    result = run(*(word.format(model=hostile, folder=tmp_path) for word in arguments))
    assert result.exit_code in (0, 1, 2), result.output
    assert "Traceback" not in result.output
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output)
