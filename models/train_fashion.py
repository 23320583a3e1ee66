# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy>=1.26",
#     "onnx>=1.18",
#     "onnxruntime>=1.20",
#     "onnxscript>=0.7.2",
#     "torch==2.13.0",
# ]
# ///
"""Train the three committed Fashion-MNIST networks and cut their data.

Reads the four `*-ubyte.gz` files of Fashion-MNIST (Debian's package
`dataset-fashion-mnist` puts them under /usr/share/datasets/fashion-mnist) and
writes, into `--out`:

* `fashion_cnn.onnx`, a residual network (He et al., arXiv:1512.03385) of three
  stages with 32, 64 and 128 channels, opset 17, its BatchNormalization kept;
* `fashion_mlp.onnx`, a multilayer perceptron of four Gemm nodes, opset 13;
* `fashion_mobile.onnx`, inverted residuals (MobileNetV2, arXiv:1801.04381) with
  ReLU6 and, behind, h-swish (MobileNetV3, arXiv:1905.02244), opset 17;
* `fashion_calibration.npz`, 256 training images without labels;
* `fashion_evaluation.npz`, 2,000 test images, 200 a class, with `__labels__`.

All take `image` float32 [batch, 1, 28, 28] in [0, 1] and give
`logits` float32 [batch, 10]. Files are the same from run to run for the same
seed, versions, thread count and processor.

    python models/train_fashion.py --data /usr/share/datasets/fashion-mnist --out models
"""

import argparse
import gzip
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

CALIBRATION_SAMPLES = 256
EVALUATION_SAMPLES = 2000
CLASSES = 10
PIXEL_MEAN, PIXEL_DEVIATION = 0.2860, 0.3530


@dataclass(frozen=True, slots=True)
class Dataset:
    """Fashion-MNIST: images uint8 [N, 1, 28, 28] and labels int64 [N] of both parts."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one network is trained: one cycle of cosine annealing after a short warm-up."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    crop: int
    """Pixels of zero padding before the random 28x28 crop."""


CNN_SCHEDULE = Schedule(epochs=12, batch=128, learning_rate=0.1, weight_decay=5e-4, crop=2)
MOBILE_SCHEDULE = Schedule(epochs=12, batch=128, learning_rate=0.1, weight_decay=1e-4, crop=2)
MLP_SCHEDULE = Schedule(epochs=24, batch=128, learning_rate=0.1, weight_decay=1e-4, crop=0)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.add_module(
                "conv", nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            )
            self.shortcut.add_module("bn", nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels_in, H, W] to [N, channels_out, H/stride, W/stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


class FashionCnn(nn.Module):
    """Residual network; the normalisation of the pixels is part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN))
        self.register_buffer("deviation", torch.tensor(PIXEL_DEVIATION))
        # Stride 2: 28x28 in the first stage costs four times as much, in training
        # and in every later evaluation, for half a point of accuracy.
        self.stem = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(1, 32, 3, 2, 1, bias=False), bn=nn.BatchNorm2d(32))
        )
        self.stage1 = self._stage(32, 32, 1)
        self.stage2 = self._stage(32, 64, 2)
        self.stage3 = self._stage(64, 128, 2)
        self.head = nn.Linear(128, CLASSES)

    @staticmethod
    def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            OrderedDict(
                block0=Block(channels_in, channels_out, stride),
                block1=Block(channels_out, channels_out, 1),
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, 1, 28, 28] in [0, 1] to logits [N, 10]."""
        x = (image - self.mean) / self.deviation
        x = functional.relu(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class Inverted(nn.Module):
    """1x1 to `expansion` times the channels, depthwise 3x3, 1x1 back, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        wide = 4 * channels_in
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            act,
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            act,
            nn.Conv2d(wide, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels_in, H, W] to [N, channels_out, H/stride, W/stride]."""
        y = self.body(x)
        return x + y if self.residual else y


class FashionMobile(nn.Module):
    """Depthwise network; the normalisation of the pixels is part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN))
        self.register_buffer("deviation", torch.tensor(PIXEL_DEVIATION))
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        plan = ((24, 1), (24, 1), (40, 2), (40, 1), (72, 2), (72, 1), (72, 1))
        blocks: list[nn.Module] = []
        channels = 16
        for index, (wider, stride) in enumerate(plan):
            act = nn.ReLU6() if index < 3 else nn.Hardswish()
            blocks.append(Inverted(channels, wider, stride, act))
            channels = wider
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(
            nn.Conv2d(channels, 288, 1, bias=False), nn.BatchNorm2d(288), nn.Hardswish()
        )
        self.head = nn.Linear(288, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, 1, 28, 28] in [0, 1] to logits [N, 10]."""
        x = (image - self.mean) / self.deviation
        x = self.last(self.blocks(self.stem(x)))
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class FashionMlp(nn.Module):
    """Four dense layers, 784-512-512-256-10."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, 256)
        self.head = nn.Linear(256, CLASSES)
        self.dropout = nn.Dropout(0.15)

    def forward(self, image: Tensor) -> Tensor:
        """Map [N, 1, 28, 28] in [0, 1] to logits [N, 10]."""
        x = torch.flatten(image, 1)
        for layer in (self.fc1, self.fc2, self.fc3):
            x = self.dropout(functional.relu(layer(x)))
        return self.head(x)


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes.

    Raises:
        SystemExit: If the file is not there or is not IDX of unsigned bytes.
    """
    if not path.is_file():
        raise SystemExit(
            f"{path}: not found. Install Debian's dataset-fashion-mnist, or give the folder "
            "of the four idx*-ubyte.gz files with --data."
        )
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise SystemExit(f"{path}: expected an IDX file of unsigned bytes, found {raw[:3]!r}.")
    sides = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sides)


def load(folder: Path) -> Dataset:
    """Read the four files of Fashion-MNIST."""
    return Dataset(
        read_idx(folder / "train-images-idx3-ubyte.gz")[:, None],
        read_idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int64),
        read_idx(folder / "t10k-images-idx3-ubyte.gz")[:, None],
        read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64),
    )


def scaled(images: np.ndarray) -> np.ndarray:
    """Bring uint8 pixels to float32 in [0, 1], as the networks take them."""
    return images.astype(np.float32) / np.float32(255)


def augmented(images: Tensor, crop: int) -> Tensor:
    """Shift each image by up to `crop` pixels and mirror half of them; [N, 1, 28, 28] both ways."""
    count = images.shape[0]
    padded = functional.pad(images, (crop, crop, crop, crop))
    dy, dx = torch.randint(0, 2 * crop + 1, (2, count, 1))
    columns = torch.arange(28).repeat(count, 1)
    columns = torch.where(torch.rand(count, 1) < 0.5, 27 - columns, columns) + dx
    rows = torch.arange(28).repeat(count, 1) + dy
    samples = torch.arange(count)[:, None, None]
    return padded[samples, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(network: nn.Module, data: Dataset, schedule: Schedule, seed: int) -> None:
    """Fit `network` in place with Nesterov's momentum, leaving it in evaluation mode."""
    torch.manual_seed(seed)
    images = torch.from_numpy(scaled(data.train_images))
    labels = torch.from_numpy(data.train_labels)
    steps = len(labels) // schedule.batch
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay, lr=1
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        schedule.learning_rate,
        total_steps=steps * schedule.epochs,
        pct_start=0.15,
        cycle_momentum=False,
    )
    network.train()
    for epoch in range(schedule.epochs):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(labels))[: steps * schedule.batch].split(schedule.batch):
            batch = augmented(images[chosen], schedule.crop)
            # bfloat16 halves the time; parameters and statistics stay float32.
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(batch.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"  epoch {epoch + 1}: loss {total / steps:.4f}, {seconds:.0f} s", flush=True)
    network.eval()


