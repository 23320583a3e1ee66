"""Samples from a folder of pictures; subfolders are classes."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxpress.data.files import Row, assembled, has_files, listed, readable
from onnxpress.data.metadata import said_by_metadata
from onnxpress.data.pictures import (
    Geometry,
    Interpolation,
    Pictures,
    geometry_of,
    is_picture,
    tensor_of,
)
from onnxpress.data.preparation import preparation_of
from onnxpress.data.preprocessor import beside, said_in
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["READER", "read_images", "said_by_processor"]

_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)
_WHAT = "pictures"
_METHODS: tuple[Interpolation, ...] = (
    "nearest",
    "lanczos",
    "bilinear",
    "bicubic",
    "box",
    "hamming",
)
"""By Pillow's numbers, which such files hold."""
_SIDE = 384
"""ConvNeXt's processor cuts the centre out only below this."""


def _accepts(data: object) -> bool:
    return has_files(path_of(data), _SUFFIXES)


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    return read_images(Path(data), None, inputs, {})


def read_images(
    path: Path,
    how: Pictures | None,
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
) -> Samples:
    """Samples of a folder of pictures, or of one.

    Args:
        path: of the folder.
        how: they are prepared; `None`: as `preprocessor_config.json` in the folder or beside it
            says, else as the model's own metadata say, else scaled to 0…1 and nothing more, which
            is noted.
        inputs: of the model.
        constants: what its other inputs are fed.

    Raises:
        DataError: no pictures that can be read, or a model that takes none.
        UsageError: Pillow is not installed, or the file says what cannot be done.
    """
    notes: list[str] = []
    if how is None:
        spec, geometry = _input(inputs, constants, Pictures(), path)
        stated, own = beside(path), said_by_metadata(spec.metadata, geometry)
        how, ignored = (own or Pictures(), []) if stated is None else said_by_processor(stated)
        said = "the model's metadata" if stated is None and own is not None else stated
        notes.append(_assumption(path, how.in_words(spec), said, ignored))
    else:
        spec, geometry = _input(inputs, constants, how, path)
    found = listed(path, _SUFFIXES, _WHAT, how.most, how.classes, labelled=how.labels)
    notes += found.notes
    rows = _rows(readable(found, _opened, notes), how, spec, geometry)
    samples = assembled(rows, inputs, constants, str(path), notes)
    kept = preparation_of(
        "images", how, inputs, constants, scale=how.scale_for(spec), classes=found.classes
    )
    return replace(samples, preparation=kept)


def _input(
    inputs: Sequence[InputSpec], constants: Mapping[str, Array], how: Pictures, path: Path
) -> tuple[InputSpec, Geometry]:
    open_inputs = [spec for spec in inputs if spec.name not in constants]
    takes = [spec for spec in open_inputs if is_picture(spec, how.layout)]
    geometry = geometry_of(takes[0], how.layout) if len(takes) == 1 else None
    if geometry is None or len(open_inputs) > 1:
        wanted = "; ".join(str(spec) for spec in inputs)
        raise DataError(
            f"{path}: pictures feed one input of 1 or 3 channels; the model wants {wanted}; feed "
            "others in the table [constants] of a description, or give module:function that "
            "yields a dictionary of arrays per sample [D013]"
        )
    return takes[0], geometry


def _rows(
    pictures: Iterable[tuple["Image", int | None]],
    how: Pictures,
    spec: InputSpec,
    geometry: Geometry,
) -> Iterator[Row]:
    for picture, label in pictures:
        yield {spec.name: tensor_of(picture, how, spec, geometry)}, label


def _opened(file: Path) -> "Image":
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"{file}: pictures are read by Pillow, which is not installed; install it with "
            "pip install 'onnxpress[images]' [U007]"
        ) from error
    try:
        with warnings.catch_warnings():
            # What a picture's metadata lacks is no concern of its user.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                return _in_8_bits(ImageOps.exif_transpose(picture), file)
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise DataError(
            f"{file}: cannot be read as a picture ({error}); remove it or save it again [D008]"
        ) from error


def _in_8_bits(picture: "Image", file: Path) -> "Image":
    """A picture whose values Pillow converts without cutting them off at 255."""
    from PIL import Image  # noqa: PLC0415 - an extra

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture, np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise DataError(
            f"{file}: its pixels are 32-bit numbers whose range is not known; save it in 8 or 16 "
            "bits, or give module:function that yields a dictionary of arrays per sample [D017]"
        )
    return picture


def _assumption(
    path: Path, prepared: str, stated: Path | str | None, ignored: Sequence[str]
) -> str:
    if stated is None:
        return (
            f"{path}: nothing says how pictures are prepared, so they are fed as {prepared}; if "
            "the model was trained otherwise its answers mean little: state it in a "
            "description [A007]"
        )
    left = f"; not carried out: {', '.join(ignored)}" if ignored else ""
    say = "say" if isinstance(stated, str) else "says"
    return f"{path}: pictures are prepared as {stated} {say}: {prepared}{left}"


def said_by_processor(file: Path) -> tuple[Pictures, list[str]]:
    """What a `preprocessor_config.json` of the transformers library says, and what is ignored.

    Raises:
        DataError: it cannot be read.
        UsageError: it says what cannot be done.
    """
    said = said_in(file)
    try:
        how = _sized(Pictures(), said)
        method = said.get("resample")
        if isinstance(method, int) and 0 <= method < len(_METHODS):
            how = replace(how, interpolation=_METHODS[method])
        if said.get("do_rescale") is False:
            how = replace(how, scale=1.0)
        elif "rescale_factor" in said:
            how = replace(how, scale=float(said["rescale_factor"]))
        if said.get("do_normalize", "image_mean" in said):
            how = replace(
                how, mean=_floats(said["image_mean"]), deviation=_floats(said["image_std"])
            )
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"{file}: says what is not understood ({type(error).__name__}: {error}); state it in a "
            "description in place of this file [D010]"
        ) from error
    done = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
    ignored = sorted(k for k, v in said.items() if k.startswith("do_") and v is True)
    return how, [name for name in ignored if name not in done]


def _floats(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - of a file
    return tuple(float(value) for value in values)


def _sized(how: Pictures, said: Mapping[str, Any]) -> Pictures:
    size, crop = _pair(said.get("size")), _pair(said.get("crop_size"))
    shortest = _shortest(said.get("size"))
    if shortest is not None and "crop_pct" in said and shortest < _SIDE:
        return replace(
            how, size=(shortest, shortest), resize=int(shortest / float(said["crop_pct"]))
        )
    if said.get("do_center_crop") and crop is not None:
        resize = shortest or (min(size) if size else None)
        return replace(how, size=crop, resize=resize if said.get("do_resize", True) else None)
    if size is not None:
        return replace(how, size=size, fit="stretch")
    return how if shortest is None else replace(how, size=(shortest, shortest))


def _pair(found: object) -> tuple[int, int] | None:
    if isinstance(found, int):
        return found, found
    if isinstance(found, dict) and {"height", "width"} <= set(found):
        return int(found["height"]), int(found["width"])
    return None


def _shortest(found: object) -> int | None:
    if isinstance(found, dict) and "shortest_edge" in found:
        return int(found["shortest_edge"])
    return None


READER = Reader(
    "a folder of pictures",
    _accepts,
    _read,
    before=("texts",),
)
