"""What fewer dimensions inside of heads cost: the joint rank of query·key and of value·output.

    python benchmarks/joint_rank.py FOLDER [--keep 0.75 ...] [--samples 64] [--evaluation 64]

FOLDER holds `model.onnx`, `calibration.npz` and `evaluation.npz`. Logits are x·A·x'ᵀ with A =
[W_q; b_q]·[W_k; b_k]ᵀ of a head, x with a one behind it; the best A of rank r for what the layer
reads is the truncated SVD of LᵀAL, C = LLᵀ being the inputs' second moment (MoDeGPT, arXiv
2408.09632; CORP, 2602.05243, keeps r of the dimensions there are). Of values and outputs it is that
of Lᵀ·[W_v; b_v]·W_o. The narrower matrices are put back at full width, so that nothing but the
arithmetic changes, and answers are compared over samples that chose nothing.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from slice_stream import Network, batches, decibels

from onnxpress.transformer import find_structure
from onnxpress.transformer.attention import Attention
from onnxpress.transformer.projections import Projection

Array = npt.NDArray[np.float64]


class Weights:
    """A model whose weights and biases are changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.proto = copy.deepcopy(model)
        self._stored = {one.name: one for one in self.proto.graph.initializer}

    def bias_of(self, layer: Projection) -> str | None:
        """The name of the constant that is added behind a layer."""
        for user, place in layer.node.outputs[0].uses():
            other = user.inputs[1 - place] if user.op_type == "Add" else None
            if other is not None and other.name in self._stored:
                return other.name
        return None

    def read(self, name: str) -> Array:
        """An array."""
        return onnx.numpy_helper.to_array(self._stored[name]).astype(np.float64)

    def write(self, name: str, array: Array) -> None:
        """Replace an array."""
        new = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        self._stored[name].CopyFrom(new)

    def whole(self, layer: Projection) -> Array:
        """Weight [in, out] with the bias below it."""
        w, bias = self.read(layer.name), self.bias_of(layer)
        return np.vstack([w, np.zeros(w.shape[1]) if bias is None else self.read(bias)])

    def put(self, layer: Projection, whole: Array) -> None:
        """The inverse of `whole`."""
        self.write(layer.name, whole[:-1])
        bias = self.bias_of(layer)
        if bias is not None:
            self.write(bias, whole[-1])


def narrowed(
    left: Array, right: Array, root: Array, other: Array, rank: int
) -> tuple[Array, Array]:
    """left·rightᵀ at a rank, both as wide as before; `root` and `other` are L of their inputs."""
    u, s, vt = np.linalg.svd(root.T @ left @ right.T @ other)
    half = np.sqrt(s[:rank])
    wide = left.shape[1] - rank
    first = np.linalg.solve(root.T, u[:, :rank] * half)
    second = np.linalg.solve(other.T, vt[:rank].T * half)
    return np.pad(first, ((0, 0), (0, wide))), np.pad(second, ((0, 0), (0, wide)))


def change(weights: Weights, one: Attention, output: Projection, root: Array, rank: int) -> None:
    """Cut both products of an attention's heads."""
    width = one.head_width or 0
    q, k, v = (weights.whole(side[0]) for side in (one.query, one.key, one.value))
    o = weights.read(output.name)
    for at in range(one.heads or 0):
        part = slice(at * width, (at + 1) * width)
        q[:, part], k[:, part] = narrowed(q[:, part], k[:, part], root, root, rank)
        v[:, part], turned = narrowed(v[:, part], o[part].T, root, np.eye(o.shape[1]), rank)
        o[part] = turned.T
    for side, array in zip((one.query, one.key, one.value), (q, k, v), strict=True):
        weights.put(side[0], array)
    weights.write(output.name, o)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.9, 0.75, 0.5])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--evaluation", type=int, default=64)
    given = parser.parse_args()
    model = onnx.load(given.folder / "model.onnx")
    structure = find_structure(ir.from_proto(model))
    assert structure is not None
    feeds = batches(given.folder / "calibration.npz", given.samples)
    unseen = batches(given.folder / "evaluation.npz", given.evaluation)
    sources = [str(one.query[0].node.inputs[0].name) for one in structure.attentions]  # type: ignore[union-attr]
    written = {
        attention: addition.writers[0]
        for addition in structure.streams[0].additions
        for attention in addition.attentions
    }
    roots: dict[str, Array] = {}
    network = Network(model, list(dict.fromkeys(sources)))
    for feed in feeds:
        for name, rows in network.run([feed]).items():
            ones = np.hstack([rows, np.ones((len(rows), 1))])
            roots[name] = roots.get(name, 0) + ones.T @ ones
    for name, gram in roots.items():
        damped = gram + 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram))
        roots[name] = np.linalg.cholesky(damped / np.trace(damped))
    outputs = [one.name for one in model.graph.output if one.type.tensor_type.elem_type == 1]
    reference = Network(model, outputs).run(unseen)
    for keep in given.keep:
        made = Weights(model)
        rank = 0
        for source, one in zip(sources, structure.attentions, strict=True):
            rank = round(keep * (one.head_width or 0))
            change(made, one, written[one], roots[source], rank)
        answers = Network(made.proto, outputs).run(unseen)
        figures = " ".join(f"{decibels(reference[n], answers[n]):.1f}" for n in outputs)
        print(
            f"{rank} of {structure.attentions[0].head_width} dimensions: {figures} dB", flush=True
        )


if __name__ == "__main__":
    main()
