"""A model of every kind: what is broken is refused by default, what does no harm is accepted.

Each candidate is the original with one edit (`zoo.table`). The samples have no labels.
"""

from functools import cache
from pathlib import Path

import onnx
import pytest
from zoo.builder import opened
from zoo.table import KINDS

from onnxpress.data import Samples
from onnxpress.judge import Budget, Evaluator, Verdict, interface_problems
from onnxpress.runtime import Session
from onnxpress.validation import validate

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


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("YOLOv8", "one class dropped"),
        ("recurrent", "state halved"),
        ("objects in rows", "scores saturated"),
        ("classes, probabilities", "unseen class constant"),
    ],
)
def test_validate_refuses_by_default_and_says_why(tmp_path: Path, kind: str, name: str) -> None:
    entry = KINDS[kind]
    made = entry.make()
    original, near, candidate = (tmp_path / f"{n}.onnx" for n in ("original", "near", "broken"))
    onnx.save(made.model, original)
    onnx.save(entry.harmless["noise on weights"](made), near)
    onnx.save(entry.broken[name](made), candidate)
    samples = Samples(made.feeds, None, "made")
    refused = validate(candidate, original, evaluation=samples, threads=1)
    assert not refused.within_budget
    assert refused.judgement is not None
    assert refused.judgement.verdict == Verdict.BROKEN
    assert refused.judgement.reason
    assert validate(near, original, evaluation=samples, threads=1).within_budget
