"""A result in a few rows, for notebooks: what matters first, as Markdown and as HTML.

The whole of it is `onnxpress.report.document`, which the page and the console show.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxpress.validation import Validation

__all__ = ["Summary", "summary_of"]

_MARKED = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#~$"})
"""What Markdown would take for its own."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a notebook shows.

    Attributes:
        verdict: whether the model may be used in place of the original.
        rows: what, of the original, of the result, and how they compare.
        sentences: what is not met, and what the user should know.
    """

    verdict: str
    rows: tuple[tuple[str, str, str, str], ...]
    sentences: tuple[str, ...]

    def markdown(self) -> str:
        """As a table; names cannot act."""
        table = [("", "original", "result", ""), ("---", "---:", "---:", "---"), *self.rows]
        lines = [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in table]
        lines[1] = "| --- | ---: | ---: | --- |"
        said = [f"- {_plain(sentence)}" for sentence in self.sentences]
        return "\n".join([f"**{_plain(self.verdict)}**", "", *lines, "", *said]).rstrip() + "\n"

    def html(self) -> str:
        """As a table without style of its own; names are escaped."""
        head = "".join(f"<th>{cell}</th>" for cell in ("", "original", "result", ""))
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in self.rows
        )
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        listed = f"<ul>{said}</ul>" if said else ""
        verdict = f"<p><strong>{html.escape(self.verdict)}</strong></p>"
        return f"{verdict}<table><tr>{head}</tr>{body}</table>{listed}"


def summary_of(
    validation: Validation | None,
    sizes: tuple[int, int],
    problems: Sequence[str],
    warnings: Sequence[str],
) -> Summary:
    """What to show of a result.

    Args:
        validation: against the original; `None` where it could not be run.
        sizes: bytes of the original and of the result.
        problems: why the model may not be used, in sentences.
        warnings: besides those of the validation.
    """
    before, after = sizes
    rows = [("size", _megabytes(before), _megabytes(after), f"{before / after:.2f} times smaller")]
    if after >= before:
        rows = [("size", _megabytes(before), _megabytes(after), "not smaller")]
    verdict = "Not met" if problems else "Nothing was measured"
    if validation is not None:
        verdict = f"Within the budget: {validation.budget}" if not problems else "Not met"
        rows += _measured(validation)
        warnings = (*validation.warnings, *warnings)
    return Summary(verdict, tuple(rows), (*problems, *warnings))


def _measured(validation: Validation) -> list[tuple[str, str, str, str]]:
    rows = []
    latency, measurement = validation.latency, validation.measurement
    if math.isfinite(latency.speedup):
        where = "" if validation.timed_on_target else " on this CPU, not on the target"
        times = f"{latency.reference_ms:.3g} ms", f"{latency.median_ms:.3g} ms"
        rows.append(("latency", *times, f"{latency.speedup:.2f} times as fast{where}"))
    for figure in measurement.metrics:
        values = f"{figure.reference:.2f}%", f"{figure.value:.2f}%"
        drop = f"drop {figure.drop:.2f}, at most {figure.interval[1]:.2f}"
        rows.append((figure.name, *values, f"{drop} with {100 * figure.confidence:.3g}%"))
    if measurement.outputs and not math.isnan(measurement.worst_sqnr_db):
        level = measurement.worst_sqnr_db
        text = "identical" if math.isinf(level) and level > 0 else f"{level:.1f} dB"
        rows.append(("SQNR", "", text, f"worst output, {measurement.samples:,} samples"))
    return rows


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _plain(text: str) -> str:
    return " ".join(text.split()).translate(_MARKED)
