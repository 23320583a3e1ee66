"""What people read, at 80 columns: consoles of a text detector and a text encoder, word for word.

`python tests/cli/test_golden_consoles.py` writes the files anew; look at the difference before it
is committed. Figures are left out of the comparison, and what clocks decide: processors differ.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import run
from rich.cells import cell_len

sys.path.insert(0, str(Path(__file__).parent))
from consoles import detector, encoder

GOLDEN = Path(__file__).parent / "golden"
MODELS = {"detector": detector, "encoder": encoder}
COMMANDS = {
    "optimize": "optimize MODEL --goal size -o OUT --force",
    "dry run": "optimize MODEL --calibration DATA --dry-run",
    "inspect": "inspect MODEL",
    "validate": "validate OUT --reference MODEL --evaluation DATA",
    "bench": "bench MODEL OUT --data DATA",
    "diff": "diff MODEL OUT --data DATA",
    "data": "data MODEL DATA",
    "frontier": "optimize MODEL --goal size --frontier pressed",
    "several": "optimize MODEL missing.onnx --goal size -o several/",
    "data of others": "data MODEL OTHER",
}
CACHE = Path(__file__).parents[2] / "models" / ".cache"

_FIGURE = re.compile(r"(?<![\w.])-?\d[\d.,]*(?=[\s%,;)x]|$)")
_SPACES = re.compile(r"\s+")
_SPEED = re.compile(
    r"(#x faster|#x the speed: slower|about the same speed|no clear difference: #x)"
)
_SLOWER = re.compile(r" warning slower than the original: .*?\[W001\] ")


def consoles(name: str, folder: Path) -> dict[str, str]:
    """What each command prints of a model, in its folder, so that paths are short."""
    model, data = MODELS[name](folder)
    places = {"MODEL": model.name, "DATA": data.name, "OUT": "small.onnx", "OTHER": "other.npz"}
    before = Path.cwd()
    os.chdir(folder)
    found = {}
    try:
        for title, command in COMMANDS.items():
            with pytest.MonkeyPatch.context() as patch:
                # Of its own: how far a clock allowed one to measure must not show in the next.
                patch.setenv("ONNXPRESS_CACHE", str(folder / f"cache of {title}"))
                words = (places.get(word, word) for word in command.split())
                found[title] = run(*words).output
    finally:
        os.chdir(before)
    return found


def told(output: str) -> str:
    """Without figures, speeds, and breaks of lines and spaces that depend on how long they are."""
    text = _SPACES.sub(" ", output)
    return _SPEED.sub("SPEED", _FIGURE.sub("#", _SLOWER.sub(" ", text)))


@pytest.fixture(scope="module", params=MODELS)
def printed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, str]]:
    name = str(request.param)
    return name, consoles(name, tmp_path_factory.mktemp(name))


@pytest.mark.parametrize("title", COMMANDS)
def test_console_says_what_it_said(title: str, printed: tuple[str, dict[str, str]]) -> None:
    name, outputs = printed
    file = GOLDEN / f"{name} {title}.txt".replace(" ", "_")
    assert told(outputs[title]) == told(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("title", COMMANDS)
def test_no_line_is_over_80_columns(title: str, printed: tuple[str, dict[str, str]]) -> None:
    for line in printed[1][title].splitlines():
        assert cell_len(line) <= 80


@pytest.mark.public
@pytest.mark.parametrize("name", ["ocr_det", "minilm"])
def test_no_line_of_a_public_model_is_over_80_columns(name: str, tmp_path: Path) -> None:
    model, data = (CACHE / name / file for file in ("model.onnx", "calibration.npz"))
    places = {"MODEL": model, "DATA": data, "OUT": tmp_path / "o.onnx", "OTHER": data}
    for command in COMMANDS.values():
        output = run(*(places.get(word, word) for word in command.split())).output
        for line in output.splitlines():
            alone = len(line.split()) <= 2
            assert cell_len(line) <= 80 or alone, f"{command}: {line}"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            for title, output in consoles(name, Path(folder)).items():
                file = GOLDEN / f"{name} {title}.txt".replace(" ", "_")
                file.write_text(output, encoding="utf-8")
