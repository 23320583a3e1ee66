"""Pictures of coloured discs, and models that classify, segment and measure them."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx

from zoo.builder import Array, Made, Net, fitted, opened

__all__ = ["CLASSES", "INPUT", "SIDE", "Disc", "backbone", "discs", "feeds_of", "surest", "unsure"]

Floats = npt.NDArray[np.float64]
Disc = tuple[float, float, float, int]
"""Centre (x, y) and radius in pixels, and colour."""
SIDE, CLASSES = 48, 4
SAMPLES = 48
_TRAINED_ON = 400
_COLOURS = np.array([[1, 0.1, 0], [0, 1, 0.1], [0.1, 0, 1], [1, 1, 0.2]])
INPUT = {"image": ("float", ["batch", 3, SIDE, SIDE])}


def discs(
    seed: int, count: int, *, each: int = 3, colours: int = CLASSES, cell: int = 16
) -> tuple[Array, list[list[Disc]]]:
    """Pictures [count, 3, side, side], and the discs in each, in the middle of cells."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0, 0.15, (count, 3, SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    truth = []
    for picture in pictures:
        found = []
        across = SIDE // cell
        for place in rng.permutation(across**2)[:each]:
            x = (place % across + rng.uniform(0.35, 0.65)) * cell
            y = (place // across + rng.uniform(0.35, 0.65)) * cell
            radius, colour = rng.uniform(0.22, 0.42) * cell, int(rng.integers(colours))
            inside = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
            picture[:, inside] = 0.9 * _COLOURS[colour][:, None]
            found.append((float(x), float(y), float(radius), colour))
        truth.append(found)
    return np.clip(pictures, 0, 1).astype(np.float32), truth


def feeds_of(images: Array) -> tuple[dict[str, Array], ...]:
    """One picture a sample."""
    return tuple({"image": image[None]} for image in images)


def surest(
    model: onnx.ModelProto, images: Array, doubt: Callable[[Mapping[str, Array]], float]
) -> tuple[dict[str, Array], ...]:
    """As many pictures as are needed, those that a model of random features decides most clearly.

    Args:
        model: takes them.
        images: in any number.
        doubt: of the answers to one.
    """
    session = opened(model)
    doubts = [doubt(session.run({"image": image[None]})) for image in images]
    return feeds_of(images[np.sort(np.argsort(doubts, kind="stable")[:SAMPLES])])


def unsure(
    output: str, low: float = 0.2, high: float = 0.8
) -> Callable[[Mapping[str, Array]], float]:
    """How many values lie between two."""
    return lambda answers: float(np.sum((answers[output] > low) & (answers[output] < high)))


def backbone(net: Net) -> str:
    """Random convolutions, each at half the size."""
    x, channels = "image", 3
    for outputs in (24, 32, 64):
        x = net.conv(x, channels, outputs, 5, 2)
        channels = outputs
    return x


def _pooled(seed: int, each: int) -> tuple[Net, str, Floats, list[list[Disc]]]:
    """A net with its average over places, and that of the pictures it is trained on."""
    net = Net(seed)
    x = net.op("Flatten", net.op("GlobalAveragePool", backbone(net)))
    images, truth = discs(seed + 1, _TRAINED_ON, each=each)
    return net, x, net.computed(x, INPUT, {"image": images}).astype(np.float64), truth


def _mapped(seed: int, target: Callable[[Floats, list[Disc]], Floats]) -> tuple[Net, str, int]:
    """A net with maps at half the size, fitted to targets [channels, side/2, side/2]."""
    net = Net(seed)
    x = net.conv(net.conv("image", 3, 24, 5, 2), 24, 32, 5)
    images, truth = discs(seed + 1, 60)
    maps = net.computed(x, INPUT, {"image": images})
    grid = np.mgrid[: SIDE // 2, : SIDE // 2][::-1] * 2.0 + 0.5
    wanted = np.stack([target(grid, found) for found in truth])
    rows = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
    targets = np.moveaxis(wanted, 1, -1).reshape(-1, wanted.shape[1])
    return net, net.pointwise(x, fitted(rows, targets)), wanted.shape[1]


@cache
def classifier(form: str = "probabilities") -> Made:
    """One disc a picture, its colour the class; no sample is of the last one."""
    net, x, rows, truth = _pooled(10, each=1)
    wanted = np.array([[9.0 * (found[0][3] == c) for c in range(CLASSES)] for found in truth])
    y = net.linear(x, fitted(rows, wanted))
    if form == "probabilities":
        y = net.op("Softmax", y, axis=-1)
    images, _ = discs(20, SAMPLES, each=1, colours=CLASSES - 1)
    return Made(
        net.model(INPUT, {"logits": (y, "float", ["batch", CLASSES])})
        if form == "logits"
        else net.model(INPUT, {"scores": (y, "float", ["batch", CLASSES])}),
        feeds_of(images),
    )


@cache
def multi_label() -> Made:
    """Which colours there are."""
    net, x, rows, truth = _pooled(11, each=3)
    wanted = [[16.0 * (c in {d[3] for d in found}) - 8 for c in range(CLASSES)] for found in truth]
    y = net.op("Sigmoid", net.linear(x, fitted(rows, np.array(wanted))))
    images, _ = discs(21, 5 * SAMPLES)
    model = net.model(INPUT, {"labels": (y, "float", ["batch", CLASSES])})
    return Made(model, surest(model, images, unsure("labels")))


@cache
def regression() -> Made:
    """Area of all discs in pixels, centre of mass in shares, the number of red ones."""
    net, x, rows, truth = _pooled(12, each=3)
    wanted = [
        [
            sum(np.pi * r * r for _, _, r, _ in found),
            float(np.mean([x for x, _, _, _ in found])) / SIDE,
            sum(1.0 for disc in found if disc[3] == 0),
        ]
        for found in truth
    ]
    y = net.linear(x, fitted(rows, np.array(wanted), 1e-2))
    images, _ = discs(22, SAMPLES)
    return Made(net.model(INPUT, {"measures": (y, "float", ["batch", 3])}), feeds_of(images))


@cache
def landmarks() -> Made:
    """Where the disc is, and points about it, in pixels, from a net that keeps places."""
    net = Net(13)
    x = net.op("Flatten", backbone(net))
    images, truth = discs(14, 250, each=1)
    rows = net.computed(x, INPUT, {"image": images})
    points = np.array([[x, y, x - r, y, x + r, y, x, y - r] for ((x, y, r, _),) in truth])
    y = net.linear(x, fitted(rows, points, 1e-3))
    images, _ = discs(23, SAMPLES, each=1)
    return Made(net.model(INPUT, {"points": (y, "float", ["batch", 8])}), feeds_of(images))


@cache
def embedding() -> Made:
    """Vectors of length 1."""
    net, x, rows, _ = _pooled(15, each=2)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    weight = net.normal(rows.shape[1], 32, fan=rows.shape[1]) / (spread + spread.mean())[:, None]
    fit = weight.astype(np.float32), (-mean @ weight).astype(np.float32)
    y = net.op("LpNormalization", net.linear(x, fit), axis=-1)
    images, _ = discs(25, SAMPLES // 2, each=2)
    # Of each thing two pictures, which are each other's neighbours.
    near = np.clip(images + 0.03 * net.rng.standard_normal(images.shape), 0, 1).astype(np.float32)
    feeds = feeds_of(np.concatenate([images, near]))
    return Made(net.model(INPUT, {"vector": (y, "float", ["batch", 32])}), feeds)


def _classes_of_pixels(grid: Floats, found: list[Disc]) -> Floats:
    maps = np.zeros((CLASSES + 1, *grid.shape[1:]))
    maps[0] = 8.0
    for x, y, r, colour in found:
        inside = (grid[0] - x) ** 2 + (grid[1] - y) ** 2 < r * r
        maps[:, inside] = 0
        maps[1 + colour, inside] = 8.0
    return maps


@cache
def segmentation(form: str = "softmax") -> Made:
    """Classes of pixels; as probabilities, or as numbers."""
    net, y, number = _mapped(16, _classes_of_pixels)
    images, _ = discs(26, 5 * SAMPLES)
    maps = net.op("Softmax", y, axis=1)
    shape = ["batch", number, SIDE // 2, SIDE // 2]
    sure = net.model(INPUT, {"maps": (maps, "float", shape)})
    size = SIDE // 2
    if form == "numbers":
        y = net.op("ArgMax", y, axis=1, keepdims=0)
        model = net.model(INPUT, {"mask": (y, "int64", ["batch", size, size])})
    else:
        model = sure
    return Made(model, surest(sure, images, unsure("maps")))


@cache
def masks() -> Made:
    """Where discs are, and where those of the last colour are."""

    def target(grid: Floats, found: list[Disc]) -> Floats:
        maps = np.full((2, *grid.shape[1:]), -4.0)
        for x, y, r, colour in found:
            inside = (grid[0] - x) ** 2 + (grid[1] - y) ** 2 < r * r
            maps[: 2 if colour == 3 else 1, inside] = 9.0
        return maps

    net, y, number = _mapped(17, target)
    images, _ = discs(27, 5 * SAMPLES)
    shape = ["batch", number, SIDE // 2, SIDE // 2]
    model = net.model(INPUT, {"masks": (net.op("Sigmoid", y), "float", shape)})
    return Made(model, surest(model, images, unsure("masks")))


@cache
def heat_maps() -> Made:
    """A soft spot on the middle of every disc, a map for each colour."""

    def target(grid: Floats, found: list[Disc]) -> Floats:
        maps = np.zeros((CLASSES, *grid.shape[1:]))
        for x, y, _, colour in found:
            spot = np.exp(-((grid[0] - x) ** 2 + (grid[1] - y) ** 2) / 18)
            maps[colour] = np.maximum(maps[colour], spot)
        return maps

    net, y, number = _mapped(18, target)
    images, _ = discs(28, SAMPLES)
    shape = ["batch", number, SIDE // 2, SIDE // 2]
    return Made(net.model(INPUT, {"heat": (y, "float", shape)}), feeds_of(images))


@cache
def restored() -> Made:
    """A picture of twice the size from a picture."""
    net = Net(19)
    x = net.conv(net.conv("image", 3, 16), 16, 16)
    big, _ = discs(29, 40)
    small = (big[:, :, ::2, ::2] + big[:, :, 1::2, 1::2]) / 2
    inputs = {"image": ("float", ["batch", 3, "height", "width"])}
    maps = net.computed(x, inputs, {"image": small})
    rows = np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
    parts = big.reshape(40, 3, SIDE // 2, 2, SIDE // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    y = net.op(
        "DepthToSpace",
        net.pointwise(x, fitted(rows, parts.reshape(-1, 12))),
        blocksize=2,
        mode="CRD",
    )
    shape = ["batch", 3, "height2", "width2"]
    return Made(net.model(inputs, {"picture": (y, "float", shape)}), feeds_of(small))


@cache
def class_and_depth() -> Made:
    """Two outputs: the class, and a map of heights of 0 to 10."""
    net = Net(30)
    maps = net.conv("image", 3, 24, 5, 2)
    deep = net.conv(net.conv(maps, 24, 32, 3, 2), 32, 48, 3, 2)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", deep))
    images, truth = discs(31, _TRAINED_ON, each=1)
    rows = net.computed(pooled, INPUT, {"image": images})
    wanted = np.array([[9.0 * (found[0][3] == c) for c in range(CLASSES)] for found in truth])
    scores = net.op("Softmax", net.linear(pooled, fitted(rows, wanted)), axis=-1)
    grid = np.mgrid[: SIDE // 2, : SIDE // 2][::-1] * 2.0 + 0.5
    heights = [
        10 * np.exp(-((grid[0] - x) ** 2 + (grid[1] - y) ** 2) / (2 * r * r))
        for ((x, y, r, _),) in truth[:60]
    ]
    near = np.moveaxis(net.computed(maps, INPUT, {"image": images[:60]}), 1, -1).reshape(-1, 24)
    depth = net.pointwise(maps, fitted(near, np.array(heights).reshape(-1, 1)))
    images, _ = discs(32, SAMPLES, each=1)
    size = SIDE // 2
    outputs = {
        "scores": (scores, "float", ["batch", CLASSES]),
        "depth": (depth, "float", ["batch", 1, size, size]),
    }
    return Made(net.model(INPUT, outputs), feeds_of(images))
