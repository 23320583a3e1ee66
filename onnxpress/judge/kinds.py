"""What an output of a model means: its kind, and how it is laid out.

A reading says how an output is judged: which metric fits it, along which axis its slices lie,
and in which unit they are compared.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

__all__ = ["Form", "Kind", "Reading"]


class Kind(StrEnum):
    """What an output is for; `VALUES` where nothing more is known."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi-label"
    SEQUENCE = "sequence"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    EMBEDDING = "embedding"
    REGRESSION = "regression"
    SIGNAL = "signal"
    INTEGERS = "integers"
    STATE = "state"
    VALUES = "values"


Form = Literal["values", "probabilities", "logits", "sigmoid", "decisions"]
"""How scores are given: over classes that exclude each other, before or after Softmax; each
apart, after a Sigmoid; or not at all, as what was decided by them: a class, yes or no."""

Role = Literal["", "head", "boxes", "distances", "scores", "labels", "rows", "count"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one output is read.

    Attributes:
        output: its name.
        kind: what it is for.
        words: a description for people, with its sizes.
        why: what in the model or its answers says so.
        form: how scores are given.
        axis: along which classes, channels or columns lie; `None` where slices are not told apart
            by meaning.
        role: which part of a detector it is.
        group: outputs with the same number are one detector.
        partner: of a detector's boxes or distances, the output of their scores.
        classes: of a detector.
        objectness: whether the fifth row of a detector's head scales the class scores.
        corners: whether boxes are given by two corners; else by centre and size.
        background: the class that means nothing was found; logits of a detector without one are
            of each class apart.
        state_input: the input that takes the output at the next step.
        varying: whether its shape depends on the data.
        given: no weight lies before it: where it is equal, it is for every input.
        added: names of a sum that it holds, and of the term of it that has weights.
    """

    output: str
    kind: Kind
    words: str
    why: str
    form: Form = "values"
    axis: int | None = None
    role: Role = ""
    group: int = 0
    partner: str = ""
    classes: int = 0
    objectness: bool = False
    corners: bool = False
    background: int | None = None
    state_input: str | None = None
    varying: bool = False
    given: bool = False
    added: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.output}: {self.words}"
