"""Rendered lines and pages: PP-OCR's detection, recognition and direction, and page layout."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from samples import Samples
from samples.text import IMAGENET_DEVIATION, IMAGENET_MEAN, chw, glosses, page, text_line

HALF = (0.5,) * 3


def ocr_rec(cache: Path) -> tuple[Samples, Samples]:
    """Lines at 48x320, (x/255 - .5)/.5, BGR."""
    lines = glosses()[:160]
    x = _lines(lines, np.random.default_rng(1))
    session = ort.InferenceSession(cache / "ocr_rec" / "model.onnx")
    letters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    classes = ["", *letters, " "]
    steps = session.run(None, {"x": x[:1]})[0][0].argmax(-1)
    decoded = [
        classes[step] for at, step in enumerate(steps) if step and (not at or steps[at - 1] != step)
    ]
    print(f"  reads {''.join(decoded)!r} where {lines[0][:40]!r} was written")
    return {"x": x[:64]}, {"x": x[64:]}


def ocr_rec_fresh(cache: Path) -> Samples:
    """Lines of other glosses."""
    return {"x": _lines(glosses()[20000:21024], np.random.default_rng(101))}


def _lines(lines: list[str], rng: np.random.Generator) -> np.ndarray:
    return np.stack([chw(text_line(line, 48, 320, rng), HALF, HALF) for line in lines])


def ocr_cls(cache: Path) -> tuple[Samples, Samples]:
    """Lines at 48x192, upright (0) or turned by 180 degrees (1)."""
    x, turned = _turned(glosses()[200:584], np.random.default_rng(2))
    return {"x": x[:128]}, {"x": x[128:], "__labels__": turned[128:]}


def ocr_cls_fresh(cache: Path) -> Samples:
    """Lines of other glosses."""
    x, turned = _turned(glosses()[22000:23024], np.random.default_rng(102))
    return {"x": x, "__labels__": turned}


def _turned(lines: list[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    turned = rng.integers(0, 2, len(lines))
    images = []
    for line, turn in zip(lines, turned, strict=True):
        image = text_line(line, 48, 192, rng)
        images.append(chw(image[::-1, ::-1] if turn else image, HALF, HALF))
    return np.stack(images), turned


def ocr_det(cache: Path) -> tuple[Samples, Samples]:
    """Pages at 320x320 with ImageNet's mean and deviation."""
    x = _pages(72, (320, 320), np.random.default_rng(3), iter(glosses()[1000:]))
    return {"x": x[:32]}, {"x": x[32:]}


def ocr_det_fresh(cache: Path) -> Samples:
    """Pages of other glosses."""
    return {"x": _pages(256, (320, 320), np.random.default_rng(103), iter(glosses()[24000:]))}


def layout(cache: Path) -> tuple[Samples, Samples]:
    """Pages at 800x608."""
    x = _pages(40, (800, 608), np.random.default_rng(4), iter(glosses()[4000:]))
    return {"image": x[:16]}, {"image": x[16:]}


def layout_fresh(cache: Path) -> Samples:
    """Pages of other glosses."""
    return {"image": _pages(256, (800, 608), np.random.default_rng(104), iter(glosses()[34000:]))}


def orientation(cache: Path) -> tuple[Samples, Samples]:
    """The middle 224x224 of pages at 320x256, turned clockwise by as many quarters as the label."""
    x, turns = _quarters(384, np.random.default_rng(21), iter(glosses()[40000:]))
    return {"x": x[:128]}, {"x": x[128:], "__labels__": turns[128:]}


def orientation_fresh(cache: Path) -> Samples:
    """Pages of other glosses."""
    x, turns = _quarters(1024, np.random.default_rng(121), iter(glosses()[50000:]))
    return {"x": x, "__labels__": turns}


def _quarters(
    count: int, rng: np.random.Generator, lines: Iterator[str]
) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image  # noqa: PLC0415

    turns = rng.integers(0, 4, count)
    images = []
    for turn in turns.tolist():
        drawn = Image.fromarray(page(640, 512, rng, lines)).resize(
            (256, 320), Image.Resampling.LANCZOS
        )
        turned = np.rot90(np.asarray(drawn), -turn)
        top, left = ((side - 224) // 2 for side in turned.shape[:2])
        seen = turned[top : top + 224, left : left + 224]
        images.append(chw(seen, IMAGENET_MEAN, IMAGENET_DEVIATION))
    return np.stack(images), turns


def _pages(
    count: int, size: tuple[int, int], rng: np.random.Generator, lines: Iterator[str]
) -> np.ndarray:
    pages = (page(*size, rng, lines) for _ in range(count))
    return np.stack([chw(image, IMAGENET_MEAN, IMAGENET_DEVIATION) for image in pages])
