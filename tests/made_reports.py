"""Results that have everything a report can show; nothing is optimized or run."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from made_results import make_result, page, stage

from onnxpress.contract import Candidate, Decision, Skip
from onnxpress.judge import Answer, Disagreement, Heard
from onnxpress.output_file import FileSet
from onnxpress.report.columns import Document
from onnxpress.report.document import document
from onnxpress.report.html import write_html
from onnxpress.result import Result
from onnxpress.runtime.profile import OperatorTime
from onnxpress.search import TriedModel
from onnxpress.statistics import ActivationGrid

__all__ = ["HOSTILE", "chain", "large_document", "large_page", "rich_page", "rich_result"]

HOSTILE = (
    "</script><script>document.title='taken over'</script>",
    '"><img src=x onerror="document.title=\'taken over\'">',
    "'{{ 7 * 7 }}' & <b>bold</b>",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "a/very/long/name." * 40,
    "x" * 600,
    "line\nbreak\ttab \x1b[31mred\x07",
)
"""Names as nobody would give them, but a file may hold them."""


def constant(name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """An initializer."""
    tensor = ir.tensor(array, name=name)
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=kind)


def chain(names: Sequence[str], *, side: int = 8, integers: bool = False) -> ir.Model:
    """MatMuls in a row, a weight each; or with the integers that quantization would leave."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    first = ir.Value(name="x", shape=ir.Shape([1, side]), type=kind)
    value, nodes, constants = first, [], []
    rng = np.random.default_rng(0)
    for index, name in enumerate(names):
        array = rng.standard_normal((side, side)).astype(np.float32)
        taken = [constant(name, array)]
        if integers:
            small = np.round(array / 0.3).astype(np.int8)
            scale = np.full(side, 0.3, np.float32)
            taken = [constant(f"{name}_quantized", small), constant(f"{name}_scale", scale)]
            nodes.append(ir.node("DequantizeLinear", taken, {"axis": 1}))
        weight = nodes[-1].outputs[0] if integers else taken[0]
        constants += taken
        nodes.append(ir.node("MatMul", [value, weight], name=f"node {index}"))
        value = nodes[-1].outputs[0]
        value.name, value.shape, value.type = f"y{index}", first.shape, kind
    opsets = {"": 17}
    graph = ir.Graph(
        [first], [value], nodes=nodes, initializers=constants, opset_imports=opsets, name="g"
    )
    return ir.Model(graph, ir_version=9)


def rich_result(
    names: Sequence[str] = ("first", "second", "third"), *, name: str = "logits"
) -> Result:
    """A result of a search over layers of these names.

    Args:
        names: of the layers' weights.
        name: of everything else.
    """
    before, after = chain(names), chain(names, integers=True)
    decided = [
        Decision(
            layer,
            Candidate(
                {"rank": 3, "removed": "0,2-3", "kept": 5},
                0.01 / (1 + place),
                128,
                family="pair",
                pass_name=name,
            ),
        )
        for place, layer in enumerate(names[:-1])
    ]
    stages = [
        stage("simplify", before),
        stage(name, after, decided, [Skip(names[-1], f"too small, says {name}")]),
    ]
    tried = tuple(
        TriedModel(
            name,
            {f"{name} pair": place + 1},
            100 * (place + 1),
            10.0**power,
            power <= 0,
            64,
            0.5,
            20.0,
        )
        for place, power in enumerate((-2, -1, 0, 1, 9))
    )
    picture = np.linspace(0, 1, 3 * 16 * 16, dtype=np.float32).reshape(1, 3, 16, 16)
    answers = (Answer(name, "class 1 (90%)", f"class 2 ({name})"),)
    feeds = ({name: picture}, {name: np.arange(20)[None], "text": np.array([name], object)})
    tone = np.sin(np.arange(4000, dtype=np.float32) / 3)[None]
    sound = Disagreement(
        9, 0.0, 0.1, None, answers, {name: tone}, {name: 8000}, (Heard(name, 8000, tone, tone / 2),)
    )
    return replace(
        make_result(name=name, stages=stages),
        model=after,
        tried=tried,
        spent=0.4,
        operators=(OperatorTime(name, (3, 4), (1.5, 0.25), (0.75, 0.5)),),
        activations=(ActivationGrid(name, -1.0, 2.0, (3, 9, 4), 8, 0.1, -0.5, 2.5, 0.01, 1e-3),),
        compared=64,
        disagreements=(
            *(
                Disagreement(3 + place, float(place == 0), 0.1, 4, answers, feed)
                for place, feed in enumerate(feeds)
            ),
            sound,
        ),
    )


def rich_page(folder: Path, names: Sequence[str] = ("first", "second", "third")) -> Path:
    """The page of such a result."""
    page(rich_result(names), folder)
    return folder / "report.html"


@cache
def large_document() -> Document:
    """The document of a model of 10,000 layers, which takes a while to make."""
    return document(rich_result([f"encoder/layer {number}/weight" for number in range(10_000)]))


def large_page(folder: Path) -> Path:
    """Its page."""
    path = folder / "large.html"
    with FileSet() as files:
        write_html(large_document(), path, files)
    return path
