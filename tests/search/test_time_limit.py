"""A search that runs out of time says so, and not that nothing keeps within the budget."""

from pathlib import Path

import pytest
from clocks import BY_WORK

import onnxpress


@pytest.mark.parametrize(
    ("limit", "said"),
    [(0.0, "give more with --time-limit"), (None, "no choice of layers keeps within")],
)
def test_search_says_why_it_found_nothing(models: Path, limit: float | None, said: str) -> None:
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=["quantize"],
        min_sqnr=90.0,
        time_limit=limit,
        clock=BY_WORK,
    )
    (note,) = (stage.note for stage in result.stages if stage.pass_.name == "quantize")
    assert said in note
