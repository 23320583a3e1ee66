"""The columns of every table, each declared once for console, HTML, JSON and benchmarks.

A column says under which key the JSON document has a figure, how it is taken from the data, and
how people read it. Text is made from the row as JSON has it, so that a stored document can be
shown again. To add a column, add it to its list here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from onnxpress.codes import split
from onnxpress.contract import Decision, Skip
from onnxpress.judge import Measurement, MetricFigure, OutputFidelity
from onnxpress.providers import ProviderVerdict
from onnxpress.runtime import Latency
from onnxpress.search import Cost

__all__ = [
    "COST_COLUMNS",
    "DECISION_COLUMNS",
    "OUTPUT_COLUMNS",
    "PROVIDER_COLUMNS",
    "SKIP_COLUMNS",
    "Column",
    "Document",
    "Tone",
    "as_document",
    "cells",
    "latency_document",
    "measurement_document",
    "metric_document",
    "notes",
    "number_or_none",
    "output_rows",
    "shown",
    "sqnr_text",
    "worst_output",
]

T = TypeVar("T")
Document = Mapping[str, Any]
"""Plain data that JSON can hold."""
Tone = Literal["", "good", "bad", "note"]


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One figure of every row of a table.

    Attributes:
        key: in the JSON document.
        heading: of the tables; empty where only JSON has the figure.
        value: takes it from the data, JSON-ready; `None` where the row's place in the document
            says it already (an output's name).
        text: writes it, from the row as JSON has it; `None`: the value as it is.
        number: whether it is aligned to the right.
        tone: how it is coloured, from the row.
    """

    key: str
    heading: str
    value: Callable[[T], Any] | None
    text: Callable[[Document], str] | None = None
    number: bool = True
    tone: Callable[[Document], Tone] | None = None

    def write(self, row: Document) -> str:
        """The cell's text."""
        if self.text is not None:
            return self.text(row)
        value = row[self.key]
        return "" if value is None else str(value)


def as_document(columns: Sequence[Column[T]], item: T) -> dict[str, Any]:
    """A row as JSON has it."""
    return {column.key: column.value(item) for column in columns if column.value is not None}


def shown(columns: Sequence[Column[T]], rows: Sequence[Document]) -> list[Column[T]]:
    """The columns a table needs: those with a heading that say something in one row at least."""
    return [
        column for column in columns if column.heading and any(column.write(row) for row in rows)
    ]


def cells(columns: Sequence[Column[T]], row: Document) -> list[str]:
    """A row as text."""
    return [column.write(row) for column in columns]


def number_or_none(value: float | None) -> float | None:
    """The value; `None` for what JSON cannot say (infinite, not a number)."""
    return None if value is None or not math.isfinite(value) else float(value)


def latency_document(latency: Latency) -> dict[str, Any]:
    """A latency as JSON has it."""
    return {
        "original_ms": number_or_none(latency.reference_ms),
        "ms": number_or_none(latency.median_ms),
        "speedup": number_or_none(latency.speedup),
        "quartiles": [number_or_none(latency.low), number_or_none(latency.high)],
    }


_METRIC_KEYS = ("metric", "judged", "original", "value", "drop", "drop_interval", "confidence")


def metric_document(figure: MetricFigure) -> dict[str, Any]:
    """A metric as JSON has it; each end of the interval holds with the confidence."""
    found = (
        figure.name,
        list(figure.outputs),
        number_or_none(figure.reference),
        number_or_none(figure.value),
        number_or_none(figure.drop),
        [number_or_none(end) for end in figure.interval],
        figure.confidence,
    )
    return dict(zip(_METRIC_KEYS, found, strict=True))


def measurement_document(found: Measurement) -> dict[str, Any]:
    """A measurement as JSON has it."""
    worst = found.worst_metric
    return {
        "samples": found.samples,
        "source": found.source,
        **(dict.fromkeys(_METRIC_KEYS) if worst is None else metric_document(worst)),
        "metrics": [metric_document(figure) for figure in found.metrics],
        "worst_sqnr_db": number_or_none(found.worst_sqnr_db),
        "probes": [
            {
                "inputs": probe.name,
                "output": probe.output,
                "sqnr_db": number_or_none(probe.sqnr_db),
                "least_db": number_or_none(probe.least_db),
                "runs": probe.number,
            }
            for probe in found.probes
        ],
        "outputs": {
            name: as_document(OUTPUT_COLUMNS, output) for name, output in found.outputs.items()
        },
    }


