"""How often "held at 95%" is true: bounds from a few samples beside the truth of 10,000.

    apt-get install dataset-fashion-mnist
    python benchmarks/judge/coverage.py [--data FOLDER] [--splits 200] [--counts 50 200 1000]

Candidates of models/fashion_cnn.onnx with weights rounded, set to zero or disturbed, whose true
drops are around a budget of 1 point, answer all 10,000 test images once. Then many random subsets
are judged as if they were all there is: by the bounds of `onnxpress.judge.bounds`, and by the
percentile bootstrap of 0.1.0, whose 95% interval leaves 2.5% above. A bound fails where the truth
lies above it: of 200 splits at a confidence of 95% about 10 times, where it is exact.
"""

import argparse
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxpress.judge.bounds import bootstrap_bounds, mean_bounds, paired_bounds, share_upper
from onnxpress.runtime import Session

MODEL = Path(__file__).parents[2] / "models" / "fashion_cnn.onnx"
DATA = Path("/usr/share/datasets/fashion-mnist")
BATCH = 250
BUDGET = 0.01
CLASSES = 10
F1_RESAMPLES = 300

Floats = npt.NDArray[np.float64]
Figures = tuple[float, ...]
Change = Callable[[Floats, np.random.Generator], Floats]


def rounded(levels: int) -> Change:
    """Symmetric, a scale for each output channel; 7 levels are 4 bits, 3 are 3."""

    def change(w: Floats, rng: np.random.Generator) -> Floats:
        largest = np.abs(w).reshape(len(w), -1).max(axis=1)
        step = largest.reshape(-1, *[1] * (w.ndim - 1)) / levels
        return np.asarray(np.rint(w / step) * step)

    return change


def pruned(share: float) -> Change:
    """The smallest of every layer set to zero."""
    return lambda w, _: np.where(np.abs(w) < np.quantile(np.abs(w), share), 0.0, w)


def disturbed(share: float) -> Change:
    """Normal noise of a share of the layer's deviation."""
    return lambda w, rng: np.asarray(w + share * w.std() * rng.standard_normal(w.shape))


CANDIDATES: dict[str, Change] = {
    "rounded to 11 levels": rounded(11),
    "noise of 15%": disturbed(0.15),
    "40% zeros": pruned(0.4),
    "4 bits": rounded(7),
    "noise of 20%": disturbed(0.2),
    "3 bits": rounded(3),
    "45% zeros": pruned(0.45),
    "50% zeros": pruned(0.5),
    "noise of 25%": disturbed(0.25),
    "noise of 30%": disturbed(0.3),
}


