"""`--json`: a document into a file or onto standard output."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from onnxpress.errors import OutputError
from onnxpress.output_file import FileSet, check_output, replace_file
from onnxpress.own_files import require_report

__all__ = ["STANDARD_OUTPUT", "check_json", "stage_json", "write_json"]

STANDARD_OUTPUT = "-"


def check_json(
    path: str | None,
    read: Iterable[object],
    *,
    can_force: bool = False,
    option: str = "--json",
) -> None:
    """Refuse before any work a document that cannot be written or that would overwrite an input.

    Args:
        path: where to.
        read: files that are read, and what is none.
        can_force: whether the command has `--force`, and looks at what is there by itself.
        option: that names it.

    Raises:
        OutputError: it is one of the files that are read, cannot be written, or holds what is no
            report.
    """
    if path is None or path == STANDARD_OUTPUT:
        return
    check_output(Path(path))
    for file in read:
        if isinstance(file, str | Path) and Path(file).resolve() == Path(path).resolve():
            raise OutputError(
                f"{path}: {option} would overwrite an input or another output; give it a file of "
                "its own [O001]"
            )
    if not can_force:
        require_report(Path(path), can_force=False)


def stage_json(document: Mapping[str, Any], path: Path, files: FileSet) -> None:
    """Write a document as one of a set of files."""
    with files.stage(path) as temporary:
        temporary.write_text(_text(document) + "\n", encoding="utf-8", newline="\n")


def write_json(document: Mapping[str, Any], path: str | None) -> bool:
    """Write a document where it is asked for; whether standard output is left for people."""
    if path is None:
        return True
    if path == STANDARD_OUTPUT:
        click.echo(_text(document))
        return False
    with replace_file(Path(path)) as temporary:
        temporary.write_text(_text(document) + "\n", encoding="utf-8", newline="\n")
    return True


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False)
