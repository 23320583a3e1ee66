"""The report as one HTML file that needs nothing else and is let do nothing else.

Tables, charts, style and script are inside it; its content security policy allows that script by
its digest and no connection. Needs the extra `report` (jinja2), imported when used.
"""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.output_file import FileSet, replace_file
from onnxpress.report import columns, difference, rows
from onnxpress.report.columns import Document
from onnxpress.report.depth import Strip, depth_charts
from onnxpress.report.frontier import frontiers
from onnxpress.report.headline import budget, key_figures, readings, verdict
from onnxpress.report.layer_columns import FORM_COLUMNS, LAYER_COLUMNS, TRIED_COLUMNS, percent
from onnxpress.report.regions import regions
from onnxpress.report.rendering import rendered
from onnxpress.report.small_charts import (
    activation_charts,
    histogram_charts,
    masks,
    spectrum_charts,
)
from onnxpress.report.tables import Cell, Table, TableRow, table_of
from onnxpress.report.text import costly_layers, counted, stage_summary

__all__ = [
    "layers_table",
    "require_html",
    "stage_tables",
    "titled",
    "write_difference",
    "write_html",
]

_OPERATORS = 12
_LAYER_ROWS = 1000
"""Of the layers' table; a page with ten thousand takes a second to open."""


@dataclass(frozen=True, slots=True)
class _Bars:
    """Bars of one unit: (label, share of the longest in percent, figure)."""

    title: str
    bars: tuple[tuple[str, float, str], ...]


