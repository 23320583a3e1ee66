"""Sentences of WordNet, and lines and pages rendered from them with Debian's fonts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

FONT_FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation")
WORDNET = Path("/usr/share/wordnet")
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def glosses() -> list[str]:
    """WordNet's glosses without their examples, in a fixed random order."""
    found: set[str] = set()
    for part in ("noun", "verb", "adj"):
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" ") and "| " in line:
                found.add(line.split("| ", 1)[1].split(";")[0].strip())
    lines = sorted(line for line in found if 20 <= len(line) <= 200)
    order = np.random.default_rng(0).permutation(len(lines))
    return [lines[index] for index in order]


def fonts() -> list[str]:
    """Font files with Latin letters."""
    return sorted(str(path) for folder in FONT_FOLDERS for path in Path(folder).glob("*.ttf"))


def text_line(words: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One line of text on a light ground, uint8 [height, width, 3]; slightly turned and noisy."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont  # noqa: PLC0415

    font = ImageFont.truetype(str(rng.choice(fonts())), int(rng.integers(24, 34)))
    ground, ink = int(rng.integers(200, 256)), int(rng.integers(0, 90))
    image = Image.new("RGB", (width, height), (ground,) * 3)
    while font.getlength(words) > width - 12 and " " in words:
        words = words.rsplit(" ", 1)[0]
    ImageDraw.Draw(image).text((6, height // 2), words, (ink,) * 3, font, anchor="lm")
    image = image.rotate(float(rng.uniform(-1.5, 1.5)), fillcolor=(ground,) * 3)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.7))))
    noisy = np.asarray(image, np.float32) + rng.normal(0, 4, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def page(height: int, width: int, rng: np.random.Generator, lines: Iterator[str]) -> np.ndarray:
    """A page of titles, paragraphs and ruled tables, uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    image = Image.new("RGB", (width, height), (int(rng.integers(235, 256)),) * 3)
    draw = ImageDraw.Draw(image)
    top = 20
    while top < height - 40:
        kind = rng.choice(["title", "paragraph", "paragraph", "table"])
        size = 26 if kind == "title" else int(rng.integers(12, 17))
        font = ImageFont.truetype(str(rng.choice(fonts())), size)
        rows = 1 if kind == "title" else int(rng.integers(3, 7))
        for _ in range(rows):
            if kind == "table":
                for column in range(3):
                    left = 30 + column * (width - 60) // 3
                    draw.rectangle((left, top, left + (width - 60) // 3, top + size + 8), outline=0)
                    draw.text((left + 4, top + 2), next(lines).split()[0], 0, font)
                top += size + 8
            else:
                draw.text((30, top), next(lines)[: (width - 60) * 2 // size], 0, font)
                top += int(size * 1.4)
        top += 24
    return np.asarray(image)


def chw(image: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]) -> np.ndarray:
    """RGB uint8 [H, W, 3] → BGR float32 [3, H, W], scaled to [0, 1] and normalized."""
    scaled = image[:, :, ::-1].astype(np.float32) / 255
    normal = (scaled - np.float32(mean)) / np.float32(deviation)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
