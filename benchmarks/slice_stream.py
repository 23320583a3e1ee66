"""How near a Transformer stays to itself with a narrower residual stream, before anyone builds it.

    python benchmarks/slice_stream.py FOLDER [--keep 0.85 ...] [--samples 64] [--evaluation 64]

FOLDER holds `model.onnx`, `calibration.npz` and `evaluation.npz`. Slicing a stream to k of its
directions (SliceGPT, arXiv 2401.15024) gives the network that has x projected to QQᵀx wherever it
is normalized: with LayerNorm's mean folded into what writes and its scale into what reads, all else
is the same arithmetic in other coordinates. So here only that MatMul is put in, and the answers are
compared over samples that chose nothing. One Q for all places, or one for each (SliceGPT then puts
a k×k matrix on the skip path); linear layers as they were, or solved for again in order, on what
the narrower network feeds them (ridge towards the weights they had, with an offset).

Two more say how much of the loss lies in the method and how much in the stream. "Behind the norm":
the strongest directions of what norms give, which is what is read; with post-norm no arithmetic of
k numbers gives that, so that it is a bound. "Channels": some of the channels themselves, the same
everywhere, from which the others are predicted; no matrix is needed on the skip path.
"""

import argparse
import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxpress.transformer import Structure, find_structure
from onnxpress.transformer.norms import Norm
from onnxpress.transformer.projections import Projection

Array = npt.NDArray[np.float64]
_RIDGE = 0.3
"""Of the mean power of a layer's inputs: the rows are few."""
_AT_A_TIME = 8


def batches(path: Path, most: int) -> list[dict[str, npt.NDArray[np.generic]]]:
    """Samples, some at a time."""
    arrays = dict(np.load(path))
    count = min(most, *(len(one) for one in arrays.values()))
    ranges = [slice(at, min(at + _AT_A_TIME, count)) for at in range(0, count, _AT_A_TIME)]
    return [{name: one[part] for name, one in arrays.items()} for part in ranges]


class Network:
    """A model that shows what runs through it."""

    def __init__(self, proto: onnx.ModelProto, outputs: Sequence[str]) -> None:
        shown = copy.deepcopy(proto)
        shown.graph.ClearField("output")
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 2
        self.session = ort.InferenceSession(shown.SerializeToString(), options)
        self.names, self.outputs = [one.name for one in self.session.get_inputs()], list(outputs)

    def run(self, feeds: Iterable[dict[str, npt.NDArray[np.generic]]]) -> dict[str, Array]:
        """Rows of every tensor, by name."""
        found: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in self.outputs}
        for feed in feeds:
            answers = self.session.run(None, {name: feed[name] for name in self.names})
            for name, answer in zip(self.outputs, answers, strict=True):
                found[name].append(answer.reshape(-1, answer.shape[-1]))
        return {name: np.concatenate(rows).astype(np.float64) for name, rows in found.items()}

    def moments(
        self, feeds: Iterable[dict[str, npt.NDArray[np.generic]]], norms: dict[str, Norm]
    ) -> dict[str, Array]:
        """Second moments, each of trace 1; of what LayerNorm reads without its mean."""
        found: dict[str, Array] = {}
        for feed in feeds:
            for name, rows in self.run([feed]).items():
                norm = norms.get(name)
                taken = rows.mean(1, keepdims=True) if norm and norm.kind == "layer" else 0
                found[name] = found.get(name, 0) + (rows - taken).T @ (rows - taken)
        return {name: gram / np.trace(gram) for name, gram in found.items()}


def decibels(reference: Array, other: Array) -> float:
    """SQNR."""
    signal = ((reference - reference.mean(0)) ** 2).sum()
    return float(10 * np.log10(signal / ((reference - other) ** 2).sum()))


def channels(grams: Sequence[Array], kept: int) -> list[Array]:
    """Matrices that predict all channels from those kept: the ones the others say least of."""
    left = sum(grams[1:], grams[0]).copy()
    chosen: list[int] = []
    for _ in range(kept):
        gains = (left**2).sum(0) / np.maximum(left.diagonal(), 1e-12)
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        left -= np.outer(left[:, best], left[best]) / max(left[best, best], 1e-12)
    found = []
    for gram in grams:
        inner = gram[np.ix_(chosen, chosen)]
        inner = inner + 1e-3 * np.trace(inner) / kept * np.eye(kept)
        matrix = np.zeros_like(gram)
        matrix[chosen] = np.linalg.solve(inner, gram[chosen])
        matrix[np.ix_(chosen, chosen)] = np.eye(kept)
        found.append(matrix)
    return found


def projector(gram: Array, kept: int) -> Array:
    """QQᵀ of the strongest directions."""
    q = np.linalg.eigh(gram)[1][:, -kept:]
    return q @ q.T


