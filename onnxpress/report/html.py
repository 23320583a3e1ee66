"""The report as one HTML file that needs nothing else: tables and plots inside it.

Needs the extra `report` (jinja2 for the page, matplotlib for the plots), imported when used.
"""

import importlib.util
import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from onnxpress.errors import UsageError
from onnxpress.model_file import replace_file
from onnxpress.report.console import provider_cells

__all__ = ["require_html", "write_html"]


def require_html() -> None:
    """Refuse before any work when the extra is not installed.

    Raises:
        UsageError: jinja2 or matplotlib is missing.
    """
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--report needs {' and '.join(missing)}: install them with "
            "pip install 'onnxpress[report]', or use --json"
        )


def write_html(report: Mapping[str, Any], path: str | Path) -> None:
    """Write a report as `document` makes it, whole or not at all."""
    import jinja2  # noqa: PLC0415 - an extra

    template = resources.files("onnxpress.report").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(
        report=report, plots=_plots(report), kept=_kept(report), provider_cells=provider_cells
    )
    with replace_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _kept(report: Mapping[str, Any]) -> dict[str, str]:
    """For each stage what it did, in a word or two."""
    return {
        stage["pass"]: f"{len(stage['decisions'])} sites" if stage["changed"] else "nothing"
        for stage in report["stages"]
    }


def _plots(report: Mapping[str, Any]) -> list[str]:
    import matplotlib as mpl  # noqa: PLC0415 - an extra

    mpl.use("svg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    plots: list[str] = []
    with mpl.rc_context({"svg.hashsalt": "onnxpress", "font.size": 9, "svg.fonttype": "none"}):
        for title, labels, values, unit in _bars(report):
            figure, axes = plt.subplots(figsize=(7, 0.5 + 0.28 * len(labels)))
            axes.barh(range(len(labels)), values, color="#3b6ea5")
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
            axes.set_xlabel(unit)
            axes.set_title(title, loc="left")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            text = stream.getvalue()
            plots.append(text[text.index("<svg") :])
    return plots


def _bars(report: Mapping[str, Any]) -> list[tuple[str, list[str], list[float], str]]:
    bars: list[tuple[str, list[str], list[float], str]] = []
    size = report["size"]
    if size["bytes"]:
        megabytes = [size["original_bytes"] / 1e6, size["bytes"] / 1e6]
        bars.append(("Size", ["original", "pressed"], megabytes, "MB"))
    validation = report["validation"]
    if validation is not None and validation["latency"]["ms"] is not None:
        times = [validation["latency"]["original_ms"], validation["latency"]["ms"]]
        bars.append(("Latency of one sample", ["original", "pressed"], times, "ms"))
    for stage in report["stages"]:
        errors = sorted(
            (
                (decision["predicted_error"] or 0.0, decision["site"])
                for decision in stage["decisions"]
                if decision["predicted_error"]
            ),
            reverse=True,
        )[:20]
        if errors:
            names = [site if len(site) <= 40 else f"…{site[-39:]}" for _, site in errors]
            title = f"{stage['pass']}: predicted error by layer, the worst {len(errors)}"
            shares = [100 * error for error, _ in errors]
            bars.append((title, names, shares, "% of the layer's output power"))
    return bars
