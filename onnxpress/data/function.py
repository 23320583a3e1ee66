"""Samples from a Python function, `module:function`, that yields complete feeds."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxpress.data.checks import from_feeds
from onnxpress.data.reader import Reader
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError
from onnxpress.runtime import Feed, InputSpec

__all__ = ["READER", "import_function"]


def import_function(text: str) -> Any:  # noqa: ANN401 - whatever the user wrote
    """What `module:function` names, importable from the current folder too.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has nothing of that name.
    """
    module_name, _, function_name = text.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    return getattr(importlib.import_module(module_name), function_name)


def _accepts(data: object) -> bool:
    return isinstance(data, str) and ":" in data and not Path(data).exists()


def _read(data: str, inputs: Sequence[InputSpec]) -> Samples:
    try:
        function = import_function(data)
    except Exception as error:
        raise DataError(
            f"{data}: cannot be imported: {error}; expected module:function, importable from "
            "here, yielding dictionaries of input name to array [D016]"
        ) from error
    if not callable(function):
        raise DataError(f"{data}: is a {type(function).__name__}, not a function [D016]")
    return from_feeds(_yielded(function, data), inputs, data)


def _yielded(function: Callable[[], Iterable[Feed]], text: str) -> Iterator[Feed]:
    try:
        yield from function()
    except Exception as error:
        raise DataError(f"{text}: raised {type(error).__name__}: {error} [D016]") from error


READER = Reader(
    "module:function",
    _accepts,
    _read,
    runs_code=True,
)