def read_images(folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The 10,000 test images in [0, 1] and their classes."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as stream:
        pixels = np.frombuffer(stream.read(), np.uint8, offset=16)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as stream:
        labels = np.frombuffer(stream.read(), np.uint8, offset=8)
    images = pixels.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
    return images, labels.astype(np.int64)


def answers(model: onnx.ModelProto, images: npt.NDArray[np.float32]) -> Floats:
    """Probabilities `[n, classes]`."""
    session = Session(ir.from_proto(model))
    logits = np.concatenate(
        [
            session.run({"image": images[start : start + BATCH]})["logits"]
            for start in range(0, len(images), BATCH)
        ]
    ).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def changed(model: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    """A copy with all weight matrices and kernels changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for seed, tensor in enumerate(copy.graph.initializer):
        w = onnx.numpy_helper.to_array(tensor)
        if w.ndim >= 2 and w.dtype == np.float32:
            new = change(w.astype(np.float64), np.random.default_rng(seed))
            tensor.CopyFrom(onnx.numpy_helper.from_array(new.astype(np.float32), tensor.name))
    return copy


@dataclass(frozen=True, slots=True)
class Answers:
    """What the original and a candidate say of some images.

    Attributes:
        labels: the classes, `[n]`.
        before: probabilities by the original, `[n, classes]`.
        after: probabilities by the candidate, `[n, classes]`.
    """

    labels: npt.NDArray[np.int64]
    before: Floats
    after: Floats

    def take(self, indices: npt.NDArray[np.int64]) -> "Answers":
        """Those of some images."""
        return Answers(self.labels[indices], self.before[indices], self.after[indices])

    def losses(self, metric: str) -> Floats:
        """What is lost on each image, -1 to 1; its mean is the drop."""
        first, second = self.before.argmax(axis=1), self.after.argmax(axis=1)
        if metric == "agreement":
            return np.asarray(first != second, np.float64)
        if metric == "accuracy":
            return np.asarray((first == self.labels) * 1.0 - (second == self.labels))
        each = np.arange(len(self.labels))
        return np.asarray(self.before[each, self.labels] - self.after[each, self.labels])

    def f1_drop(self) -> Callable[[npt.NDArray[np.int64]], float]:
        """Of images at some indices the drop of F1 over the classes: no mean over images."""
        first, second = (
            CLASSES * self.labels + found.argmax(axis=1) for found in (self.before, self.after)
        )
        return lambda indices: _f1(first[indices]) - _f1(second[indices])

    def drop(self, metric: str) -> float:
        """Over all these images."""
        if metric == "macro F1":
            return self.f1_drop()(np.arange(len(self.labels)))
        return float(self.losses(metric).mean())

    def upper(self, metric: str) -> float:
        """The bound of 95% by `onnxpress.judge.bounds`, of F1 with a loss that was not seen."""
        n = len(self.labels)
        if metric == "macro F1":
            high = bootstrap_bounds(self.f1_drop(), n, resamples=F1_RESAMPLES)[1]
            return max(high, self.drop(metric) + share_upper(0, n))
        losses = self.losses(metric)
        if metric == "agreement":
            return share_upper(int(losses.sum()), n)
        if metric == "accuracy":
            return paired_bounds(int((losses > 0).sum()), int((losses < 0).sum()), n)[1]
        return mean_bounds(losses, least=-1, most=1)[1]

    def upper_before(self, metric: str) -> float:
        """The upper end of the interval of 0.1.0: percentiles of a bootstrap."""
        n = len(self.labels)
        rng = np.random.default_rng(0)
        if metric == "macro F1":
            f1_drop = self.f1_drop()
            drawn = [f1_drop(rng.integers(0, n, n)) for _ in range(F1_RESAMPLES)]
            return float(np.percentile(drawn, 97.5))
        picks = rng.integers(0, n, (1000, n))
        return float(np.percentile(self.losses(metric)[picks].mean(axis=1), 97.5))


METRICS = ("accuracy", "agreement", "probability of the right class", "macro F1")


def _f1(pairs: npt.NDArray[np.int64]) -> float:
    """The mean of F1 over the classes that occur, of pairs 10·label + answer."""
    table = np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    sizes = table.sum(axis=0) + table.sum(axis=1)
    occurs = sizes > 0
    return float((2 * np.diag(table)[occurs] / sizes[occurs]).mean())


def row(everything: Answers, metric: str, count: int, splits: int) -> Figures:
    """The true drop, how often either bound was below it, and how often the budget seemed held."""
    truth = everything.drop(metric)
    rng = np.random.default_rng(count)
    fails, failed_before, held, within = 0, 0, 0, 0
    for _ in range(splits):
        seen = everything.take(rng.choice(len(everything.labels), count, replace=False))
        upper = seen.upper(metric)
        fails += upper < truth
        failed_before += seen.upper_before(metric) < truth
        held += upper <= BUDGET
        within += seen.drop(metric) <= BUDGET
    shares = (100 * number / splits for number in (fails, failed_before, held, within))
    return (100 * truth, *shares)


HEADINGS = ("samples", "true drop", "bound fails", "0.1.0 fails", "held", "0.1.0 within")


def print_table(metric: str, first: str, lines: Sequence[tuple[str, int, Figures]]) -> None:
    """In Markdown."""
    print(f"\n{metric}\n\n| {' | '.join((first, *HEADINGS))} |\n{'| --- ' * 7}|")
    for name, count, figures in lines:
        cells = " | ".join(f"{figure:.1f}%" for figure in figures[1:])
        print(f"| {name} | {count} | {figures[0]:.2f} | {cells} |", flush=True)


def summary(lines: Sequence[tuple[str, int, Figures]]) -> list[tuple[str, int, Figures]]:
    """The mean and the worst over the candidates, for each number of samples."""
    found = []
    for count in sorted({count for _, count, _ in lines}):
        figures = np.array([each for _, number, each in lines if number == count])
        found.append(("mean of all", count, tuple(figures.mean(axis=0).tolist())))
        found.append(("worst of each", count, tuple(figures.max(axis=0).tolist())))
    return found


def main() -> None:
    """Print two tables a metric, in Markdown: all rows, and what comes of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), choices=METRICS)
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 200, 1000])
    options = parser.parse_args()
    images, labels = read_images(options.data)
    model = onnx.load(MODEL)
    before = answers(model, images)
    found = {
        name: Answers(labels, before, answers(changed(model, change), images))
        for name, change in CANDIDATES.items()
    }
    for metric in options.metrics:
        lines = [
            (name, count, row(everything, metric, count, options.splits))
            for count in options.counts
            for name, everything in found.items()
        ]
        print_table(metric, "candidate", lines)
        print_table(f"{metric}, summary", "candidates", summary(lines))


if __name__ == "__main__":
    main()
