"""Distil compressed Fashion-MNIST networks towards their originals, and time a step.

    python benchmarks/distill.py --students FOLDER [--samples 256 4096] [--steps 1000] [NAME ...]
    python benchmarks/distill.py "cnn, 2 bits" --students FOLDER --block-steps 100
    python benchmarks/distill.py "cnn, a quarter of the multiply-adds" --students FOLDER \
        --initialize --rate 0.02
    python benchmarks/distill.py --clock

Students are made once by our own commands (`STUDENTS`) into the folder. They are trained on images
of Fashion-MNIST's training part without labels, drawn with seed 1, and judged on
`models/fashion_evaluation.npz`, 2,000 images of the other part with labels. The data is that of
Debian's package dataset-fashion-mnist. Public models have their own samples.
"""

import argparse
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir.passes.common import LiftConstantsToInitializersPass

import onnxpress
from onnxpress import model_file, registry
from onnxpress.distillation.losses import targets_of
from onnxpress.distillation.problem import derive
from onnxpress.judge.reading import read_outputs
from onnxpress.layers import find_layers
from onnxpress.runtime import EXACT, Session

MODELS = Path(__file__).parents[1] / "models"
IMAGES = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
STUDENTS: dict[str, tuple[str, list[tuple[str, dict[str, Any]]]]] = {
    "mlp without 70% of its weights": ("fashion_mlp", [("zero", {"share": 0.7})]),
    "cnn without 70% of its weights": ("fashion_cnn", [("zero", {"share": 0.7})]),
    "mobile without 70% of its weights": ("fashion_mobile", [("zero", {"share": 0.7})]),
    "mlp, sparsify 90%": ("fashion_mlp", [("sparsify", {"sparsity": 0.9})]),
    "mlp, 2:4 and int8": (
        "fashion_mlp",
        [("sparsify", {"pattern": "2:4"}), ("quantize", {"form": "static"}), ("pack", {})],
    ),
    "cnn, 2:4 and int8": (
        "fashion_cnn",
        [("sparsify", {"pattern": "2:4"}), ("quantize", {"form": "static"}), ("pack", {})],
    ),
    "cnn, prune to 30% of the multiply-adds": ("fashion_cnn", [("prune", {"ratio": 0.3})]),
    "mobile, prune to 50% of the multiply-adds": ("fashion_mobile", [("prune", {"ratio": 0.5})]),
    "mobile, prune to 30% of the multiply-adds": ("fashion_mobile", [("prune", {"ratio": 0.3})]),
    "cnn, 3 bits": ("fashion_cnn", [("quantize", {"form": "weight_only", "weight_bits": [3]})]),
    "cnn, 2 bits": ("fashion_cnn", [("quantize", {"form": "weight_only", "weight_bits": [2]})]),
    "mobile, 3 bits": (
        "fashion_mobile",
        [("quantize", {"form": "weight_only", "weight_bits": [3]})],
    ),
    "mobile, 2 bits": (
        "fashion_mobile",
        [("quantize", {"form": "weight_only", "weight_bits": [2]})],
    ),
    "mlp, 2 bits": ("fashion_mlp", [("quantize", {"form": "weight_only", "weight_bits": [2]})]),
    "cnn, a quarter of the multiply-adds": ("fashion_cnn", [("prune", {"ratio": 0.25})]),
    "ocr_rec without 30% of its weights": ("ocr_rec", [("zero", {"share": 0.3})]),
    "ocr_det without 30% of its weights": ("ocr_det", [("zero", {"share": 0.3})]),
    "ocr_cls without 30% of its weights": ("ocr_cls", [("zero", {"share": 0.3})]),
    "minilm without 30% of its weights": ("minilm", [("zero", {"share": 0.3})]),
}


def paths(original: str) -> tuple[Path, Path, Path]:
    """The model, samples to train with, and samples to judge on."""
    if original.startswith("fashion"):
        data = MODELS / "fashion_calibration.npz", MODELS / "fashion_evaluation.npz"
        return MODELS / f"{original}.onnx", *data
    folder = MODELS / ".cache" / original
    return folder / "model.onnx", folder / "calibration.npz", folder / "evaluation.npz"


