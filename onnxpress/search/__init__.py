"""Choose among candidates under the budget, by measurement."""

from onnxpress.search.strategy import StageResult, apply, apply_refined, search_stage

__all__ = ["StageResult", "apply", "apply_refined", "search_stage"]
