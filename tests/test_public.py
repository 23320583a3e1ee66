"""The public models go through `optimize` with and without data: `pytest -m public`.

`models/fetch.py` brings the models, `models/make_data.py` the data; what is absent is skipped.
"""

from pathlib import Path

import onnx
import pytest

import onnxpress

NAMES = [
    "ocr_rec",
    "ocr_det",
    "ocr_cls",
    "minilm",
    "magika",
    "layout",
    "silero_vad",
    "silero_vad_half",
    "silero_vad_ifless",
]


@pytest.mark.public
@pytest.mark.parametrize("with_data", [False, True], ids=["without_data", "with_data"])
@pytest.mark.parametrize("name", NAMES)
def test_public_model_is_pressed_and_judged(
    tmp_path: Path, models: Path, name: str, *, with_data: bool
) -> None:
    folder = models / ".cache" / name
    original = folder / "model.onnx"
    if not original.exists():
        pytest.skip("run models/fetch.py first")
    calibration, evaluation = folder / "calibration.npz", folder / "evaluation.npz"
    if with_data and not calibration.exists():
        pytest.skip("run models/make_data.py first")
    result = onnxpress.optimize(
        original,
        calibration=calibration if with_data else None,
        evaluation=evaluation if with_data else None,
        time_limit=120,
    )
    output = tmp_path / "out.onnx"
    result.save(output)
    onnx.checker.check_model(str(output), full_check=True)
    assert result.validation is not None
    assert result.within_budget, result.problems
    assert not result.validation.problems
    assert output.stat().st_size < original.stat().st_size
    for stage in result.stages:
        assert stage.decisions or stage.note, "a stage that did nothing says why"
    before, after = onnx.load(original), onnx.load(output)
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
