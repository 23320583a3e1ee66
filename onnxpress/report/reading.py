"""How the outputs are read: as plain data and on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from onnxpress.enumeration import few
from onnxpress.judge import Reading
from onnxpress.report.printing import print_text
from onnxpress.report.saying import some

__all__ = ["print_readings", "reading_document"]

_SHOWN = 6


def reading_document(reading: Reading) -> dict[str, Any]:
    """How an output is read, as JSON-ready data."""
    return {
        "output": reading.output,
        "kind": str(reading.kind),
        "words": reading.words,
        "why": reading.why,
    }


def print_readings(readings: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print how the outputs are read, those that are read alike together."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for reading in readings:
        alike.setdefault(reading["words"], []).append(reading)
    shown = some(list(alike.items()), _SHOWN)
    for words, group in shown:
        names = few(reading["output"] for reading in group)
        text = f"{names}: {words} ({group[0]['kind']}: {group[0]['why']})"
        print_text(text, console, label="reads", style="bold")
    if len(alike) > len(shown):
        print_text(f"  and {len(alike) - len(shown)} more kinds; -v lists all", console)