def _identical(output: OutputFidelity) -> bool:
    return output.sqnr_db == math.inf or output.equal_share == 1.0


def sqnr_text(output: Document) -> str:
    """An output's SQNR from its document; what else is known where that is no number."""
    if output["sqnr_db"] is not None:
        return f"{output['sqnr_db']:.1f} dB"
    if output["identical"]:
        return "identical"
    is_float = output["cosine"] is not None
    return "-inf dB" if is_float else f"{output['equal_share']:.1%} equal"


def worst_output(outputs: Mapping[str, Document]) -> tuple[str, Document]:
    """The output that lost most, by name; of those without SQNR, one that is not identical."""

    def order(item: tuple[str, Document]) -> float:
        decibels = item[1]["sqnr_db"]
        if decibels is not None:
            return float(decibels)
        return math.inf if item[1]["identical"] else -math.inf

    return min(outputs.items(), key=order)


def output_rows(validation: Document) -> list[dict[str, Any]]:
    """The rows of the outputs' table: every output under every choice of options."""
    measured = {"default": validation["default"], **validation["modes"]}
    return [
        {"options": options, "output": name, "samples": found["samples"], **output}
        for options, found in measured.items()
        for name, output in found["outputs"].items()
    ]


def _digits(key: str, form: str) -> Callable[[Document], str]:
    return lambda row: "" if row[key] is None else format(row[key], form)


OUTPUT_COLUMNS: tuple[Column[OutputFidelity], ...] = (
    Column("options", "options", None, number=False),
    Column("output", "output", None, number=False),
    Column("samples", "samples", None, lambda row: f"{row['samples']:,}"),
    Column("sqnr_db", "SQNR", lambda o: number_or_none(o.sqnr_db), sqnr_text),
    Column("worst", "worst slices", lambda o: o.worst, number=False),
    Column(
        "whole_db", "of the whole", lambda o: number_or_none(o.whole_db), _digits("whole_db", ".1f")
    ),
    Column("identical", "", _identical),
    Column("cosine", "cosine", lambda o: number_or_none(o.cosine), _digits("cosine", ".6f")),
    Column(
        "max_error",
        "largest error",
        lambda o: number_or_none(o.max_error),
        _digits("max_error", ".3g"),
    ),
    Column("equal_share", "equal elements", lambda o: o.equal_share, _digits("equal_share", ".1%")),
)


def _placement(verdict: ProviderVerdict) -> dict[str, Any] | None:
    found = verdict.placement
    if found is None:
        return None
    return {
        "nodes": found.nodes,
        "placed": found.placed,
        "multiply_add_share": found.multiply_add_share,
        "partitions": found.partitions,
        "left": dict(found.left),
    }


def _placed_text(row: Document) -> str:
    return "" if row["placement"] is None else f"{row['placement']['multiply_add_share']:.0%}"


def _worst_text(row: Document) -> str:
    found = row["measurement"]
    if found is None or not found["outputs"]:
        return ""
    return sqnr_text(worst_output(found["outputs"])[1])


def _exact_text(row: Document) -> str:
    if row["measurement"] is None:
        return ""
    return "identical" if row["exact_sqnr_db"] is None else f"{row['exact_sqnr_db']:.1f} dB"


def _kernels_text(row: Document) -> str:
    """How many; `?` where a provider ran and does not let them be seen."""
    if row["integer_kernels"] is None:
        return "" if row["measurement"] is None else "?"
    return str(sum(row["integer_kernels"].values()))


def _speed_text(row: Document) -> str:
    found = row["latency"]
    return "" if found is None or found["speedup"] is None else f"{found['speedup']:.2f}x"


def _status_tone(row: Document) -> Tone:
    if row["counts"]:
        return "good"
    return "bad" if row["status"] == "failed" else "note"


