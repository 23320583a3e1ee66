"""What a Transformer loses when whole residual branches are left out, before anyone builds it.

    python benchmarks/leave_out_blocks.py FOLDER [--calibration NAME] [--samples 64] [--rounds 3]

FOLDER holds `model.onnx` and samples, as `models/.cache/minilm` or `decoder`. In each round every
branch that is left is taken out alone, and the one with the least loss on the calibration samples
goes (the measured loss, not the influence of ShortGPT, arXiv 2403.03853). What stands in its place:

    nothing     y = x
    its mean    y = x + E[y − x̂]
    a matrix    y = x̂ + A·x̂ + b, ridge regression of what the original has there on what the cut
                network gives: width² parameters in place of 4 or 8 times as many

Answers are compared over evaluation samples, which chose nothing: dB of each output, and where
tokens go in and logits come out, perplexity and how often the best token is the same.
"""

import argparse
import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxpress.transformer import find_structure
from onnxpress.transformer.streams import Addition

Array = npt.NDArray[np.float64]
Feed = Mapping[str, npt.NDArray[np.generic]]
FORMS = ("nothing", "its mean", "a matrix")
_RIDGE = 1e-3
"""Of the mean power of what a matrix reads."""
_AT_A_TIME = 8


def feeds_of(folder: Path, name: str, most: int) -> list[Feed]:
    """Some samples at a time; a cache is empty, a mask of ones where the samples have none."""
    arrays = {key: array[:most] for key, array in np.load(folder / f"{name}.npz").items()}
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    found: list[Feed] = []
    arrays.pop("__labels__", None)
    for at in range(0, len(next(iter(arrays.values()))), _AT_A_TIME):
        feed = {key: array[at : at + _AT_A_TIME] for key, array in arrays.items()}
        if "attention_mask" in feed:
            longest = int(feed["attention_mask"].sum(axis=1).max())
            feed = {key: array[:, :longest] for key, array in feed.items()}
        ids = feed.get("input_ids", np.zeros((0, 0)))
        for value in graph.input:
            sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            if value.name.startswith("past"):
                feed[value.name] = np.zeros((len(ids), *sizes[1:]), np.float32)
            elif value.name == "position_ids":
                feed[value.name] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
            elif value.name not in feed and value.name == "attention_mask":
                feed[value.name] = np.ones_like(ids)
        found.append(feed)
    return found


class Network:
    """A model that shows what runs through it."""

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str]) -> None:
        shown = copy.deepcopy(proto)
        shown.graph.ClearField("output")
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self._session = ort.InferenceSession(shown.SerializeToString(), options)
        self._names = list(names)
        self._inputs = {one.name for one in self._session.get_inputs()}

    def answers(self, feed: Feed) -> dict[str, npt.NDArray[np.float32]]:
        """Every tensor by name."""
        given = {name: x for name, x in feed.items() if name in self._inputs}
        return dict(zip(self._names, self._session.run(None, given), strict=True))

    def run(self, feeds: Iterable[Feed]) -> dict[str, Array]:
        """Rows of every tensor by name, those of padding left out."""
        found: dict[str, list[Array]] = {name: [] for name in self._names}
        for feed in feeds:
            seen = feed.get("attention_mask", np.zeros(0)).astype(bool)
            for name, answer in self.answers(feed).items():
                each = answer.shape[:2] == seen.shape
                rows = answer[seen] if each else answer.reshape(-1, answer.shape[-1])
                found[name].append(rows.astype(np.float64))
        return {name: np.concatenate(rows) for name, rows in found.items()}


def decibels(reference: Array, other: Array) -> float:
    """SQNR."""
    signal = ((reference - reference.mean(0)) ** 2).sum()
    return float(10 * np.log10(signal / max(((reference - other) ** 2).sum(), 1e-30)))


def figures(reference: Mapping[str, Array], found: Mapping[str, Array], feeds: list[Feed]) -> str:
    """In words: dB of outputs; of logits perplexity and agreement too."""
    words = [f"{name} {decibels(one, found[name]):.1f} dB" for name, one in reference.items()]
    if "logits" in reference:
        logits = found["logits"]
        ids = np.concatenate([feed["input_ids"] for feed in feeds])
        rows = logits.reshape(*ids.shape, -1)[:, :-1]
        rows = rows - rows.max(-1, keepdims=True)
        chosen = np.take_along_axis(rows, ids[:, 1:, None].astype(np.int64), -1)[..., 0]
        loss = (np.log(np.exp(rows).sum(-1)) - chosen).mean()
        same = (logits.argmax(-1) == reference["logits"].argmax(-1)).mean()
        words.append(f"perplexity {math.exp(loss):.3f}, best token the same {100 * same:.2f}%")
    return "; ".join(words)


