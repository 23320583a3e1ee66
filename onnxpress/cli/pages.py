"""Whether a page may be written, of commands that write nothing else."""

from collections.abc import Iterable
from pathlib import Path

from onnxpress.output_file import check_output
from onnxpress.own_files import require_report
from onnxpress.report.html import require_html

__all__ = ["check_page"]


def check_page(path: Path | None, read: Iterable[str | Path | None]) -> None:
    """Refuse before any work a page that cannot be written, or would overwrite what is no page.

    Args:
        path: where to; `None`: none is asked for.
        read: files that are read, names of other data, and what is none.

    Raises:
        OutputError: it is one of the files that are read, cannot be written, or holds what is no
            report.
        UsageError: the library that makes pages is not installed.
    """
    if path is None:
        return
    require_html()
    for file in read:
        source = None if file is None else Path(file)
        check_output(path, source=source if source is not None and source.exists() else None)
    require_report(path, can_force=False)
