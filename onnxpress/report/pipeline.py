"""The page of a pipeline, made of the document that `--json` writes (`pipeline.schema.json`).

What is said of one part alone is what `schema.json` describes, under `report`.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxpress.output_file import replace_file
from onnxpress.report.columns import Column, Document
from onnxpress.report.depth import depth_charts
from onnxpress.report.headline import verdict as part_verdict
from onnxpress.report.html import layers_table, stage_tables, titled
from onnxpress.report.layer_columns import FORM_COLUMNS
from onnxpress.report.rendering import rendered
from onnxpress.report.rows import Line
from onnxpress.report.several import SEVERAL_COLUMNS
from onnxpress.report.tables import Cell, Table, TableRow, table_of
from onnxpress.report.text import decimals, megabytes, size_in_words, stage_summary

__all__ = ["FIGURE_HEADINGS", "PIPELINE_PART_COLUMNS", "figure_rows", "write_pipeline"]

_ALONE = ("speedup", "drop", "level")
"""Columns of several models that say something of a part."""
_WHOLE = 1000.0
"""From here on decimals of a figure say nothing."""
FIGURE_HEADINGS = ("on unseen samples", "original", "result")


PIPELINE_PART_COLUMNS: tuple[Column[Any], ...] = (
    Column("name", "part", None, number=False),
    Column("original_bytes", "from", None, lambda row: megabytes(row["original_bytes"])),
    Column("bytes", "to", None, lambda row: megabytes(row["bytes"])),
    Column("ratio", "times smaller", None, lambda r: f"{r['original_bytes'] / r['bytes']:.2f}"),
    *(column for column in SEVERAL_COLUMNS if column.key in _ALONE),
    Column(
        "spent",
        "budget spent so far",
        None,
        lambda row: "" if row["spent"] is None else f"{row['spent']:.0%}",
    ),
    Column(
        "optimized",
        "became",
        None,
        lambda row: "optimized" if row["optimized"] else "as it was",
        number=False,
    ),
)
"""Of rows that are parts of the document."""


def figure_rows(found: Document) -> list[tuple[str, str, str]]:
    """Metrics, outputs and what else was counted, under `FIGURE_HEADINGS`."""
    lines = [
        (f"{one['name']}, %", decimals(one["original"]), decimals(one["value"]))
        for one in found["metrics"]
    ]
    lines += [
        (f"SQNR of output {name}, dB", "", level if isinstance(level, str) else f"{level:.1f}")
        for name, level in found["outputs"].items()
    ]
    for one in found["figures"]:
        first, second = (_short(one[key]) for key in ("original", "result"))
        lines.append((one["name"], first, second))
    cache = found["cache_bytes"]
    if cache["original"]:
        line = "bytes of cache a token", f"{cache['original']:,}", f"{cache['result']:,}"
        lines.append(line)
    return lines


def _short(figure: float | str) -> str:
    if isinstance(figure, str):
        return figure
    return f"{figure:,.0f}" if abs(figure) >= _WHOLE else f"{figure:.4g}"


def write_pipeline(found: Document, path: Path) -> None:
    """Write a document of `PipelineResult.document` as a page, whole or not at all."""
    tone, sentence = _verdict(found)
    page = rendered(
        "pipeline.html.j2",
        found=found,
        tone=tone,
        verdict=sentence,
        key_figures=_key_figures(found),
        parts=table_of(PIPELINE_PART_COLUMNS, found["parts"]),
        figures=_figures(found),
        details=[_detail(part) for part in found["parts"] if part["report"] is not None],
        description=found["description"].splitlines(),
        recipe=found["recipe"].splitlines(),
    )
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _verdict(found: Document) -> tuple[str, str]:
    if not found["within_budget"]:
        return "bad", f"Not met: {'; '.join(found['problems'])}."
    gained = size_in_words(found["size"]["original_bytes"] / found["size"]["bytes"])
    return "good", f"Within the budget: {gained}; {found['verdict']}."


def _key_figures(found: Document) -> list[Line]:
    size = found["size"]["original_bytes"], found["size"]["bytes"]
    lines = [_line("all files", size, megabytes, size_in_words(size[0] / size[1]))]
    for metric in found["metrics"][:1]:
        value, drop = f"{metric['value']:.2f}%", f"{metric['drop']:.2f} points down"
        lines.append(Line(metric["name"], "", value, drop))
    for one in found["figures"]:
        pair = one["original"], one["result"]
        numbers = not any(isinstance(figure, str) for figure in pair)
        if one["name"].endswith("a second") and numbers and pair[0]:
            words = f"{pair[1] / pair[0]:.2f} times as many"
            lines.append(_line(one["name"], pair, _short, words))
    cache = found["cache_bytes"]["original"], found["cache_bytes"]["result"]
    if cache[0]:
        words = size_in_words(cache[0] / cache[1])
        lines.append(_line("cache of a token", cache, "{:,} bytes".format, words))
    return lines


def _line(
    heading: str, pair: tuple[float, float], text: Callable[[float], str], remark: str
) -> Line:
    return Line(heading, text(pair[0]), text(pair[1]), remark, pair)


def _figures(found: Document) -> Table:
    styles = ("", "number", "number")
    return Table(
        tuple(map(Cell, FIGURE_HEADINGS, styles)),
        tuple(TableRow(tuple(map(Cell, line, styles))) for line in figure_rows(found)),
    )


def _detail(part: Document) -> dict[str, Any]:
    """What the page says of one part alone."""
    report = part["report"]
    tone, sentence = part_verdict(report)
    stages = report["stages"]
    return {
        "name": part["name"],
        "tone": tone,
        "verdict": sentence,
        "warnings": list(dict.fromkeys(itertools.chain(report["warnings"], _warned(report)))),
        "depth": titled(depth_charts(report["layers"])),
        "forms": table_of(FORM_COLUMNS, report["forms"]) if report["forms"] else None,
        "layers": layers_table(report["layers"]),
        "stages": [(stage, stage_summary(stage), stage_tables(stage)) for stage in stages],
    }


def _warned(report: Document) -> list[str]:
    return [] if report["validation"] is None else list(report["validation"]["warnings"])
