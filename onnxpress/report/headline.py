"""The first thing a reader sees: the verdict in one sentence, and the figures behind it."""

from onnxpress.report import rows
from onnxpress.report.columns import Document, sqnr_text, worst_output
from onnxpress.report.text import (
    confidence_text,
    decimals,
    judged_text,
    size_in_words,
    speed_in_words,
)

__all__ = ["budget", "key_figures", "readings", "verdict"]


def verdict(report: Document) -> tuple[str, str]:
    """(a CSS class, the sentence)."""
    validation = report["validation"]
    gained = _joined(_gains(report))
    if not report["within_budget"]:
        why = "; ".join(report["problems"]) or "the budget does not hold"
        return "bad", f"Not met: {why}."
    if validation is None:
        return "note", f"Nothing was measured; by its files the model is {gained}."
    lost = _lost(validation)
    return "good", f"Within the budget: {gained}{f'; {lost}' if lost else ''}."


def _gains(report: Document) -> list[str]:
    validation = report["validation"]
    found = [size_in_words(report["size"]["ratio"])]
    if validation is None or not validation["timed_on_target"]:
        return found
    speedup = validation["latency"]["speedup"]
    return [*found, speed_in_words(speedup)] if speedup is not None else found


def _joined(parts: list[str]) -> str:
    return " and ".join(parts)


def _lost(validation: Document) -> str:
    """What the worst metric or output lost, with the bound that the samples carry."""
    found = validation["default"]
    kept = _kept(found)
    if found["metric"] is None or found["drop"] is None:
        return kept
    text = f"{found['metric']} {_changed(found['drop'])}"
    high = found["drop_interval"][1]
    if high is not None:
        sure = confidence_text(found["confidence"])
        text += f" (at most {decimals(high)} lost with {sure} confidence)"
    return f"{text}; {kept}" if kept and f"{found['drop']:.2f}" in ("0.00", "-0.00") else text


def _changed(drop: float) -> str:
    """A drop in words."""
    if f"{drop:.2f}" in ("0.00", "-0.00"):
        return "unchanged"
    way = "down" if drop > 0 else "up"
    return f"{way} {decimals(abs(drop))} points"


def _kept(found: Document) -> str:
    """The worst output, where there is one."""
    if not found["outputs"]:
        return ""
    name, worst = worst_output(found["outputs"])
    text = sqnr_text(worst)
    return f"output {name} is {text}" if text == "identical" else f"output {name} keeps {text}"


def budget(validation: Document | None) -> str:
    """The budget, and how far the figures carry."""
    if validation is None:
        return ""
    return f"The budget: {validation['budget']}. {judged_text(validation)}".strip()


def readings(validation: Document | None) -> list[str]:
    """How outputs were read, in sentences."""
    found = [] if validation is None else validation["readings"]
    return [
        f"{reading['output']}: {reading['words']} ({reading['kind']}: {reading['why']})."
        for reading in found
    ]


def key_figures(report: Document) -> list[rows.Line]:
    """Size, latency, the metric that lost most and the output that lost most."""
    lines = rows.closing_lines(report, report["validation"])
    drawn = [line for line in lines if line.amounts is not None]
    if report["validation"] is None:
        return drawn
    found = report["validation"]["default"]
    lost = [row for row in rows.VALIDATION_ROWS if row.key == "default"]
    of_default = [line for row in lost for line in row.lines(report["validation"])]
    drops = [metric["drop"] or 0.0 for metric in found["metrics"]]
    worst = drops.index(max(drops)) if drops else 0
    metrics, others = of_default[: len(drops)], of_default[len(drops) :]
    return [*drawn, *metrics[worst : worst + 1], *others[:1]]