def taken_out(
    model: onnx.ModelProto, addition: Addition, matrix: Array | None, offset: Array | None
) -> onnx.ModelProto:
    """The model with another branch at an addition: nothing, an offset, a matrix and an offset."""
    made = copy.deepcopy(model)
    name = str(addition.node.outputs[0].name)
    place, node = next((i, n) for i, n in enumerate(made.graph.node) if n.output[0] == name)
    skip = skip_of(addition)
    if offset is None:
        new = [onnx.helper.make_node("Identity", [skip], [name])]
    else:
        arrays = {f"{name}::offset": offset}
        new = [onnx.helper.make_node("Add", [skip, f"{name}::offset"], [name])]
        if matrix is not None:
            arrays[f"{name}::matrix"] = matrix
            mapped = f"{name}::mapped"
            new[0] = onnx.helper.make_node("Add", [mapped, f"{name}::offset"], [f"{name}::sum"])
            new.insert(0, onnx.helper.make_node("MatMul", [skip, f"{name}::matrix"], [mapped]))
            new.append(onnx.helper.make_node("Add", [skip, f"{name}::sum"], [name]))
        for key, array in arrays.items():
            tensor = onnx.numpy_helper.from_array(array.astype(np.float32), key)
            made.graph.initializer.append(tensor)
    made.graph.node.remove(node)
    for at, one in enumerate(new):
        made.graph.node.insert(place + at, one)
    return made


def skip_of(addition: Addition) -> str:
    """The input of the addition that is x."""
    names = [str(value.name) for value in addition.node.inputs if value is not None]
    branch = str(addition.branch.name)
    return next(name for name in names if name != branch)


def fitted(x: Array, y: Array, form: str) -> tuple[Array | None, Array | None]:
    """What stands in place of a branch, from rows of x̂ and of what the original has there."""
    if form == FORMS[0]:
        return None, None
    wanted = y - x
    if form == FORMS[1]:
        return None, wanted.mean(0)
    return ridge(x, wanted, _RIDGE)


def ridge(x: Array, wanted: Array, strength: float) -> tuple[Array, Array]:
    """A and b of the best A·x + b, by rows; the strength is of the inputs' mean power."""
    centre, target = x.mean(0), wanted.mean(0)
    gram = (x - centre).T @ (x - centre)
    gram += strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    matrix = np.linalg.solve(gram, (x - centre).T @ (wanted - target))
    return matrix, target - centre @ matrix


def network_parser(description: str) -> argparse.ArgumentParser:
    """A folder with a network, and how many of its samples are fitted to and judged by."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calibration", default="calibration")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--evaluation", type=int, default=64)
    return parser


def main() -> None:
    """Print a line for every round of every form."""
    parser = network_parser(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    given = parser.parse_args()
    model = onnx.load(given.folder / "model.onnx")
    structure = find_structure(ir.from_proto(model))
    assert structure is not None
    additions = [one for stream in structure.streams for one in stream.additions]
    floats = [one.name for one in model.graph.output if one.type.tensor_type.elem_type == 1]
    outputs = [name for name in floats if not name.startswith("present")]
    looked_at = feeds_of(given.folder, given.calibration, given.samples)
    unseen = feeds_of(given.folder, "evaluation", given.evaluation)
    sums = [str(one.node.outputs[0].name) for one in additions]
    original = Network(model, [*outputs, *sums]).run(looked_at)
    reference = Network(model, outputs).run(unseen)
    print("nothing left out:", figures(reference, reference, unseen), flush=True)
    for form in given.forms:
        current, left = model, list(additions)
        for number in range(1, given.rounds + 1):
            tried = []
            for addition in left:
                skip, name = skip_of(addition), str(addition.node.outputs[0].name)
                x = Network(current, [skip]).run(looked_at)[skip]
                made = taken_out(current, addition, *fitted(x, original[name], form))
                answers = Network(made, outputs).run(looked_at)
                worst = min(decibels(original[n], answers[n]) for n in outputs)
                tried.append((worst, addition, made))
            best, gone, current = max(tried, key=lambda one: one[0])
            left.remove(gone)
            if number == 1:
                each = ", ".join(f"{db:.1f}" for db, _, _ in tried)
                print(f"{form}: one alone, dB on what was looked at: {each}")
            answers = Network(current, outputs).run(unseen)
            print(
                f"{form}: {number} out, {gone.node.name} ({best:.1f} dB where looked at): "
                f"{figures(reference, answers, unseen)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