def export(network: nn.Module, path: Path, opset: int) -> None:
    """Write `network` with a dynamic batch and check the file."""
    torch.onnx.export(
        network.to(memory_format=torch.contiguous_format),
        (torch.zeros(2, 1, 28, 28),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=opset,
        # EVAL would fold BatchNormalization into Conv, and the newer exporter has
        # no way to keep it: here it must stay, as work for the optimizer.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    onnx.checker.check_model(path, full_check=True)


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of `images` float32 [N, 1, 28, 28] that ONNX Runtime puts in their class."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [
        session.run(["logits"], {"image": images[start : start + 500]})[0].argmax(axis=1)
        for start in range(0, len(images), 500)
    ]
    return float((np.concatenate(answers) == labels).mean())


def write_data(data: Dataset, out: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write both data files; returns the evaluation images and labels."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(data.train_labels), CALIBRATION_SAMPLES, replace=False))
    np.savez_compressed(out / "fashion_calibration.npz", image=scaled(data.train_images[chosen]))
    share = EVALUATION_SAMPLES // CLASSES
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(data.test_labels == c))[:share] for c in range(CLASSES)]
    )
    chosen = rng.permutation(chosen)
    images, labels = scaled(data.test_images[chosen]), data.test_labels[chosen]
    np.savez_compressed(out / "fashion_evaluation.npz", image=images, __labels__=labels)
    return images, labels


def main() -> None:
    """Train, export, and print the accuracy of the files through ONNX Runtime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["cnn", "mlp", "mobile"], help="train one network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    data = load(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = write_data(data, options.out, options.seed)
    for name, build, schedule, opset in (
        ("mlp", FashionMlp, MLP_SCHEDULE, 13),
        ("cnn", FashionCnn, CNN_SCHEDULE, 17),
        ("mobile", FashionMobile, MOBILE_SCHEDULE, 17),
    ):
        if options.only not in (None, name):
            continue
        print(f"fashion_{name}: training", flush=True)
        torch.manual_seed(options.seed)
        network = build().to(memory_format=torch.channels_last)
        train(network, data, schedule, options.seed)
        path = options.out / f"fashion_{name}.onnx"
        export(network, path, opset)
        whole = accuracy(path, scaled(data.test_images), data.test_labels)
        cut = accuracy(path, images, labels)
        print(
            f"fashion_{name}: {path.stat().st_size / 1e6:.2f} MB, accuracy {cut:.4f} on the "
            f"{len(labels)} evaluation images, {whole:.4f} on all {len(data.test_labels)}"
        )


if __name__ == "__main__":
    main()
