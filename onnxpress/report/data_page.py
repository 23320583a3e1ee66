"""What a model would be fed, in words and as a page, made of the document that `--json` writes."""

from pathlib import Path

from onnxpress.output_file import replace_file
from onnxpress.report.columns import Document
from onnxpress.report.rendering import rendered
from onnxpress.report.tables import Cell, Table, TableRow

__all__ = ["INPUT_HEADINGS", "input_rows", "label_line", "sample_line", "write_data"]

INPUT_HEADINGS = ("input", "type", "shape", "range", "mean and deviation")
_LETTERS, _NUMBERS = 60, 6
"""Of a text, and of values, on the console."""
_THOUSAND, _MILLION = 1e3, 1e6
"""Between these a figure is written without a power of ten."""


def input_rows(found: Document) -> list[tuple[str, ...]]:
    """A row for each input, under `INPUT_HEADINGS`."""
    return [(e["name"], e["type"], _shapes(e), *_values(e)) for e in found["inputs"]]


def label_line(found: Document) -> str:
    """How many classes there are; nothing without labels."""
    labels = found["labels"]
    if labels is None:
        return ""
    return f"{labels['classes']:,} classes, {labels['fewest']:,} to {labels['most']:,} of each"


def sample_line(sample: Document) -> str:
    """The text it was made of, else its first input: values, or that it is a picture or a sound."""
    if sample["text"]:
        return repr(sample["text"][:_LETTERS])
    fed = sample["fed"][0]
    kind = "a picture" if fed["picture"] else "a sound" if fed["sound"] else ""
    if kind:
        return f"{fed['input']}: {kind}, which --report shows"
    values = fed["values"].split(", ")
    more = ", …" if len(values) > _NUMBERS else ""
    return f"{fed['input']}: {', '.join(values[:_NUMBERS])}{more}"[:_LETTERS]


def write_data(found: Document, path: Path) -> None:
    """Write a document of `feeding.look_at_samples` as a page, whole or not at all."""
    page = rendered(
        "data.html.j2",
        found=found,
        inputs=Table(
            tuple(map(Cell, INPUT_HEADINGS)),
            tuple(TableRow(tuple(map(Cell, row))) for row in input_rows(found)),
        ),
        labels=label_line(found),
        readings=[
            f"{reading['output']}: {reading['words']} ({reading['kind']}: {reading['why']})"
            for reading in found["readings"]
        ],
    )
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _shapes(entry: Document) -> str:
    texts = [str(shape) for shape in entry["shapes"]]
    if entry["more_shapes"]:
        texts.append(f"and {entry['more_shapes']} more")
    return " ".join(texts)


def _values(entry: Document) -> tuple[str, str]:
    if "first" in entry:
        return repr(entry["first"]), ""
    if entry["low"] is None:
        return "empty", ""
    low, high = entry["low"], entry["high"]
    whole = low.is_integer() and high.is_integer()
    reach = f"{low:,.0f} to {high:,.0f}" if whole else f"{low:.4g} to {high:.4g}"
    return reach, f"{_short(entry['mean'])}, {_short(entry['deviation'])}"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if _THOUSAND <= abs(figure) < _MILLION else f"{figure:.4g}"
