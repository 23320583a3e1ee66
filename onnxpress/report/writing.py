"""The HTML report of a result, for callers in Python."""

import os
from collections.abc import Sequence
from pathlib import Path

from onnxpress.output_file import FileSet
from onnxpress.report.document import document
from onnxpress.report.html import require_html, write_html
from onnxpress.result import Result

__all__ = ["write_report"]


def write_report(
    result: Result, path: str | os.PathLike[str], *, command: Sequence[str] = ()
) -> Path:
    """Write the HTML report that `--report` writes: one file that needs nothing else.

    Args:
        result: of `onnxpress.optimize`.
        path: where to; what is there is replaced, whole or not at all.
        command: what made the result, which the report then says.

    Returns:
        Where it was written.

    Raises:
        UsageError: jinja2 is not installed (`onnxpress[report]`).
        OutputError: the place cannot be written.
    """
    require_html()
    place = Path(path)
    with FileSet() as files:
        write_html(document(result, command), place, files)
    return place
