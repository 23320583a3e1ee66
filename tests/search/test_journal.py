"""Every model that a search measures is taken down, with its time where it was taken."""

import numpy as np
import pytest

from onnxpress.contract import Candidate, Decision
from onnxpress.judge import Measurement, MetricFigure, OutputFidelity
from onnxpress.runtime import Latency
from onnxpress.search import Journal


def measurement(*, lost: float | None) -> Measurement:
    metrics: tuple[MetricFigure, ...] = ()
    if lost is not None:
        figure = MetricFigure("accuracy", ("y",), 90 - lost, 90.0, rows=np.ones((4, 3)), samples=4)
        metrics = (figure,)
    return Measurement({"y": OutputFidelity(21.0, 0.99, 0.1, 0.0)}, metrics, 4, "here")


def note(journal: Journal, key: str, *, lost: float | None = 1.5) -> None:
    decisions = tuple(
        Decision(site, Candidate(family=family, pass_name="quantize"))
        for site, family in (("a", "static"), ("b", "static"), ("c", ""))
    )
    found = measurement(lost=lost)
    journal.note(
        "quantize", key, decisions, found, weight_bytes=7, spent=0.5, holds=True, latency=None
    )


def test_forms_are_counted_by_pass_and_family() -> None:
    journal = Journal()
    note(journal, "one")
    (tried,) = journal.tried
    assert tried.forms == {"quantize": 1, "quantize static": 2}
    assert (tried.weight_bytes, tried.spent, tried.samples) == (7, 0.5, 4)
    assert tried.drop == pytest.approx(1.5)
    assert tried.worst_sqnr_db == 21.0


def test_drop_is_unknown_without_a_metric() -> None:
    journal = Journal()
    note(journal, "one", lost=None)
    assert journal.tried[0].drop is None


def test_time_belongs_to_the_last_model_of_its_choice() -> None:
    journal = Journal()
    for key in ("one", "two", "one"):
        note(journal, key)
    journal.clock("quantize", "one", Latency(2.0, 4.0, 2.0, 1.9, 2.1))
    journal.clock("quantize", "never measured", Latency(2.0, 4.0, 9.0, 9.0, 9.0))
    assert [tried.speedup for tried in journal.tried] == [None, None, 2.0]
