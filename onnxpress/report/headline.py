"""The first thing a reader sees: the verdict in one sentence, and the figures behind it."""

from onnxpress.report import rows
from onnxpress.report.columns import Document, sqnr_text, worst_output
from onnxpress.report.text import decimals, judged_text, size_in_words, speed_in_words

__all__ = ["judged", "key_figures", "verdict"]

_OTHERS = 2


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
    speedup = None if validation is None else validation["latency"]["speedup"]
    return [*found, speed_in_words(speedup)] if speedup is not None else found


def _joined(parts: list[str]) -> str:
    return " and ".join(parts)


def _lost(validation: Document) -> str:
    """What the worst metric or output lost, with the bound that the samples carry."""
    found = validation["default"]
    if found["metric"] is not None and found["drop"] is not None:
        high = found["drop_interval"][1]
        text = f"{found['metric']} drops by {decimals(found['drop'])} points"
        if found["drop"] < 0:
            text = f"{found['metric']} rises by {decimals(-found['drop'])} points"
        if high is None:
            return text
        return f"{text}, at most {decimals(high)} lost with {found['confidence']:.0%} confidence"
    if not found["outputs"]:
        return ""
    name, worst = worst_output(found["outputs"])
    text = sqnr_text(worst)
    return f"output {name} is {text}" if text == "identical" else f"output {name} keeps {text}"


def judged(validation: Document | None) -> list[str]:
    """The budget, how far the figures carry, and how outputs were read, in sentences."""
    if validation is None:
        return []
    budget = " ".join([f"The budget: {validation['budget']}.", judged_text(validation)]).strip()
    return [
        budget,
        *(
            f"{reading['output']}: {reading['words']} ({reading['kind']}: {reading['why']})."
            for reading in validation["readings"]
        ),
    ]


def key_figures(report: Document) -> list[rows.Line]:
    """Size, latency, and the first figures of what was lost."""
    lines = rows.closing_lines(report, report["validation"])
    drawn = [line for line in lines if line.amounts is not None]
    validation = report["validation"]
    others = [] if validation is None else list(_default_lines(validation))
    return [*drawn, *others[:_OTHERS]]


def _default_lines(validation: Document) -> list[rows.Line]:
    of_default = [row for row in rows.VALIDATION_ROWS if row.key == "default"]
    return [
        line
        for row in of_default
        for line in row.lines(validation)
        if not line.heading.startswith(" ")
    ]
