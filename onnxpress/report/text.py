"""How figures and names are written for people; names are escaped so that they cannot act."""

import math
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnxpress.potential import WITHOUT_DATA

__all__ = [
    "confidence_text",
    "costly_layers",
    "counted",
    "decimals",
    "file_name",
    "judged_text",
    "megabytes",
    "of_samples",
    "opened_by_data",
    "printable",
    "size_in_words",
    "speed_in_words",
    "stage_summary",
]

_COSTLY = 3
_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's control, format, surrogate and separator characters: what a terminal may obey."""


def printable(text: str) -> str:
    """Text on one line as it is; what a terminal or page would obey is escaped."""
    return "".join(
        " "
        if character in "\n\t"
        else character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _ACTING
        else character
        for character in text
    )


def counted(number: int, noun: str) -> str:
    """`1 sample`, `2,000 samples`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def file_name(source: str) -> str:
    """Where samples came from, without the folders before the last."""
    return source.rstrip("/").rpartition("/")[2]


def of_samples(number: int, of: int) -> str:
    """How many samples a figure is from, and of how many where these are only the first."""
    return counted(number, "sample") if number >= of else f"first {number:,} of {of:,} samples"


def decimals(value: float | None) -> str:
    """Two of them; `?` for what is no number."""
    return "?" if value is None else f"{value:.2f}"


def confidence_text(share: float) -> str:
    """`95%`, `97.5%`."""
    return f"{100 * share:.3g}%"


def megabytes(size: float) -> str:
    """Bytes as MB (10⁶), with three digits where two decimals would say nothing."""
    return f"{size / 1e6:.2f} MB" if abs(size) >= 1e5 or not size else f"{size / 1e6:.3g} MB"


def size_in_words(ratio: float) -> str:
    """What original bytes / optimized bytes means."""
    if f"{ratio:.2f}" == "1.00":
        return "about the same size"
    return f"{ratio:.2f}x smaller" if ratio > 1 else f"{1 / ratio:.2f}x the size: larger"


def speed_in_words(speedup: float, quartiles: tuple[float, float] | None = None) -> str:
    """What original time / optimized time means; no difference where its quartiles hold 1."""
    if quartiles is not None and quartiles[0] < 1 < quartiles[1]:
        return f"no clear difference: {speedup:.2f}x"
    if f"{speedup:.2f}" == "1.00":
        return "about the same speed"
    return f"{speedup:.2f}x faster" if speedup > 1 else f"{speedup:.2f}x the speed: slower"


def judged_text(validation: Mapping[str, Any]) -> str:
    """How far the figures of a validation carry, from its document; empty where not judged."""
    found = validation["judgement"]
    if found is None:
        return ""
    if not found["reason"]:
        return "Held by the bounds that the samples carry."
    text = f"{found['verdict'].capitalize()}: {found['reason']}"
    if found["samples_needed"] is not None:
        text += f"; about {found['samples_needed']:,} samples would decide"
    return f"{text}."


def costly_layers(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What costs most fidelity, and the option that takes it back; from the documents of stages.

    Only the difference is told: it was measured before layers were fitted again.
    """
    costs = [(stage["pass"], cost) for stage in stages for cost in stage.get("costliest", ())]
    costs.sort(key=lambda item: -_lost(item[1]))
    lines = []
    for name, cost in costs[:_COSTLY]:
        restored, keep = cost["restored_sqnr_db"], shlex.quote(printable(cost["keep"]))
        gain = "all that is lost" if restored is None else f"{restored - cost['sqnr_db']:.1f} dB"
        lines.append(f"{cost['site']} ({name}): {gain}; keep it with --keep {keep}")
    return lines


def _lost(cost: Mapping[str, Any]) -> float:
    """Error power over signal power, which adds up over the stages."""
    found = [cost["sqnr_db"], cost["restored_sqnr_db"]]
    noise = [0.0 if decibels is None else 10 ** (-decibels / 10) for decibels in found]
    return float(noise[0] - noise[1])


def opened_by_data(left: Iterable[tuple[str, str, int]]) -> str:
    """What samples would let passes do, as the next step of who has given none; empty: nothing.

    Args:
        left: names of passes, reasons that they give for leaving sites, and how many sites.
    """
    counts: Counter[str] = Counter()
    for name, reason, count in left:
        counts[name] += count if WITHOUT_DATA in reason else 0
    opened = ", ".join(f"{count:,} to {name}" for name, count in sorted(counts.items()) if count)
    if not opened:
        return ""
    return f"give --calibration DATA, samples as the model is fed: it opens {opened}"


def stage_summary(stage: Mapping[str, Any]) -> str:
    """What a stage did, from its document: how many sites in which form, and its sizes."""
    if not stage["changed"]:
        return f"changed nothing: {stage['note'] or 'no site fits'}"
    families = Counter(str(decision["family"]) for decision in stage["decisions"])
    whole = len(stage["decisions"]) == 1 and not stage["saved_bytes"]
    parts = (
        list(families)
        if whole and any(families)
        else [
            f"{count:,} {family}" if family else counted(count, "site")
            for family, count in sorted(families.items())
        ]
    )
    weights = stage["weight_bytes"]
    if weights is None:
        parts += [f"{megabytes(stage['saved_bytes'])} less"] if stage["saved_bytes"] else []
    elif not math.isclose(weights["before"], weights["after"], rel_tol=1e-3):
        parts.append(f"weights {megabytes(weights['before'])} to {megabytes(weights['after'])}")
    zeroed = sum(decision["zeroed_weights"] for decision in stage["decisions"])
    parts += [f"{zeroed:,} weights zeroed"] if zeroed else []
    return ", ".join(parts) + (f"; {stage['note']}" if stage["note"] else "")
