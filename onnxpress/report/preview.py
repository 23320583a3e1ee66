"""`optimize --dry-run` on the console."""

from collections.abc import Sequence

from rich.console import Console

from onnxpress.report.columns import Document
from onnxpress.report.outlook import in_ms, next_step, print_judged, print_outlook
from onnxpress.report.printing import print_all, print_text
from onnxpress.report.reading import print_readings
from onnxpress.report.text import megabytes, printable

__all__ = ["print_preview"]

_LESS = 0.99
"""Of the time: what is saved less than that is not told."""


def print_preview(found: Document, *, would_write: Sequence[str], console: Console) -> None:
    """Print what would be tried, what is known of it, and what is not."""
    text = "nothing was searched and nothing was written"
    print_text(text, console, label="dry run", style="bold")
    print_readings(found["readings"], console)
    print_judged(found["judged"], console)
    print_text(_samples(found["samples"]), console, label="samples", style="bold")
    order = ", ".join(
        entry["pass"] + ("" if entry["loses"] else " (loses nothing)") for entry in found["order"]
    )
    print_text(order, console, label="order", style="bold")
    given = found["samples"] is not None
    if found["passes"]:
        print_outlook(found["passes"], console, samples=given)
    before, after = (found["size"][key] for key in ("original_bytes", "predicted_bytes"))
    size = f"{megabytes(before)} to about {megabytes(after)}, if the budget allows all of that"
    if after == before:
        size = f"{megabytes(before)}; what could be saved is not known without a search"
    print_text(size, console, label="size", style="bold")
    took = found["latency"]["original_ms"]
    one = "the original was not run" if took is None else f"the original takes {took:.3g} ms here"
    text = f"{one}; how much faster it gets is not measured in a dry run"
    predicted = found["latency"]["predicted_ms"]
    if predicted is not None and took is not None and predicted < _LESS * took:
        text = f"{one}, about {in_ms(predicted)} with all of that, by its multiply-adds (estimate)"
    print_text(text, console, label="time", style="bold")
    opened = any(entry["opened_by_samples"]["sites"] for entry in found["passes"])
    which = ("the samples open" if given else "samples would open (--calibration)") * opened
    for one in found["constraints"]:
        print_text(_expectation(one, which), console, label="asked", style="bold")
    text = "not measured in a dry run; the search keeps to the budget on "
    text += "the samples" if given else "random inputs"
    print_text(text, console, label="loss", style="bold")
    print_all("warning", found["warnings"], console, style="yellow")
    step = "" if given else next_step(found["passes"])
    if step:
        print_text(step, console, label="next", style="bold")
    print_text(", ".join(printable(path) for path in would_write), console, label="would write")


def _expectation(one: Document, opened: str) -> str:
    """Whether a constraint is reached, as far as the predictions go.

    Args:
        one: of the constraints.
        opened: by what more sites are opened, which no prediction has; empty: there are none.
    """
    text = f"{one['name']}: {one['wanted']}; {one['predicted']} predicted"
    if one["reached"]:
        return f"{text}: reached, if the budget allows all of that"
    if one["reached"] is False:
        return f"{text}: not reached"
    known = f", without what {opened}" if opened else ""
    return f"{text}{known}: only a search can tell"


def _samples(sizes: Document | None) -> str:
    if sizes is None:
        return "none given: outputs are compared on random inputs"
    parts = f"{sizes['choosing']:,} to choose by, {sizes['judging']:,} others to judge on"
    if not sizes["apart"]:
        parts = f"{sizes['choosing']:,} to choose by and to judge on: too few to keep some apart"
    return f"{sizes['observed']:,} for the passes to look at, {parts}"
