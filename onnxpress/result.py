"""What `optimize` gives back, and what each pass did for it."""

import os
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.contract import Decision, Pass, Skip
from onnxpress.conversion import write_ort
from onnxpress.judge import Measurement
from onnxpress.recipe import Recipe
from onnxpress.runtime import Latency
from onnxpress.search import Cost
from onnxpress.targets import load_target
from onnxpress.validation import Validation

__all__ = ["Result", "StageResult", "recipe_path"]


@dataclass(frozen=True)
class StageResult:
    """What a pass did and why.

    Attributes:
        pass_: which.
        model: what its stage left; the same object as before when that changed nothing.
        decisions: what it did, by site.
        left: sites it left alone, or treated less strongly than it could, with reasons.
        note: why it changed nothing, or what was given up; empty when all went as proposed.
        measurement: of the model its stage left; `None` when nothing was measured.
        latency: of that model against the one before, where that was measured.
        tried: how many models were measured.
        failed: whether the pass broke its contract, which `note` says.
        costliest: its decisions that cost most fidelity, where there was time to measure it.
    """

    pass_: Pass
    model: ir.Model
    decisions: tuple[Decision, ...] = ()
    left: tuple[Skip, ...] = ()
    note: str = ""
    measurement: Measurement | None = None
    latency: Latency | None = None
    tried: int = 0
    failed: bool = False
    costliest: tuple[Cost, ...] = ()


@dataclass(frozen=True)
class Result:
    """What `optimize` gives back; `onnxpress.report.document` is all of it as plain data.

    Attributes:
        model: the optimized model.
        recipe: reproduces it without a search.
        stages: what each pass did and left, in order.
        validation: against the original; `None` when onnxruntime cannot run the model.
        within_budget: whether the model may be used in place of the original.
        problems: why not, or what the user must know, in sentences.
        original_bytes: size of the original.
        source: where the original came from.
        seconds: how long it took.
        warnings: what its user should know that is no finding of the validation, in sentences.
    """

    model: ir.Model
    recipe: Recipe
    stages: tuple[StageResult, ...]
    validation: Validation | None
    within_budget: bool
    problems: tuple[str, ...]
    original_bytes: int
    source: str
    seconds: float
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str], *, external_data: bool = False) -> list[Path]:
        """Write the model and, beside it, its recipe; each whole or not at all.

        For a target that prefers `.ort`, that form and its list of operators too.

        Returns:
            What was written.
        """
        target = Path(path)
        model_file.save(self.model, target, external_data=external_data)
        with model_file.replace_file(recipe_path(target)) as temporary:
            temporary.write_text(self.recipe.to_toml(), encoding="utf-8")
        written = [target, recipe_path(target)]
        aim = load_target(self.recipe.target)
        if aim.file_forms[0] == "ort" and self.validation is not None:
            written += write_ort(target, aim)
        return written


def recipe_path(model_path: Path) -> Path:
    """Where the recipe of a model file lies."""
    return model_path.with_suffix(".recipe.toml")