PROVIDER_COLUMNS: tuple[Column[ProviderVerdict], ...] = (
    Column("provider", "provider", lambda v: v.provider, number=False),
    Column("status", "verdict", lambda v: str(v.status), number=False, tone=_status_tone),
    Column("detail", "", lambda v: v.detail),
    Column("counts", "", lambda v: v.counts),
    Column("versions", "", lambda v: dict(v.versions)),
    Column("placement", "placed", _placement, _placed_text),
    Column(
        "samples",
        "samples",
        lambda v: None if v.measurement is None else v.measurement.samples,
    ),
    Column(
        "measurement",
        "SQNR",
        lambda v: None if v.measurement is None else measurement_document(v.measurement),
        _worst_text,
    ),
    Column(
        "identical",
        "",
        lambda v: (
            v.measurement is not None and all(map(_identical, v.measurement.outputs.values()))
        ),
    ),
    Column(
        "exact_sqnr_db", "SQNR to exact", lambda v: number_or_none(v.exact_sqnr_db), _exact_text
    ),
    Column("floor_db", "", lambda v: number_or_none(v.floor_db)),
    Column(
        "integer_kernels",
        "integer kernels",
        lambda v: None if v.integer_kernels is None else dict(v.integer_kernels),
        _kernels_text,
    ),
    Column(
        "latency",
        "speed",
        lambda v: None if v.latency is None else latency_document(v.latency),
        _speed_text,
    ),
    Column("warnings", "", lambda v: list(v.warnings)),
    Column("advice", "", lambda v: list(v.advice)),
    Column("seconds", "", lambda v: v.seconds),
)


def notes(row: Document) -> list[str]:
    """The sentences that stand below a provider's row."""
    lines: Iterable[str] = (row["detail"], *row["warnings"], *row["advice"])
    return [line for line in lines if line]


def _count(key: str) -> Callable[[Document], str]:
    return lambda row: f"{row[key]:,.0f}" if row[key] else ""


DECISION_COLUMNS: tuple[Column[Decision], ...] = (
    Column("site", "site", lambda d: d.site, number=False),
    Column("family", "form", lambda d: d.candidate.family, number=False),
    Column(
        "predicted_error",
        "predicted error",
        lambda d: number_or_none(d.candidate.predicted_error),
        lambda row: (
            "" if row["predicted_error"] is None else f"{100 * row['predicted_error']:.3g}%"
        ),
    ),
    Column("saved_bytes", "bytes saved", lambda d: d.candidate.saved_bytes, _count("saved_bytes")),
    Column(
        "saved_multiply_adds",
        "multiply-adds saved",
        lambda d: d.candidate.saved_multiply_adds,
        _count("saved_multiply_adds"),
    ),
    Column(
        "zeroed_weights",
        "weights zeroed",
        lambda d: d.candidate.zeroed_weights,
        _count("zeroed_weights"),
    ),
    Column(
        "refined",
        "refined",
        lambda d: d.candidate.refined,
        lambda row: "yes" if row["refined"] else "",
        number=False,
    ),
    Column(
        "members",
        "layers",
        lambda d: list(d.candidate.members),
        lambda row: ", ".join(row["members"]),
        number=False,
    ),
    Column(
        "parameters",
        "parameters",
        lambda d: dict(d.candidate.parameters),
        lambda row: ", ".join(f"{key} = {value}" for key, value in row["parameters"].items()),
        number=False,
    ),
)

COST_COLUMNS: tuple[Column[Cost], ...] = (
    Column("site", "site", lambda c: c.site, number=False),
    Column("sqnr_db", "SQNR", lambda c: number_or_none(c.sqnr_db), _digits("sqnr_db", ".1f")),
    Column(
        "restored_sqnr_db",
        "SQNR without it",
        lambda c: number_or_none(c.restored_sqnr_db),
        _digits("restored_sqnr_db", ".1f"),
    ),
    Column("keep", "", lambda c: c.keep),
)

SKIP_COLUMNS: tuple[Column[Skip], ...] = (
    Column("site", "site", lambda s: s.site, number=False),
    Column("code", "code", lambda s: split(s.reason)[1] or None, number=False),
    Column("reason", "reason", lambda s: split(s.reason)[0], number=False),
)
