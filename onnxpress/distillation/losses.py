"""What a student's outputs are held to, by what the judge reads them as.

Classes that exclude each other: T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)) of the teacher's and the
student's logits (Hinton et al., arXiv:1503.02531); probabilities through their logarithm.
Everything else: the squared difference over the variance of the teacher's answers, of each channel
where there are any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxpress.gradients.tape import Tape, Term
from onnxpress.graph import Names, attribute, is_standard
from onnxpress.judge import Reading
from onnxpress.judge.kinds import Kind
from onnxpress.runtime import Array

__all__ = ["LOSS", "Target", "add_loss", "spread_of", "targets_of"]

LOSS = "distill_loss"
_SCORES = (Kind.CLASSIFICATION, Kind.SEQUENCE, Kind.SEGMENTATION)
_LEAST = 1e-9
"""Of a probability whose logarithm is taken."""
_QUIET = 1e-6
"""Of the largest variance of a channel: quieter ones count as this."""


@dataclass(frozen=True, slots=True)
class Target:
    """One output that the student is held to.

    Attributes:
        output: its name.
        input: of the training graph: the teacher's answer.
        axis: of classes; `None`: by squares.
        probabilities: whether the answers are probabilities rather than logits.
        weight: one over the variance, in a shape that broadcasts.
    """

    output: str
    input: str
    axis: int | None
    probabilities: bool
    weight: Array

    @property
    def words(self) -> str:
        """For people."""
        kind = "squared difference" if self.axis is None else "KL divergence of classes"
        return f"{self.output}: {kind}"


def targets_of(
    readings: Mapping[str, Reading], answers: Sequence[Mapping[str, Array]]
) -> list[Target]:
    """How the teacher's float outputs are followed; integers are not.

    Args:
        readings: of the teacher's outputs.
        answers: of the teacher to some samples.
    """
    found = []
    for name, reading in readings.items():
        examples = [answer[name] for answer in answers if answer[name].dtype.kind == "f"]
        if not examples or not examples[0].size:
            continue
        scores = reading.kind in _SCORES and reading.form in ("logits", "probabilities")
        axis = reading.axis if scores else None
        weight = _weights(examples, None if scores else reading.axis)
        probabilities = reading.form == "probabilities"
        found.append(Target(name, f"distill_target_{name}", axis, probabilities, weight))
    return found


def spread_of(examples: Sequence[Array]) -> Array:
    """One over the variance of tensors, which weighs squared differences from them; `[]`."""
    return _weights(examples, None)


def _weights(examples: Sequence[Array], axis: int | None) -> Array:
    """One over the variance of each channel, or of all; [] or [.., channels, ..] of float32."""
    rank = examples[0].ndim
    if axis is None or rank <= axis:
        values = np.concatenate([e.reshape(-1).astype(np.float64) for e in examples])
        return np.asarray(1 / max(values.var(), 1e-12), np.float32)
    channels = [np.moveaxis(e, axis, 0).reshape(e.shape[axis], -1) for e in examples]
    if len({len(channel) for channel in channels}) > 1:
        return _weights(examples, None)
    variance = np.concatenate(channels, axis=1).astype(np.float64).var(axis=1)
    floor = max(float(variance.max()) * _QUIET, 1e-12)
    column = [-1 if other == axis % rank else 1 for other in range(rank)]
    weights = np.asarray(1 / np.maximum(variance, floor), np.float32)
    return weights.reshape(column)


def add_loss(model: ir.Model, targets: Sequence[Target], temperature: float) -> None:
    """Make the sum of the losses the only output, and the teacher's answers inputs.

    Args:
        model: of the student; it is changed.
        targets: what is followed, one at least.
        temperature: T, of class scores.
    """
    graph = model.graph
    tape, names = Tape.of(model), Names(model)
    outputs = {value.name: value for value in graph.outputs}
    total: Term | None = None
    for target in targets:
        value = outputs[target.output]
        given = ir.Value(name=names.free(target.input), type=value.type, shape=value.shape)
        graph.inputs.append(given)
        student, teacher = tape.term(value), tape.term(given)
        if target.axis is None:
            difference = student - teacher
            loss = (difference * difference * tape.array(target.weight)).op(
                "ReduceMean", keepdims=0
            )
        else:
            loss = _divergence(tape, student, teacher, target, temperature)
        total = loss if total is None else total + loss
    assert total is not None
    total.value.name = LOSS
    total.value.type, total.value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    graph.outputs[:] = [total.value]


def _divergence(
    tape: Tape, student: Term, teacher: Term, target: Target, temperature: float
) -> Term:
    """T²·Σ p_t·(ln p_t − ln p_s), the mean over all but the classes."""
    axis = target.axis
    assert axis is not None
    logits = student
    least = tape.number(_LEAST, ir.DataType.FLOAT)
    if target.probabilities:
        before = student.value.producer()
        if _is_softmax(before, axis, student.rank) and before is not None:
            first = before.inputs[0]
            assert first is not None
            logits = tape.term(first)
        else:
            logits = student.op("Max", least).op("Log")
        teacher = teacher.op("Max", least).op("Log")
    own = (logits / temperature).op("LogSoftmax", axis=axis)
    wanted = (teacher / temperature).op("LogSoftmax", axis=axis)
    each = (wanted.op("Exp") * (wanted - own)).sum([axis])
    return each.op("ReduceMean", keepdims=0) * (temperature * temperature)


def _is_softmax(node: ir.Node | None, axis: int, rank: int | None) -> bool:
    if node is None or not is_standard(node) or node.op_type != "Softmax" or not rank:
        return False
    return attribute(node, "axis", -1) % rank == axis % rank
