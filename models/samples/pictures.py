"""Crops of photographs for the detectors, the rare-class classifier and the map of importance."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from samples import Samples
from samples.sources import Part, crops
from samples.text import IMAGENET_DEVIATION, IMAGENET_MEAN, fonts

CAFFE_MEAN_BGR = (104.0, 117.0, 123.0)
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"


def nudenet(cache: Path) -> tuple[Samples, Samples]:
    """Padded below and right to a square, 320, RGB, in [0, 1]."""
    return (
        {"images": _stacked(padded_square, crops("calibration", 64, 11, cache, 0.6))},
        {"images": _stacked(padded_square, crops("evaluation", 256, 12, cache, 0.6))},
    )


def nudenet_fresh(cache: Path) -> Samples:
    """256 crops of pictures that neither of the first two sets has."""
    return {"images": _stacked(padded_square, crops("fresh", 256, 111, cache, 0.6))}


def open_nsfw(cache: Path) -> tuple[Samples, Samples]:
    """256, saved as JPEG and read again, the middle 224, BGR less the mean, channels last."""
    return (
        {"input_0": _stacked(jpeg_centre, crops("calibration", 96, 13, cache))},
        {"input_0": _stacked(jpeg_centre, crops("evaluation", 256, 14, cache))},
    )


def open_nsfw_fresh(cache: Path) -> Samples:
    """256 crops of pictures that neither of the first two sets has."""
    return {"input_0": _stacked(jpeg_centre, crops("fresh", 256, 113, cache))}


def vit_focus(cache: Path) -> tuple[Samples, Samples]:
    """Longer side 224, padded with black around the middle, ImageNet's mean and deviation."""
    return (
        {"input_image": _stacked(padded_middle, crops("calibration", 64, 15, cache))},
        {"input_image": _stacked(padded_middle, crops("evaluation", 128, 16, cache))},
    )


def vit_focus_fresh(cache: Path) -> Samples:
    """256 crops of pictures that neither of the first two sets has."""
    return {"input_image": _stacked(padded_middle, crops("fresh", 256, 115, cache))}


def captcha_det(cache: Path) -> tuple[Samples, Samples]:
    """Three to six letters strewn over a crop, 416, BGR, 0 to 255, padded with grey."""
    parts = []
    for part, count, seed in (("calibration", 64, 17), ("evaluation", 256, 18)):
        parts.append({"images": _captchas(part, count, seed, cache)})
    return parts[0], parts[1]


def captcha_det_fresh(cache: Path) -> Samples:
    """256 pictures on grounds that neither of the first two sets has."""
    return {"images": _captchas("fresh", 256, 117, cache)}


def _captchas(part: Part, count: int, seed: int, cache: Path) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grounds = crops(part, count, seed, cache, people=0)
    return np.stack([padded_grey(_strewn(ground, rng)) for ground in grounds])


def _stacked(prepare: Any, images: list[Any]) -> np.ndarray:  # noqa: ANN401 - a function
    return np.stack([prepare(image) for image in images])


def padded_square(image: Any) -> np.ndarray:  # noqa: ANN401 - Pillow is optional
    """A Pillow image → float32 [3, 320, 320]; sampled without smoothing, as OpenCV does."""
    from PIL import Image  # noqa: PLC0415

    side = max(image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image, (0, 0))
    box = (0, 0, side, side)
    small = square.transform((320, 320), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32).transpose(2, 0, 1) / np.float32(255)


def jpeg_centre(image: Any) -> np.ndarray:  # noqa: ANN401 - Pillow is optional
    """A Pillow image → float32 [224, 224, 3]."""
    from PIL import Image  # noqa: PLC0415

    saved = io.BytesIO()
    image.resize((256, 256), Image.Resampling.BILINEAR).save(saved, format="JPEG")
    read = np.asarray(Image.open(saved).convert("RGB"), np.float32)
    return read[16:240, 16:240, ::-1] - np.float32(CAFFE_MEAN_BGR)


def padded_middle(image: Any) -> np.ndarray:  # noqa: ANN401 - Pillow is optional
    """A Pillow image → float32 [3, 224, 224]."""
    from PIL import Image  # noqa: PLC0415

    scale = 224 / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (224, 224))
    small = image.resize((width, height), Image.Resampling.BOX)
    square.paste(small, ((224 - width) // 2, (224 - height) // 2))
    scaled = np.asarray(square, np.float32) / 255
    normal = (scaled - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_DEVIATION)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def padded_grey(image: Any) -> np.ndarray:  # noqa: ANN401 - Pillow is optional
    """A Pillow image → BGR float32 [3, 416, 416], 0 to 255, below and right of it 114."""
    from PIL import Image  # noqa: PLC0415

    scale = 416 / max(image.size)
    width, height = (int(side * scale) for side in image.size)
    square = Image.new("RGB", (416, 416), (114,) * 3)
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
    return np.ascontiguousarray(np.asarray(square, np.float32)[:, :, ::-1].transpose(2, 0, 1))


def _strewn(ground: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401 - Pillow is optional
    """Letters in random places, sizes, colours and turns on a ground of 384 by 344."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    image = ground.resize((384, 344), Image.Resampling.BILINEAR)
    for letter in rng.choice(list(LETTERS), rng.integers(3, 7)):
        size = int(rng.integers(36, 72))
        font = ImageFont.truetype(str(rng.choice(fonts())), size)
        stamp = Image.new("L", (2 * size, 2 * size))
        ImageDraw.Draw(stamp).text((size, size), str(letter), 255, font, anchor="mm")
        stamp = stamp.rotate(float(rng.uniform(-40, 40)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        place = (int(rng.integers(0, 384 - 2 * size)), int(rng.integers(0, 344 - 2 * size)))
        image.paste(colour, place, stamp)
    return image
