"""How a picture becomes what a model is fed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval

from onnxpress.data.files import MOST
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import setting, validate

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Geometry", "Interpolation", "Pictures", "geometry_of", "is_picture", "tensor_of"]

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

_CHANNELS = (1, 3)
_DTYPES = ("float32", "float16", "float64", "uint8", "int8")


@dataclass(frozen=True)
class Pictures:
    """How pictures are prepared: the table `[images]` of a description.

    Raises:
        UsageError: a setting has the wrong type, or sizes contradict each other.
    """

    size: tuple[Annotated[int, Gt(0)], ...] = setting(
        (), "Height and width; without: those of the model, where they are fixed."
    )
    multiple: Annotated[int, Gt(0)] | None = setting(
        None, "Without a size: those of the picture, rounded to a multiple of this."
    )
    fit: Literal["crop", "pad", "stretch"] = setting(
        "crop", "Cut the centre out, fill what is missing, or change the ratio of the sides."
    )
    resize: Annotated[int, Gt(0)] | None = setting(
        None, "Length of the shorter side before the centre is cut out; without: as the size."
    )
    place: Literal["center", "start"] = setting(
        "center", "Where a picture lies that is filled up: in the middle or at the top left."
    )
    fill: Annotated[int, Interval(ge=0, le=255)] = setting(0, "What fills it, as a pixel.")
    colors: Literal["rgb", "bgr"] = setting("rgb", "The order of three channels.")
    scale: Annotated[float, Gt(0)] | None = setting(
        None, "What pixels are multiplied by; without: 1/255 where the input is float, 1 else."
    )
    mean: tuple[float, ...] = setting((), "Of each channel, subtracted behind the scale.")
    deviation: tuple[float, ...] = setting((), "Of each channel, divided by at last.")
    layout: Literal["auto", "nchw", "nhwc"] = setting("auto", "Where channels stand.")
    interpolation: Interpolation = setting("bilinear", "How Pillow resizes.")
    classes: tuple[str, ...] = setting(
        (), "Names of subfolders in the order of the model's classes; without: sorted."
    )
    labels: bool = setting(True, "Whether subfolders are classes.")  # noqa: FBT003 - a setting
    most: Annotated[int, Ge(1)] = setting(MOST, "Pictures that are read, evenly spread.")

    def __post_init__(self) -> None:
        validate(self, "[images]")
        if len(self.size) not in (0, 2):
            raise UsageError(
                f"[images]: size is {list(self.size)}; expected [height, width] [D010]"
            )
        if self.fit == "crop" and self.resize and self.size and self.resize < max(self.size):
            raise UsageError(
                f"[images]: resize is {self.resize}, less than the size {list(self.size)} that is "
                "cut out of it; give a larger one, or fit = 'pad' [D010]"
            )

    def in_words(self, spec: InputSpec) -> str:
        """What it does to pixels on the way to an input, for people."""
        top = 255 * self.scale_for(spec)
        norm = f", less mean {_listed(self.mean)}" if self.mean else ", no mean"
        norm += f", over {_listed(self.deviation)}" if self.deviation else ", no deviation"
        return f"{self.colors.upper()}, {self.fit}, 0 to {top:.4g}{norm}"

    def scale_for(self, spec: InputSpec) -> float:
        """What pixels are multiplied by for an input."""
        if self.scale is not None:
            return self.scale
        return 1 / 255 if spec.dtype.startswith("float") else 1.0


def _listed(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"


@dataclass(frozen=True)
class Geometry:
    """Where an input wants what.

    Attributes:
        last: whether channels stand behind height and width.
        channels: 1 for grey, 3 for colours.
        height: in pixels, `None` where it is dynamic; likewise `width`.
        batched: whether there is an axis in front.
    """

    last: bool
    channels: int
    height: int | None
    width: int | None
    batched: bool


def is_picture(spec: InputSpec, layout: str = "auto") -> bool:
    """Whether an input can take pictures."""
    return geometry_of(spec, layout) is not None


def geometry_of(spec: InputSpec, layout: str = "auto") -> Geometry | None:
    """How an input takes pictures, or `None` where it does not."""
    rank = len(spec.shape)
    if spec.dtype not in _DTYPES or rank not in (3, 4):
        return None
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in spec.shape[rank - 3 :]]
    front, back = dims[0], dims[2]
    open_front = layout == "auto" and front not in _CHANNELS and back in _CHANNELS
    last = open_front or layout == "nhwc"
    channels = back if last else front
    if channels is not None and channels not in _CHANNELS:
        return None
    height, width = (dims[0], dims[1]) if last else (dims[1], dims[2])
    return Geometry(last, 3 if channels is None else channels, height, width, rank == 4)


def tensor_of(picture: "Image", how: Pictures, spec: InputSpec, geometry: Geometry) -> Array:
    """What a model is fed for a picture, with a batch of 1 where the input has one.

    Args:
        picture: of any mode and size.
        how: it is prepared.
        spec: of the input.
        geometry: of the same input.

    Raises:
        DataError: the size is open.
    """
    height, width = _size(picture, how, spec, geometry)
    fitted = _fitted(picture.convert("L" if geometry.channels == 1 else "RGB"), how, height, width)
    pixels = np.asarray(fitted, dtype=np.float32).reshape(height, width, geometry.channels)
    if how.colors == "bgr":
        pixels = pixels[:, :, ::-1]
    integer = not spec.dtype.startswith("float")
    values = pixels * np.float32(how.scale_for(spec))
    if how.mean:
        values = values - _per_channel(how.mean, "mean", geometry)
    if how.deviation:
        values = values / _per_channel(how.deviation, "deviation", geometry)
    if not geometry.last:
        values = values.transpose(2, 0, 1)
    if integer:
        limits = np.iinfo(spec.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    array = np.ascontiguousarray(values, dtype=spec.dtype)
    return array[np.newaxis] if geometry.batched else array


def _per_channel(values: tuple[float, ...], name: str, geometry: Geometry) -> Floats:
    if len(values) not in (1, geometry.channels):
        raise DataError(
            f"[images]: {name} has {len(values)} values; expected one, or one for each of "
            f"{geometry.channels} channels [D010]"
        )
    return np.array(values, np.float32)


def _size(picture: "Image", how: Pictures, spec: InputSpec, geometry: Geometry) -> tuple[int, int]:
    asked = how.size or (None, None)
    if how.size and any(
        fixed not in (None, want)
        for fixed, want in zip((geometry.height, geometry.width), how.size, strict=True)
    ):
        raise DataError(f"[images]: size is {list(how.size)}; the model wants {spec} [D010]")
    height, width = geometry.height or asked[0], geometry.width or asked[1]
    if height is None or width is None:
        if how.multiple is None:
            raise DataError(
                f"{spec} takes pictures of any size; say which, in a description such as "
                'photos.toml with the lines [images], path = "photos", size = [224, 224] '
                "(or multiple = 32: as each picture is), and give that [D010]"
            )
        own = [max(1, round(side / how.multiple)) * how.multiple for side in picture.size]
        width, height = (width or own[0], height or own[1])
    return height, width


def _fitted(picture: "Image", how: Pictures, height: int, width: int) -> "Image":
    # What is imported where it is used: Pillow is an extra.
    from PIL import Image  # noqa: PLC0415

    method = Image.Resampling[how.interpolation.upper()]
    if how.fit == "stretch":
        return picture.resize((width, height), method)
    across, down = picture.size
    if how.fit == "pad":
        ratio = min(width / across, height / down)
        inner = (max(1, round(across * ratio)), max(1, round(down * ratio)))
        filling = how.fill if picture.mode == "L" else (how.fill,) * 3
        whole = Image.new(picture.mode, (width, height), filling)
        place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        whole.paste(picture.resize(inner, method), (0, 0) if how.place == "start" else place)
        return whole
    shorter = how.resize
    if shorter is not None and shorter < max(width, height):
        raise DataError(
            f"[images]: resize is {shorter}, less than the {height} by {width} that are cut out of "
            "it; give a larger one, or fit = 'pad' [D010]"
        )
    ratio = max(width / across, height / down) if shorter is None else shorter / min(across, down)
    scaled = (max(width, int(across * ratio)), max(height, int(down * ratio)))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    resized = picture.resize(scaled, method)
    return resized.crop((left, top, left + width, top + height))