def require_html(what: str = "--report") -> None:
    """Refuse before any work when the extra is not installed.

    Args:
        what: needs it.

    Raises:
        UsageError: jinja2 is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError(
            f"{what} needs jinja2: install it with pip install 'onnxpress[report]'"
            + (", or use --json [U007]" if what == "--report" else " [U007]")
        )


def write_html(report: Document, path: Path, files: FileSet) -> None:
    """Write a report as `document` makes it, as one of a set of files."""
    validation = report["validation"]
    tone, sentence = verdict(report)
    shown_masks, masks_left = masks(report["stages"])
    page = rendered(
        "report.html.j2",
        report=report,
        tone=tone,
        verdict=sentence,
        key_figures=key_figures(report),
        warnings=[*([] if validation is None else validation["warnings"]), *report["warnings"]],
        budget=budget(validation),
        readings=readings(validation),
        closing=_closing(report),
        outputs=_outputs(validation),
        providers=_providers(validation),
        frontiers=frontiers(report),
        tried=_tried(report),
        differing=_differing(report),
        differing_words=_differing_words(report),
        depth=titled(depth_charts(report["layers"])),
        layers=layers_table(report["layers"]),
        forms=table_of(FORM_COLUMNS, report["forms"]) if report["forms"] else None,
        histograms=histogram_charts(report["histograms"]),
        activations=activation_charts(report["activations"]),
        spectra=spectrum_charts(report["spectra"]),
        masks=shown_masks,
        masks_left=masks_left,
        operators=_operators(report["operators"]),
        regions=regions(report["regions"]),
        stages=[(stage, stage_summary(stage), stage_tables(stage)) for stage in report["stages"]],
        costly=costly_layers(report["stages"]),
        recipe=report["recipe"].splitlines(),
    )
    with files.stage(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def write_difference(found: Document, path: str | Path) -> None:
    """Write what tells two models apart, whole or not at all."""
    parted = found["worst"]
    amounts = [min(row["adds"] or 1.0, 1.0) for row in parted]
    figures = [difference.decibels(row["adds"], row["adds_db"]) for row in parted]
    title = "Noise over signal that comes in at a tensor, of the worst; shorter is better"
    page = rendered(
        "difference.html.j2",
        found=found,
        verdict=difference.verdict(found),
        first=difference.first_in_words(found),
        keep=difference.line_to_paste(found),
        remarks=difference.remarks(found),
        worst=table_of(difference.PARTING_COLUMNS, parted) if parted else None,
        bars=_bars(title, [row["node"] for row in parted], amounts, figures) if parted else None,
        outputs=table_of(difference.OUTPUT_COLUMNS, found["outputs"]),
        weights=table_of(difference.WEIGHT_COLUMNS, found["weights"]["changed"])
        if found["weights"]["changed"]
        else None,
        tensors=table_of(
            difference.TENSOR_COLUMNS,
            found["tensors"],
            f"all {len(found['tensors'])} tensors",
            most=_LAYER_ROWS,
        ),
    )
    with replace_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _closing(report: Document) -> Table:
    styles = ["number" if heading else "" for heading in rows.LINE_HEADINGS]
    return Table(
        tuple(map(Cell, ("figure", *rows.LINE_HEADINGS[1:-1], "remark"), styles)),
        tuple(
            TableRow(tuple(map(Cell, line.cells, styles)))
            for line in rows.closing_lines(report, report["validation"])
        ),
    )


def _bars(
    title: str, labels: Sequence[str], amounts: Sequence[float], figures: Sequence[str]
) -> _Bars:
    longest = max(amounts) or 1.0
    shares = [round(100 * amount / longest, 2) for amount in amounts]
    return _Bars(title, tuple(zip(labels, shares, figures, strict=True)))


def _outputs(validation: Document | None) -> Table | None:
    if validation is None:
        return None
    return table_of(columns.OUTPUT_COLUMNS, columns.output_rows(validation))


def _providers(validation: Document | None) -> Table | None:
    if validation is None or not validation["providers"]:
        return None
    verdicts = validation["providers"]
    found = table_of(columns.PROVIDER_COLUMNS, verdicts)
    noted = (
        TableRow(row.cells, tuple(columns.notes(verdict)))
        for row, verdict in zip(found.rows, verdicts, strict=True)
    )
    return replace(found, rows=tuple(noted))


def _tried(report: Document) -> Table:
    numbered = [{"number": place, **one} for place, one in enumerate(report["tried"], 1)]
    summary = f"all {counted(len(numbered), 'model')} as a table"
    if report["tried_in_all"] > len(numbered):
        summary = f"the first {len(numbered):,} of {report['tried_in_all']:,} models as a table"
    return table_of(TRIED_COLUMNS, numbered, summary, most=_LAYER_ROWS, searchable=True)


def _operators(found: Sequence[Document]) -> Table | None:
    """Where the time goes, those that take most first."""
    if not found:
        return None
    pairs = ((what, f"{what}, optimized") for what in ("nodes", "ms", "share"))
    headings = ("operator", *itertools.chain(*pairs))
    styles = ["", *("number",) * 6]
    rows_ = [
        (
            one["operator"],
            *(f"{number:,}" for number in one["nodes"]),
            *(f"{ms:.3g}" if ms else "" for ms in one["ms"]),
            *(f"{100 * share:.1f}%" if share else "" for share in one["shares"]),
        )
        for one in found[:_OPERATORS]
    ]
    rest = f"{len(found) - _OPERATORS:,} more take less." if len(found) > _OPERATORS else ""
    return Table(
        tuple(map(Cell, headings, styles)),
        tuple(TableRow(tuple(map(Cell, row, styles))) for row in rows_),
        rest=rest,
    )


def _differing(report: Document) -> list[dict[str, Any]]:
    return [
        {
            **one,
            "said": [(a["output"], a["original"], a["optimized"]) for a in one["answers"]],
            "players": [
                (f"{sound['output']}, {which}", sound[which])
                for sound in one["heard"]
                for which in ("original", "optimized")
            ],
            "noise": "another shape, or values that are not finite"
            if one["error"] is None
            else f"error {percent(one['error'])} of the output's power",
        }
        for one in report["disagreements"]
    ]


def _differing_words(report: Document) -> str:
    changed = sum(one["lost"] > 0 for one in report["disagreements"])
    looked = counted(report["compared"], "sample")
    found = len(report["disagreements"])
    first = (
        f"Looked for in {looked} that no choice has seen; a sample's number is its place in the "
        "data, which begin with 0."
    )
    if not changed:
        return f"{first} No answer changes; these lie furthest apart."
    return f"{first} Of the {found} that differ most, {changed} change their answer."


def titled(strips: Sequence[Strip]) -> list[tuple[str, list[Strip]]]:
    """Strips of one title, which are one chart in two widths, together."""
    ordered = sorted(strips, key=lambda strip: strip.title, reverse=True)
    grouped = itertools.groupby(ordered, lambda strip: strip.title)
    return [(title, list(group)) for title, group in grouped]


def layers_table(found: Sequence[Document]) -> Table | None:
    """Every layer, or the largest; nothing without any."""
    if not found:
        return None
    shown = found
    if len(found) > _LAYER_ROWS:
        largest = sorted(range(len(found)), key=lambda i: -found[i]["bytes_before"])[:_LAYER_ROWS]
        shown = [found[index] for index in sorted(largest)]
    table = table_of(LAYER_COLUMNS, shown, most=_LAYER_ROWS, searchable=True)
    if len(found) == len(shown):
        return table
    rest = (
        f"These are the {len(shown):,} largest of {len(found):,} layers; "
        "the JSON document (--json) has all of them."
    )
    return replace(table, rest=rest)


def stage_tables(stage: Document) -> list[Table]:
    """What was decided and what was left."""
    decisions, left = stage["decisions"], stage["left"]
    tables = []
    if decisions:
        summary = (
            f"{counted(len(decisions), 'decision')}, {counted(stage['tried'], 'model')} measured"
        )
        tables.append(table_of(columns.DECISION_COLUMNS, decisions, summary))
    if left:
        summary = f"{counted(len(left), 'site')} left alone or treated less"
        tables.append(table_of(columns.SKIP_COLUMNS, left, summary))
    return tables
