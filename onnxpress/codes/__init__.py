"""Stable codes of errors and reasons, in the sentences: `its weight holds NaN or infinity [L001]`.

A code is written where the sentence is, so that it travels with it through layers, notes and
reports, and what is put around a sentence has a code of its own behind it. `split` takes them out
again where code and text have places of their own. The catalogue of what codes mean is read only
for people who ask (`explained`).

Sentences of other packages need none.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["AREAS", "Explanation", "explained", "once", "split"]

AREAS = {
    "M": "the model file",
    "D": "samples that cannot be used",
    "O": "what is written",
    "R": "recipes",
    "U": "options, names and files of settings",
    "B": "budgets",
    "N": "pipelines of several models",
    "X": "faults",
    "L": "why any layer or pass was left alone",
    "Q": "quantize",
    "F": "factorize",
    "P": "prune",
    "S": "sparsify",
    "K": "pack",
    "T": "distill",
    "H": "half precision",
    "C": "conversions",
    "V": "why the budget does not hold",
    "W": "warnings about the result",
    "A": "what looks wrong with samples",
}
"""What a code is about, by its letter."""

_CODE = re.compile(r" \[([A-Z]\d{3})\]")
_CATALOGUE = ("errors.toml", "reasons.toml")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a code means.

    Attributes:
        title: in a few words.
        why: it is so, in sentences.
        do: what helps.
        retired: whether nothing has the code any more.
    """

    title: str
    why: str
    do: str
    retired: bool = False


def split(text: str) -> tuple[str, str]:
    """A sentence without codes, and its own: the last one; empty where it has none."""
    found = _CODE.findall(text)
    return _CODE.sub("", text), found[-1] if found else ""


def once(text: str) -> str:
    """A sentence with its own code alone, without those of what it is put around."""
    plain, code = split(text)
    return f"{plain} [{code}]" if code else text


@cache
def explained() -> dict[str, Explanation]:
    """The catalogue: what each code means, errors first."""
    import tomllib  # noqa: PLC0415 - only for who asks

    folder = Path(__file__).parent
    return {
        code: Explanation(**entry)
        for name in _CATALOGUE
        for code, entry in tomllib.loads((folder / name).read_text(encoding="utf-8")).items()
    }
