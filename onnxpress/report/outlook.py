"""What passes could do with a model, on the console: for `inspect` and `optimize --dry-run`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from onnxpress.enumeration import few
from onnxpress.report.printing import print_table, print_text
from onnxpress.report.saying import some
from onnxpress.report.text import counted, megabytes

__all__ = ["in_ms", "next_step", "print_judged", "print_outlook", "print_reasons", "time_words"]

_SHOWN_REASONS = 4
_SHOWN_OUTPUTS = 4
_SHOWN_SIZES = 4


def print_judged(judged: Mapping[str, str], console: Console) -> None:
    """Print what the outputs have to keep, those that keep the same together."""
    alike: dict[str, list[str]] = {}
    for output, words in judged.items():
        alike.setdefault(words, []).append(output)
    shown = some(list(alike.items()), _SHOWN_OUTPUTS)
    for words, names in shown:
        print_text(f"{few(names)}: {words}", console, label="keeps", style="bold")
    if len(alike) > len(shown):
        print_text(f"  and {len(alike) - len(shown)} more; -v lists all", console)


def in_ms(milliseconds: float) -> str:
    """As people read it: two digits, and not more than a clock tells."""
    return f"{milliseconds:.2g} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"


def time_words(latency: Mapping[str, Any]) -> str:
    """What a run takes, and what that rests on.

    Args:
        latency: as `Times.document` makes it.
    """
    now, then = in_ms(latency["original_ms"]), in_ms(latency["predicted_ms"])
    text = f"about {now} a run" if now == then else f"about {now} a run, {then} with all of that"
    threads = latency["threads"]
    text += f", with {threads} {'thread' if threads == 1 else 'threads'}"
    if latency["sizes_assumed"]:
        sizes = few([f"{name} = {size}" for name, size in latency["sizes"].items()], _SHOWN_SIZES)
        text += f" and {sizes} assumed"
    return f"{text} ({latency['basis']})"


def print_outlook(
    passes: Sequence[Mapping[str, Any]], console: Console, *, samples: bool = False
) -> None:
    """Print a row for each pass: what it could save, and what samples open.

    Args:
        passes: as `Potential.document` makes them.
        console: where to.
        samples: whether they were given.
    """
    rows = []
    for entry in passes:
        opened = entry["opened_by_samples"]
        saves = f"up to {megabytes(entry['saved_bytes'])}" if entry["saved_bytes"] else "unknown"
        if entry["saved_ms"] is not None and (entry["saved_ms"] or entry["saved_bytes"]):
            saves += f", {in_ms(entry['saved_ms'])}"
        size, time = megabytes(opened["weight_bytes"]), opened["layers_ms"]
        more = f"{opened['sites']:,} sites ({size}{'' if time is None else f', {in_ms(time)}'})"
        rows.append(
            (
                f"{entry['pass']} *" if entry["by_name_only"] else entry["pass"],
                f"{entry['sites']:,}" if entry["sites"] else "none",
                saves if entry["sites"] else "",
                ", ".join(name for name in entry["forms"] if name),
                more if opened["sites"] else "",
            )
        )
    last = "also tried with the samples" if samples else "more with samples"
    print_text("what each pass could do (predicted from the shapes, nothing was run)", console)
    print_table(
        "",
        ("pass", "sites", "saves", "forms", last),
        rows,
        console,
    )
    for entry in passes:
        if entry["by_name_only"]:
            print_text(f"* only when it is named: {entry['by_name_only']}", console)


def print_reasons(passes: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print why layers are left alone, the most frequent reasons of each pass."""
    for entry in passes:
        reasons = entry["reasons"]
        if not reasons:
            continue
        print_text("leaves alone, or treats less:", console, label=entry["pass"], style="bold")
        shown = some(reasons, _SHOWN_REASONS)
        for item in shown:
            code = f" [{item['code']}]" if item["code"] else ""
            print_text(f"  {item['count']:,}: {item['reason']}{code}", console)
        if len(reasons) > len(shown):
            more = counted(len(reasons) - len(shown), "more reason")
            print_text(f"  and {more}; -v lists all", console)


def next_step(passes: Sequence[Mapping[str, Any]]) -> str:
    """What samples would open, as a sentence; empty where they open nothing."""
    opened = ", ".join(
        f"{entry['opened_by_samples']['sites']:,} to {entry['pass']}"
        for entry in passes
        if entry["opened_by_samples"]["sites"]
    )
    if not opened:
        return ""
    return (
        "onnxpress optimize MODEL --calibration DATA, samples as the model is fed, opens more "
        f"sites: {opened}"
    )
