"""A result that is optimized again: it is said that losses add up."""

from pathlib import Path

import onnxpress


def test_result_that_is_optimized_again_is_said_to_be_one(
    tmp_path: Path, linear_model: Path
) -> None:
    first = onnxpress.optimize(linear_model, goal="size")
    first.save(tmp_path / "first.onnx")
    second = onnxpress.optimize(tmp_path / "first.onnx", goal="size")
    assert first.validation is not None
    assert second.validation is not None
    assert not any("[W017]" in text for text in first.validation.warnings)
    assert any("[W017]" in text for text in second.validation.warnings)
