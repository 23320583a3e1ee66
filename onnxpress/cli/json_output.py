"""`--json`: a document into a file or onto standard output."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from onnxpress.model_file import replace_file

__all__ = ["STANDARD_OUTPUT", "write_json"]

STANDARD_OUTPUT = "-"


def write_json(document: Mapping[str, Any], path: str | None) -> bool:
    """Write a document where it is asked for; whether standard output is left for people."""
    if path is None:
        return True
    text = json.dumps(document, indent=2, allow_nan=False)
    if path == STANDARD_OUTPUT:
        click.echo(text)
        return False
    with replace_file(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return True
