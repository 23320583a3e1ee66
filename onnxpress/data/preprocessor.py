"""The `preprocessor_config.json` that the transformers library writes beside a model."""

import json
from pathlib import Path
from typing import Any

from onnxpress.errors import DataError

__all__ = ["beside", "said_in"]

_NAME = "preprocessor_config.json"


def beside(path: Path) -> Path | None:
    """The one in the folder of some data, or in the folder above."""
    folder = path if path.is_dir() else path.parent
    places = (folder / _NAME, folder.parent / _NAME)
    return next((place for place in places if place.is_file()), None)


def said_in(file: Path) -> dict[str, Any]:
    """What such a file says.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}) [D010]") from error
    if not isinstance(said, dict):
        raise DataError(f"{file}: holds a {type(said).__name__}; expected an object [D010]")
    return said
