"""How pictures are prepared by what the file of a model itself says: the export of Ultralytics.

Its metadata hold `task`, `stride` and `imgsz`; how its predictor prepares pictures for them stands
in its documentation (https://docs.ultralytics.com, LetterBox and `classify_transforms`): colours
from 0 to 1, put whole into the middle of grey 114; for classification the centre is cut out.
"""

import json
from collections.abc import Mapping

from onnxpress.data.pictures import Geometry, Pictures

__all__ = ["said_by_metadata"]

_GREY = 114


def said_by_metadata(metadata: Mapping[str, str], geometry: Geometry) -> Pictures | None:
    """What a model's metadata say of its pictures; `None` where that is not known.

    Args:
        metadata: of the model's file.
        geometry: of the input, whose fixed sizes say more than the metadata.
    """
    if "Ultralytics" not in metadata.get("author", "") or "imgsz" not in metadata:
        return None
    try:
        sides = json.loads(metadata["imgsz"])
    except ValueError:
        return None
    sides = sides if isinstance(sides, list) else [sides, sides]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        return None
    size = geometry.height or sides[0], geometry.width or sides[1]
    if metadata.get("task") == "classify":
        return Pictures(size=size)
    return Pictures(size=size, fit="pad", fill=_GREY)
