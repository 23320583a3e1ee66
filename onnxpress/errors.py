"""What a user can have got wrong, each with what was found, what was expected and what to do.

A layer that a pass cannot treat is not an error: it is a `contract.Skip` with a reason.
"""

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from onnxpress.codes import split

__all__ = [
    "BudgetError",
    "DataError",
    "ModelError",
    "NoSamplesError",
    "OnnxpressError",
    "OutputError",
    "PassError",
    "RecipeError",
    "UsageError",
    "brief",
    "nearest",
    "nearest_file",
]

_LONGEST, _SHORT = 300, 160
_MOST_FILES = 10_000
"""Of a folder that are compared with a name."""
_PREFIX = re.compile(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )+")
_NODE = re.compile(
    r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: "
)
_PLACE = re.compile(r"\S+\.(?:h|hpp|cc|cpp|cu|cuh):\d+ ?(?:.*? was false\. )?")
_STACK = re.compile(r" ?(?:Stack ?trace:|=+ ?backtrace|Backtrace:).*$", re.IGNORECASE)
_END = re.compile(r"(?<=[^.\s]{2}[.!]) (?=[A-Z])")


class OnnxpressError(Exception):
    """Base of every error that a user can cause and mend; the command line exits with 2."""

    general: ClassVar[str] = "U000"
    """The code of an error whose sentence has none of its own."""

    @property
    def code(self) -> str:
        """By which `onnxpress explain` knows it."""
        return split(str(self))[1] or self.general


class ModelError(OnnxpressError):
    """The model file is missing, broken, or nothing that onnxruntime can run."""

    general = "M000"


class DataError(OnnxpressError):
    """The samples do not fit the model: names, types, shapes, values or number."""

    general = "D000"


class NoSamplesError(DataError):
    """No samples were given, and none that the model runs on can be made up."""


class OutputError(OnnxpressError):
    """A result cannot be written where it was asked for."""

    general = "O000"


class RecipeError(OnnxpressError):
    """A recipe does not belong to this model, this data or this version."""

    general = "R000"


class UsageError(OnnxpressError):
    """An option or a combination of options that means nothing."""


class BudgetError(OnnxpressError):
    """A budget that cannot be judged with the data at hand."""

    general = "B000"


class PassError(OnnxpressError):
    """A pass breaks its contract or fails: a fault of the pass, not of the user or the budget.

    Attributes:
        pass_name: which pass.
        site: where, as far as it is known; empty otherwise.
        what: happened.
    """

    general = "X001"

    def __init__(self, pass_name: str, what: str, site: str = "") -> None:
        self.pass_name, self.site, self.what = pass_name, site, what
        where = f"pass {pass_name}, site {site}" if site else f"pass {pass_name}"
        super().__init__(f"{where}: {what}")


def brief(error: BaseException) -> str:
    """What a library says without pages of C++: a sentence, and the next if both are short.

    onnxruntime's prefixes, places in its source and failed conditions are left out; the node at
    which it failed stays.
    """
    text = " ".join(str(error).split())
    text = _NODE.sub(r"\1 '\2': ", _PREFIX.sub("", text)).replace(" '': ", ": ")
    text = _STACK.sub("", _PLACE.sub("", text))
    first, *more = (part.strip().rstrip(".") for part in _END.split(text, maxsplit=2)[:2])
    if more and len(first) + len(more[0]) < _SHORT:
        first = f"{first}: {more[0]}"
    shown = first or type(error).__name__
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 2].rstrip()} …"


def nearest_file(path: Path) -> str:
    """`; did you mean …?` with a file or folder beside where one was looked for, or nothing."""
    try:
        names = [entry.name for entry in itertools.islice(os.scandir(path.parent), _MOST_FILES)]
    except OSError:
        return ""
    return nearest(path.name, sorted(names))


def nearest(word: str, words: Sequence[str], *, before: str = "") -> str:
    """`; did you mean …?`, with what has to stand before the word, or nothing."""
    import difflib  # noqa: PLC0415 - only for a message

    found = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {before + found[0]!r}?" if found else ""