class Sliced:
    """The model with a projection of the stream in front of each of its norms."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], kept: Sequence[Array]) -> None:
        self.proto = copy.deepcopy(model)
        graph = self.proto.graph
        for name, matrix in zip(names, kept, strict=True):
            made, weight = f"{name}::sliced", f"{name}::projector"
            for node in graph.node:
                node.input[:] = [made if one == name else one for one in node.input]
            array = matrix.astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
            graph.node.append(onnx.helper.make_node("MatMul", [name, weight], [made]))
            for output in graph.output:
                if output.name == name:
                    self._rename(name, made)
        self._sort()

    def _rename(self, name: str, made: str) -> None:
        """Let the projected tensor be the output."""
        for node in self.proto.graph.node:
            node.output[:] = [f"{name}::whole" if one == name else one for one in node.output]
            node.input[:] = [
                f"{name}::whole" if one == name else name if one == made else one
                for one in node.input
            ]
            node.output[:] = [name if one == made else one for one in node.output]

    def _sort(self) -> None:
        model = ir.from_proto(self.proto)
        model.graph.sort()
        self.proto = ir.to_proto(model)

    def refit(self, layer: Projection, inputs: Array, wanted: Array) -> None:
        """Let a layer give what is wanted of what it is fed now, as far as it can."""
        graph = self.proto.graph
        node = next(one for one in graph.node if one.output[0] == layer.node.outputs[0].name)
        stored = next(one for one in graph.initializer if one.name == node.input[1])
        w = onnx.numpy_helper.to_array(stored).astype(np.float64)
        centre, target = inputs.mean(0), wanted.mean(0)
        x, y = inputs - centre, wanted - target
        gram: Array = x.T @ x
        gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        w += np.linalg.solve(gram, x.T @ (y - x @ w))
        stored.CopyFrom(onnx.numpy_helper.from_array(w.astype(np.float32), stored.name))
        offset = (target - centre @ w).astype(np.float32)
        name = f"{node.output[0]}::offset"
        graph.initializer.append(onnx.numpy_helper.from_array(offset, name))
        before = f"{node.output[0]}::plain"
        added = onnx.helper.make_node("Add", [before, name], [node.output[0]])
        node.output[0] = before
        place = list(graph.node).index(node)
        graph.node.insert(place + 1, added)


def steps(structure: Structure) -> list[list[Projection]]:
    """Layers in the order in which they are solved for."""
    found: list[list[Projection]] = []
    for addition in structure.streams[0].additions:
        for attention in addition.attentions:
            made = (*attention.query, *attention.key, *attention.value)
            found += [list(dict.fromkeys(made))]
        found += [list(mlp.up) for mlp in addition.mlps]
        found.append(list(addition.writers))
    return found


def corrected(
    model: onnx.ModelProto,
    structure: Structure,
    sliced: Sliced,
    feeds: Sequence[dict[str, npt.NDArray[np.generic]]],
) -> Sliced:
    """Solve for all layers that read or write the stream, one after the other."""
    written = {addition.writers[0].node: addition for addition in structure.streams[0].additions}
    for layers in steps(structure):
        sources = [str(layer.node.inputs[0] and layer.node.inputs[0].name) for layer in layers]
        outputs = [str(layer.node.outputs[0].name) for layer in layers]
        addition = written.get(layers[0].node)
        sums = [] if addition is None else [str(addition.node.outputs[0].name)]
        before = Network(model, [*outputs, *sums]).run(feeds)
        now = Network(sliced.proto, list(dict.fromkeys([*sources, *outputs, *sums]))).run(feeds)
        for layer, source, output in zip(layers, sources, outputs, strict=True):
            wanted = before[output]
            if sums:
                # What the skip path has lost is made up for by what is added to it.
                wanted = now[output] + before[sums[0]] - now[sums[0]]
            sliced.refit(layer, now[source], wanted)
    return sliced


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.95, 0.9, 0.85, 0.75])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--evaluation", type=int, default=64)
    parser.add_argument("--forms", type=int, default=5, help="how many, in the table's order")
    parser.add_argument("--rows", type=int, default=32, help="batches that layers are solved on")
    parser.add_argument("--corrected", action="store_true", help="solve for layers again too")
    given = parser.parse_args()
    model = onnx.load(given.folder / "model.onnx")
    structure = find_structure(ir.from_proto(model))
    assert structure is not None
    (stream,) = structure.streams
    norms = {str(one.input.name): one for one in stream.norms if one.input is not None}
    before, behind = list(norms), [str(one.output.name) for one in norms.values()]
    feeds = batches(given.folder / "calibration.npz", given.samples)
    unseen = batches(given.folder / "evaluation.npz", given.evaluation)
    moments = Network(model, before + behind).moments(feeds, norms)
    grams, outer = [moments[name] for name in before], [moments[name] for name in behind]
    outputs = [one.name for one in model.graph.output if one.type.tensor_type.elem_type == 1]
    reference = Network(model, outputs).run(unseen)
    print(f"{given.folder.name}: stream of {stream.width}, {len(before)} norms, outputs {outputs}")

    def tell(words: str, form: Sliced) -> None:
        answers = Network(form.proto, outputs).run(unseen)
        figures = " ".join(f"{decibels(reference[n], answers[n]):.1f}" for n in outputs)
        print(f"{kept:4d} ({keep:.2f}) {words}: {figures} dB", flush=True)

    last = Network(model, behind[-1:]).run(unseen)[behind[-1]]
    for keep in given.keep:
        kept = round(keep * (stream.width or 0))
        alone = decibels(last, last @ projector(outer[-1], kept))
        print(f"{kept:4d} ({keep:.2f}) the last norm's answers alone: {alone:.1f} dB", flush=True)
        each = len(before)
        together, behind_all = sum(grams[1:], grams[0]), sum(outer[1:], outer[0])
        forms = (
            ("one basis", before, [projector(together, kept)] * each),
            ("basis per norm", before, [projector(gram, kept) for gram in grams]),
            ("channels", behind, channels(outer, kept)),
            (
                "one basis behind the norm",
                behind,
                [projector(behind_all, kept)] * each,
            ),
            ("basis per norm, behind it", behind, [projector(gram, kept) for gram in outer]),
        )
        for words, names, matrices in forms[: given.forms]:
            tell(words, Sliced(model, names, matrices))
            if given.corrected:
                made = Sliced(model, names, matrices)
                tell(f"{words}, corrected", corrected(model, structure, made, feeds[: given.rows]))


if __name__ == "__main__":
    main()
