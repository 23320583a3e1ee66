"""A model of every kind: what is broken is refused by default, what does no harm is accepted.

Each candidate is the original with one edit (`zoo.table`). The samples have no labels.
"""

from functools import cache

import onnx
import pytest
from zoo.builder import opened
from zoo.table import KINDS

from onnxpress.data import Samples
from onnxpress.judge import Budget, Evaluator, interface_problems
from onnxpress.runtime import Session

BROKEN = [(kind, fault) for kind, entry in KINDS.items() for fault in entry.broken]
HARMLESS = [(kind, change) for kind, entry in KINDS.items() for change in entry.harmless]


@cache
def judge(kind: str) -> tuple[Session, Evaluator]:
    made = KINDS[kind].make()
    original = opened(made.model)
    return original, Evaluator(original, Samples(made.feeds, None, "made"), Budget())


def fault(kind: str, candidate: onnx.ModelProto) -> str:
    """What is wrong with it; empty where nothing is."""
    original, evaluator = judge(kind)
    session = opened(candidate)
    problems = interface_problems(original, session)
    return "; ".join(problems) or evaluator.broken(evaluator.measure(session))


@pytest.mark.parametrize(("kind", "name"), BROKEN, ids=map(", ".join, BROKEN))
def test_broken_candidate_is_refused(kind: str, name: str) -> None:
    entry = KINDS[kind]
    assert fault(kind, entry.broken[name](entry.make())), "accepted"


@pytest.mark.parametrize(("kind", "name"), HARMLESS, ids=map(", ".join, HARMLESS))
def test_harmless_candidate_is_accepted(kind: str, name: str) -> None:
    entry = KINDS[kind]
    assert not fault(kind, entry.harmless[name](entry.make()))
