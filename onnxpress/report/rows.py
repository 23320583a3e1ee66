"""The rows of the closing table, each declared once for console, HTML, JSON and benchmarks.

As `columns`: a key in the JSON document, how the figure is taken from the data, and how it is
written, here as lines of (what, original, optimized, remark). A remark says on how many samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from onnxpress import model_file
from onnxpress.report.columns import (
    Document,
    latency_document,
    measurement_document,
    sqnr_text,
    worst_output,
)
from onnxpress.report.text import (
    confidence_text,
    counted,
    decimals,
    file_name,
    megabytes,
    of_samples,
    size_in_words,
    speed_in_words,
)
from onnxpress.result import Result
from onnxpress.validation import Validation

__all__ = ["LINE_HEADINGS", "RESULT_ROWS", "VALIDATION_ROWS", "Line", "Row", "closing_lines"]

T = TypeVar("T")
_MODES = {"exact": "exact arithmetic", "x64quantprecision": "without saturation"}
"""Modes of integer kernels whose names say too little."""
LINE_HEADINGS = ("", "original", "optimized", "")
"""Over a line's cells; without one, the cell is text."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the closing table.

    Attributes:
        heading: what the figures are.
        original: of the original, as text.
        optimized: of the optimized model, as text.
        remark: how they compare, and on how many samples.
        amounts: (original, optimized), where bars can be drawn of them.
    """

    heading: str
    original: str
    optimized: str
    remark: str
    amounts: tuple[float, float] | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As a row of the table."""
        return self.heading, self.original, self.optimized, self.remark

    def __str__(self) -> str:
        figures = f"{self.original} to {self.optimized}" if self.original else self.optimized
        return f"{figures} ({self.remark})" if self.remark else figures


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """What the closing table says of one aspect of the result.

    Attributes:
        key: in the JSON document.
        heading: of the aspect, where results stand in rows (benchmarks).
        value: takes it from the data, JSON-ready.
        lines: writes it, from the document that has the key; none where nothing is known.
    """

    key: str
    heading: str
    value: Callable[[T], Any]
    lines: Callable[[Document], Iterator[Line]]


def closing_lines(document: Document | None, validation: Document | None) -> list[Line]:
    """All lines of the closing table.

    Args:
        document: of a result, or `None` where a model was only validated.
        validation: of the same, or `None` where nothing could be run.
    """
    found: list[Line] = []
    if document is not None:
        found += [line for row in RESULT_ROWS for line in row.lines(document)]
    if validation is not None:
        found += [line for row in VALIDATION_ROWS for line in row.lines(validation)]
    return found


def _size(result: Result) -> dict[str, Any]:
    size = model_file.whole_size(result.model)
    return {
        "original_bytes": result.original_bytes,
        "bytes": size,
        "ratio": result.original_bytes / size,
    }


def _size_lines(document: Document) -> Iterator[Line]:
    size = document["size"]
    if size["bytes"]:
        before, after = size["original_bytes"], size["bytes"]
        remark = size_in_words(size["ratio"])
        yield Line("size", megabytes(before), megabytes(after), remark, (before, after))


def _latency_lines(validation: Document) -> Iterator[Line]:
    latency = validation["latency"]
    if latency["speedup"] is None:
        return
    low, high = latency["quartiles"]
    before, after = latency["original_ms"], latency["ms"]
    speed = speed_in_words(latency["speedup"], (low, high))
    where = "" if validation["timed_on_target"] else ", on this CPU, not on the target"
    remark = f"{speed} (quartiles {low:.2f} to {high:.2f}), 1 sample{where}"
    yield Line("latency", f"{before:.3g} ms", f"{after:.3g} ms", remark, (before, after))


def _drop(found: Document) -> str:
    """The drop, and how much it may be by the samples' bound."""
    high = found["drop_interval"][1]
    text = f"drop {decimals(found['drop'])}"
    if high is None or found["drop"] is None:
        return text
    return f"{text} (at most {decimals(high)} with {confidence_text(found['confidence'])})"


def _default_lines(validation: Document) -> Iterator[Line]:
    found = validation["default"]
    number = counted(found["samples"], "sample")
    for metric in found["metrics"]:
        before, after = (f"{decimals(metric[key])}%" for key in ("original", "value"))
        where = f"output {metric['judged'][0]}, " if len(metric["judged"]) == 1 else ""
        yield Line(metric["metric"], before, after, f"{where}{_drop(metric)}, {number}")
    if found["outputs"]:
        name, worst = worst_output(found["outputs"])
        part = f" ({worst['worst']})" if worst["worst"] else ""
        remark = f"output {name}{part}, {number}: {file_name(found['source'])}"
        yield Line("SQNR", "", sqnr_text(worst), remark)
    for probe in found["probes"]:
        if probe["output"]:
            figure = "identical" if probe["sqnr_db"] is None else f"{probe['sqnr_db']:.1f} dB"
            remark = f"{counted(probe['runs'], 'run')}, output {probe['output']}"
            yield Line(f"  {probe['inputs']}", "", figure, remark)


def _mode_lines(validation: Document) -> Iterator[Line]:
    for mode, found in validation["modes"].items():
        number = of_samples(found["samples"], validation["default"]["samples"])
        remark = number if found["metric"] is None else f"{_drop(found)}, {number}"
        text = sqnr_text(worst_output(found["outputs"])[1]) if found["outputs"] else ""
        yield Line(f"  {_MODES.get(mode, mode)}", "", text, remark)


def _kernel_lines(validation: Document) -> Iterator[Line]:
    kernels = validation["integer_kernels"]
    if kernels:
        listed = ", ".join(f"{name} {count}" for name, count in kernels.items())
        yield Line("integer kernels", "", str(sum(kernels.values())), listed)


RESULT_ROWS: tuple[Row[Result], ...] = (Row("size", "size", _size, _size_lines),)

VALIDATION_ROWS: tuple[Row[Validation], ...] = (
    Row("latency", "latency", lambda v: latency_document(v.latency), _latency_lines),
    Row("default", "fidelity", lambda v: measurement_document(v.measurement), _default_lines),
    Row(
        "modes",
        "fidelity in other modes",
        lambda v: {name: measurement_document(found) for name, found in v.modes.items()},
        _mode_lines,
    ),
    Row("integer_kernels", "integer kernels", lambda v: dict(v.integer_kernels), _kernel_lines),
)
