"""Results made of the data classes alone; nothing is optimized or run."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from onnxpress.contract import Candidate, Decision, Pass, Skip
from onnxpress.judge import Measurement, MetricFigure, OutputFidelity
from onnxpress.output_file import FileSet
from onnxpress.providers import ProviderVerdict
from onnxpress.providers.verdicts import Placement, Status
from onnxpress.recipe import Recipe
from onnxpress.report.console import print_result, print_validation
from onnxpress.report.document import document, validation_document
from onnxpress.report.html import write_html
from onnxpress.report.printing import console_for
from onnxpress.result import Result
from onnxpress.runtime import Latency
from onnxpress.search import Cost
from onnxpress.stage_result import StageResult
from onnxpress.validation import Validation


def model_of(floats: int) -> ir.Model:
    """A graph that only has one weight."""
    weight = ir.tensor(np.zeros(floats, np.float32), name="weight")
    value = ir.Value(name="weight", const_value=weight)
    graph = ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 17}, name="g")
    return ir.Model(graph, ir_version=9)


def measurement(*names: str, samples: int = 2000, drop: float = 0.85) -> Measurement:
    outputs = {output: OutputFidelity(24.5, 0.998, 0.25, 0.0) for output in names}
    lost = round(samples * drop / 100)
    rows = np.ones((samples, 3))
    rows[:lost, 0] = 0
    figure = MetricFigure("accuracy", names[:1], 91.0, 91.0 + drop, rows=rows, samples=samples)
    return Measurement(outputs, (figure,), samples, "images")


def decision(site: str, saved_bytes: int = 1000, **fields: Any) -> Decision:
    return Decision(site, Candidate({"rank": 8}, 0.02, saved_bytes, family="static", **fields))


def stage(
    name: str,
    model: ir.Model,
    decisions: Sequence[Decision] = (),
    left: Sequence[Skip] = (),
    note: str = "",
) -> StageResult:
    pass_ = cast("Pass", SimpleNamespace(name=name))
    return StageResult(pass_, model, tuple(decisions), tuple(left), note)


def verdict(name: str, text: str = "", *, speedup: float = 1.2) -> ProviderVerdict:
    return ProviderVerdict(
        name,
        Status.RAN,
        detail=text,
        placement=Placement(40, 30, 0.987, 2, {"Erf": 3}),
        measurement=measurement("logits", samples=64),
        exact_sqnr_db=math.inf,
        latency=Latency(10.0, 10.0 * speedup, speedup, speedup - 0.1, speedup + 0.1),
        integer_kernels={"QLinearConv": 12},
        warnings=(text,) if text else (),
        seconds=123.25,
    )


def make_result(
    *,
    name: str = "logits",
    outputs: Sequence[str] = (),
    speedup: float = 1.31,
    ratio: float = 3.0,
    stages: Sequence[StageResult] | None = None,
    providers: Sequence[ProviderVerdict] | None = None,
) -> Result:
    """A result in which everything that has a name is called `name`.

    Args:
        name: of outputs, sites, passes, providers, sentences and files.
        outputs: instead of one.
        speedup: original time / time.
        ratio: original bytes / bytes, nearly.
        stages: instead of one that changed something and one that did not.
        providers: instead of one.
    """
    model = model_of(25_000)
    if stages is None:
        left = [Skip(name, f"its reason is {name}"), Skip("other", "too small")]
        stages = [
            stage(name, model_of(75_000)),
            replace(
                stage(name, model, [decision(name, members=(name, name))], left, note=name),
                costliest=(Cost(name, name, 20.0, 22.1, name), Cost(name, name, 20.0, math.inf)),
            ),
        ]
    latency = Latency(10.0, 10.0 * speedup, speedup, speedup - 0.05, speedup + 0.05)
    validation = Validation(
        within_budget=True,
        budget=f"{name} drop at most 1 points",
        measurement=measurement(*(outputs or [name])),
        modes={"exact": measurement(name, samples=250, drop=1.6)},
        latency=latency,
        integer_kernels={name: 12_345_678},
        warnings=(name,),
        providers=tuple([verdict(name, name)] if providers is None else providers),
    )
    return Result(
        model=model,
        recipe=Recipe((), "cpu", 0, None, None),
        stages=tuple(stages),
        validation=validation,
        within_budget=True,
        problems=(name,),
        original_bytes=round(ratio * 100_000),
        source=name,
        seconds=12.3,
    )


def printed(found: Result) -> str:
    """What the console says of a result."""
    stream = io.StringIO()
    print_result(document(found), written=[], console=console_for(stream))
    return stream.getvalue()


def printed_validation(found: Result) -> str:
    """What the console says of a result's validation, as `validate` does."""
    stream = io.StringIO()
    assert found.validation is not None
    print_validation(validation_document(found.validation), console_for(stream))
    return stream.getvalue()


def page(found: Result, folder: Path) -> str:
    """The HTML page of a result."""
    path = folder / "report.html"
    with FileSet() as files:
        write_html(document(found), path, files)
    return path.read_text(encoding="utf-8")
