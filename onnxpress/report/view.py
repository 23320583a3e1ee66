"""The page of `onnxpress view`: one or two graphs, drawn by a script from the document in it."""

from typing import Any

from onnxpress.report.columns import Document
from onnxpress.report.rendering import data_block, rendered
from onnxpress.report.tables import Cell, Table, TableRow
from onnxpress.report.text import counted, file_name

__all__ = ["view_page", "view_summary"]

_ROWS = 300
"""Of the table of what changed, which is there for those who do not see the drawing."""
_LISTED = 200
_HEADINGS = ("node", "operator", "what")


def view_page(found: Document) -> str:
    """The page of a document as `onnxpress.drawing.viewing` makes it."""
    sources = [model["source"] for model in found["models"]]
    return rendered(
        "view.html.j2",
        styles=("page.css", "view.css"),
        scripts=("view_places.js", "view_drawing.js", "view_page.js"),
        title=" and ".join(file_name(source) for source in sources),
        sources=[file_name(source) for source in sources],
        summary=view_summary(found),
        notes=found["notes"],
        changed=_changed(found),
        data=data_block(found),
    )


def view_summary(found: Document) -> str:
    """What there is to see, in a sentence or two."""
    models, counts, measured = found["models"], found["changes"], found["measured"]
    if counts is None:
        return f"{counted(models[0]['nodes'], 'node')}, without those that compute constants."
    text = (
        f"{counted(counts['same'], 'node')} the same in both, {counts['changed']:,} changed, "
        f"{counts['removed']:,} removed, {counts['added']:,} added."
    )
    if measured is not None and measured["samples"]:
        samples = counted(measured["samples"], "sample")
        text += f" Errors of tensors are over {samples} ({file_name(measured['data'])})."
    return text


def _changed(found: Document) -> Table | None:
    rows = [
        (box["name"] or box["op"], box["op"], box["status"] + _why(box))
        for side, model in enumerate(found["models"])
        for graph in model["graphs"]
        for box in graph["boxes"]
        if box["status"] not in (None, "same") and not (side == 1 and box["other"])
    ]
    if not rows:
        return None
    return Table(
        tuple(Cell(heading) for heading in _HEADINGS),
        tuple(TableRow(tuple(map(Cell, row))) for row in rows[:_ROWS]),
        counted(len(rows), "node"),
        f"The first {_ROWS} of {len(rows):,} are shown." if len(rows) > _ROWS else "",
    )


def _why(box: dict[str, Any]) -> str:
    text = "; ".join(box["why"])
    if len(text) > _LISTED:
        text = f"{text[:_LISTED]}…"
    return f": {text}" if text else ""
