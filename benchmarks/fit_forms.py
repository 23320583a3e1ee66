"""Opset down, `.ort` and half precision of real models: sizes, closeness, and what was refused.

python benchmarks/fit_forms.py                    # prints the table of docs/results.md
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

import onnxpress
from onnxpress.conversion import Conversion, convert_form, write_ort
from onnxpress.conversion.opset import change_opset
from onnxpress.data import load_samples
from onnxpress.graph import standard_opset
from onnxpress.model_file import save, to_bytes
from onnxpress.runtime import Feed, Session
from onnxpress.targets import load_target

MODELS = Path(__file__).parents[1] / "models"
CASES = {
    "fashion_cnn": (MODELS / "fashion_cnn.onnx", MODELS / "fashion_evaluation.npz"),
    "minilm": (MODELS / ".cache/minilm/model.onnx", MODELS / ".cache/minilm/evaluation.npz"),
    "ocr_rec": (MODELS / ".cache/ocr_rec/model.onnx", MODELS / ".cache/ocr_rec/evaluation.npz"),
}
SAMPLES = 8


def worst_db(wanted: list[dict[str, np.ndarray]], found: list[dict[str, np.ndarray]]) -> float:
    """SQNR of the worst float output over all samples."""
    worst = float("inf")
    for name, first in wanted[0].items():
        if not np.issubdtype(first.dtype, np.floating):
            continue
        power = sum(np.square(item[name].astype(np.float64)).sum() for item in wanted)
        noise = sum(
            np.square(b[name].astype(np.float64) - a[name]).sum()
            for a, b in zip(wanted, found, strict=True)
        )
        worst = min(worst, float(10 * np.log10(power / max(noise, 1e-300))))
    return worst


def closeness(db: float) -> str:
    """dB, or the word where nothing differs."""
    return "identical" if db > 300 else f"{db:.0f} dB"


def run_ort(path: Path, feeds: list[Feed]) -> list[dict[str, np.ndarray]]:
    """What onnxruntime answers from a `.ort` file."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, dict(feed)), strict=True)) for feed in feeds]


def main() -> None:
    """Print the table."""
    print("| model | opset 22 and back to 18 | .ort | half precision |")
    print("| --- | --- | --- | --- |")
    for name, (path, data) in CASES.items():
        if not path.exists() or not data.exists():
            print(f"{name}: run models/fetch.py and models/make_data.py first", file=sys.stderr)
            continue
        model = onnxpress.optimize(path, passes=["simplify"]).model
        session = Session(model)
        feeds = list(load_samples(data, session.inputs).feeds[:SAMPLES])
        wanted = [session.run(feed) for feed in feeds]
        lowered, notes = convert_form(
            change_opset(model, 22)[0], load_target("xnnpack"), Conversion(), feeds[:2]
        )
        back = [Session(lowered).run(feed) for feed in feeds]
        cells = [f"opset {standard_opset(lowered)}, {closeness(worst_db(wanted, back))}"]
        cells[0] += f"; {notes[0]}" if notes else ""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            save(model, file)
            (form, _) = write_ort(file, load_target("mobile"))
            size = form.stat().st_size
            cells.append(
                f"{size / 1e6:.2f} MB, {closeness(worst_db(wanted, run_ort(form, feeds)))}"
            )
        half, notes = convert_form(
            model, load_target("cpu-arm64"), Conversion(float16="keep-io"), feeds[:2]
        )
        answers = [Session(half).run(feed) for feed in feeds]
        ratio = len(to_bytes(half)) / len(to_bytes(model))
        cells.append(f"{ratio:.2f} of the bytes, {closeness(worst_db(wanted, answers))}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