def student(name: str, folder: Path) -> tuple[Path, Path]:
    """The teacher's file and the student's, which is made where it is not there."""
    original, passes = STUDENTS[name]
    teacher, path = paths(original)[0], folder / f"{name.replace(' ', '_')}.onnx"
    if path.exists():
        return teacher, path
    if passes[0][0] == "zero":
        model = model_file.load(teacher)
        LiftConstantsToInitializersPass(size_limit=2)(model)
        for layer in find_layers(model):
            if layer.op_type != "Gather":
                array = layer.array.copy()
                array[np.abs(array) < np.quantile(np.abs(array), passes[0][1]["share"])] = 0
                layer.write_stored(array)
        model_file.save(model, path)
        return teacher, path
    result = onnxpress.optimize(
        teacher,
        passes=[registry.create(each, options) for each, options in passes],
        calibration=MODELS / "fashion_calibration.npz",
        evaluation=MODELS / "fashion_evaluation.npz",
        max_drop=100,
        min_sqnr=-50,
        goal="size",
    )
    result.save(path)
    return teacher, path


def images(number: int) -> dict[str, np.ndarray]:
    """So many of the 60,000 of the training part."""
    with gzip.open(IMAGES) as stream:
        raw = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    chosen = np.random.default_rng(1).permutation(len(raw))[:number]
    return {"image": raw[chosen].astype(np.float32) / 255}


def clock(name: str, batch: int = 32, runs: int = 15) -> str:
    """Processor time of a step and of forward runs in one thread, the least of some."""
    path = MODELS / f"{name}.onnx"
    model, session = model_file.load(path), Session(path, threads=1)
    with np.load(MODELS / "fashion_calibration.npz") as archive:
        feed: dict[str, np.ndarray] = {"image": archive["image"][:batch]}
    answers = session.run(feed)
    targets = targets_of(read_outputs(model, session, [answers]), [answers])
    copy, derived, scoring = derive(model, targets, 2.0)
    values = {n: copy.parameters[n].start for n in derived.gradients}
    whole = {**feed, **values, **{t.input: answers[t.output] for t in targets}}
    step = Session(derived.model, threads=1, config=EXACT)
    loss = Session(scoring, threads=1, config=EXACT)
    times = [
        _least(lambda: session.run(feed), runs),
        _least(lambda: loss.run(whole), runs),
        _least(lambda: step.run(whole), runs),
    ]
    forward, unfused, whole_step = (1e3 * each for each in times)
    return (
        f"| {name} | {forward:.1f} | {unfused:.1f} | {whole_step:.1f} | "
        f"{whole_step / forward:.1f} | {whole_step / unfused:.1f} |"
    )


def _least(run: Callable[[], object], runs: int) -> float:
    found = []
    for _ in range(runs):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    """Print a line of a table for each student and number of samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--students", type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--block-steps", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.005)
    parser.add_argument("--initialize", action="store_true")
    parser.add_argument("--clock", action="store_true")
    given = parser.parse_args()
    if given.clock:
        for name in ("fashion_mlp", "fashion_cnn", "fashion_mobile"):
            print(clock(name), flush=True)
        return
    for name in given.names or STUDENTS:
        teacher, path = student(name, given.students)
        _, calibration, evaluation = paths(STUDENTS[name][0])
        ours = STUDENTS[name][0].startswith("fashion")
        for number in given.samples if ours else [0]:
            found = onnxpress.distill(
                teacher,
                path,
                calibration=images(number) if ours else calibration,
                evaluation=evaluation,
                steps=given.steps,
                block_steps=given.block_steps,
                learning_rate=given.rate,
                initialize=given.initialize,
            )
            before, after = found.before, found.after.measurement
            was, now = before.metrics[0], after.metrics[0]
            print(
                f"| {name} | {sum(found.samples[:2]):,} | {was.reference:.2f} | {was.value:.2f} | "
                f"{now.value:.2f} | {before.worst_sqnr_db:.1f} | {after.worst_sqnr_db:.1f} | "
                f"{found.trained.before:.4f} | {found.trained.best:.4f} | "
                f"{found.trained.steps} | {found.seconds:.0f} | {found.why_not or 'better'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
