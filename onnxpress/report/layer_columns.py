"""The columns of layers, tried models and differing samples; see `columns`."""

from collections.abc import Callable
from typing import Any

from onnxpress.report.columns import Column, Document
from onnxpress.report.text import decimals

__all__ = [
    "FORM_COLUMNS",
    "LAYER_COLUMNS",
    "TRIED_COLUMNS",
    "forms_in_words",
    "percent",
    "size_text",
]


def size_text(size: float) -> str:
    """Bytes, kB (10³) or MB (10⁶), three digits."""
    if size < 1000:
        return f"{size:.0f} B"
    unit, amount = ("kB", size / 1e3) if size < 1e6 else ("MB", size / 1e6)
    return f"{amount:.0f} {unit}" if amount >= 100 else f"{amount:.3g} {unit}"


def percent(share: float) -> str:
    """Of a share, three digits; without exponents."""
    value = 100 * share
    if value == 0:
        return "0%"
    if abs(value) >= 100:
        return f"{value:,.0f}%"
    return f"{value:.3g}%" if abs(value) >= 1e-3 else "<0.001%"


def _share(key: str) -> Callable[[Document], str]:
    return lambda row: "" if row[key] is None else percent(row[key])


def _size(key: str) -> Callable[[Document], str]:
    return lambda row: size_text(row[key])


def forms_in_words(row: Document) -> str:
    """What a model that was tried consists of."""
    return ", ".join(f"{count:,} {form}" for form, count in row["forms"].items()) or "nothing"


def _spent(row: Document) -> str:
    return "far more" if row["spent"] is None else percent(row["spent"])


LAYER_COLUMNS: tuple[Column[Any], ...] = (
    Column("layer", "layer", None, number=False),
    Column("operator", "operator", None, number=False),
    Column("shape", "shape", None, lambda row: "×".join(map(str, row["shape"])), number=False),
    Column("bytes_before", "bytes before", None, _size("bytes_before")),
    Column("bytes_after", "bytes after", None, _size("bytes_after")),
    Column("multiply_add_share", "share of work", None, _share("multiply_add_share")),
    Column("forms", "form", None, lambda row: ", ".join(row["forms"]) or "as it was", number=False),
    Column("predicted_error", "predicted error", None, _share("predicted_error")),
    Column("left", "reason left", None, lambda row: "; ".join(row["left"]), number=False),
)


def _change(before: str, after: str) -> Callable[[Document], str]:
    return lambda row: f"{size_text(row[before])} to {size_text(row[after])}"


def _time(row: Document) -> str:
    if row["same_kernels"]:
        return "the same kernels"
    saved = row["saved_microseconds"]
    if saved is None:
        return "other kernels, not timed alone"
    return f"other kernels, {abs(saved):,.0f} µs {'less' if saved > 0 else 'more'} a run, alone"


FORM_COLUMNS: tuple[Column[Any], ...] = (
    Column("form", "form", None, number=False),
    Column("layers", "layers", None),
    Column("bytes_after", "in the file", None, _change("bytes_before", "bytes_after")),
    Column(
        "loaded_bytes_after",
        "in memory once loaded",
        None,
        _change("loaded_bytes_before", "loaded_bytes_after"),
    ),
    Column("same_kernels", "time", None, _time, number=False),
)

TRIED_COLUMNS: tuple[Column[Any], ...] = (
    Column("number", "model", None),
    Column("passes", "passes", None, number=False),
    Column("forms", "sites by form", None, forms_in_words, number=False),
    Column("weight_bytes", "weights", None, _size("weight_bytes")),
    Column("spent", "budget spent", None, _spent),
    Column(
        "drop",
        "metric drop",
        None,
        lambda row: "" if row["drop"] is None else f"{decimals(row['drop'])} points",
    ),
    Column(
        "worst_sqnr_db",
        "worst SQNR",
        None,
        lambda row: "" if row["worst_sqnr_db"] is None else f"{row['worst_sqnr_db']:.1f} dB",
    ),
    Column(
        "speedup",
        "speed over before",
        None,
        lambda row: "" if row["speedup"] is None else f"{row['speedup']:.2f}x",
    ),
    Column("samples", "samples", None, lambda row: f"{row['samples']:,}"),
    Column("holds", "held", None, lambda row: "yes" if row["holds"] else "no", number=False),
)
