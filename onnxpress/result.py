"""What `optimize` gives back, and what each pass did for it."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.codes import split
from onnxpress.constraints import Requirement
from onnxpress.conversion import write_ort
from onnxpress.errors import OutputError
from onnxpress.judge import Disagreement
from onnxpress.output_file import FileSet
from onnxpress.own_files import STAMP
from onnxpress.recipe import Recipe
from onnxpress.runtime.profile import OperatorTime
from onnxpress.stage_result import StageResult
from onnxpress.statistics import ActivationGrid
from onnxpress.summary import Summary, summary_of
from onnxpress.targets import load_target
from onnxpress.temporary import temporary_folder
from onnxpress.toml_places import read_toml
from onnxpress.validation import Validation
from onnxpress.version import __version__

if TYPE_CHECKING:
    # Inspection searches nothing, and loads what it does not need for nothing.
    from onnxpress.search import TriedModel

__all__ = ["Result", "recipe_path", "require_own_recipe", "stamp"]


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
        tried: every model that the search measured, in order.
        spent: share of the budget that the last judgement found spent; `None`: not measured.
        disagreements: samples of the last judgement on which old and new differ most.
        compared: how many samples these were looked for in.
        operators: where the time of a run goes in the original and in the model.
        activations: those that lose most by being quantized, with the grid that was chosen.
        requirements: what became of `max_size`, `min_speedup` and `max_latency`.
        named: the model with names that say what nodes and constants are made of, where `model`
            has brief ones because they were much of a small file; `None`: `model` has them.
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
    tried: "tuple[TriedModel, ...]" = ()
    spent: float | None = None
    disagreements: tuple[Disagreement, ...] = ()
    compared: int = 0
    activations: tuple[ActivationGrid, ...] = ()
    operators: tuple[OperatorTime, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    named: ir.Model | None = None

    @property
    def layers(self) -> list[dict[str, Any]]:
        """A row for each site and pass: what was decided, or why it was left alone.

        Plain values, as `pandas.DataFrame(result.layers)` takes them; `form` is `None` where the
        site was left, and `code` what `onnxpress explain` knows the reason by.
        """
        return [row for stage in self.stages for row in _rows(stage)]

    @property
    def frontier(self) -> list[dict[str, Any]]:
        """A row for each model that the search measured, in order, and a last one for the result.

        Plain values, as `pandas.DataFrame(result.frontier)` takes them:

        - `model`: `tried`, or `result`, which is measured on samples that chose nothing.
        - `passes`, `forms`: whose choice it is, and how many sites took each form.
        - `weight_bytes`, `size_ratio`: of all weights, and how many times as small as those of
          the simplified original, where that is known.
        - `spent`, `holds`: the share of the budget that it spends, above 1 where it breaks it,
          and whether it held what it was allowed: a part of the budget in a search.
        - `samples`, `drop`, `worst_sqnr_db`: how many it was measured on, points of the worst
          metric, dB of the worst output; `None` where there is none.
        - `speedup`: over the model before its stage, of the result over the original; `None`
          where it was not timed.
        - `best`: whether no other one of the same kind that held is as small and spends less, or
          spends as little and is smaller.
        """
        rows = [_tried_row(one) for one in self.tried]
        before = model_file.weight_bytes(self.stages[0].model) if self.stages else None
        rows.append(self._result_row())
        held = [(row["weight_bytes"], row["spent"]) for row in rows[:-1] if row["holds"]]
        for row in rows:
            own = row["weight_bytes"], row["spent"]
            row["size_ratio"] = before / own[0] if before and own[0] else None
            row["best"] = row is rows[-1] or (row["holds"] and not _beaten(own, held))
        return rows

    def _result_row(self) -> dict[str, Any]:
        """Of the model that is given back."""
        validation = self.validation
        forms = Counter(
            f"{d.candidate.pass_name or s.pass_.name} {d.candidate.family}"
            for s in self.stages
            for d in s.decisions
            if s.pass_.stage.loses
        )
        found = {
            "model": "result",
            "passes": ", ".join(s.pass_.name for s in self.stages if s.decisions),
            "forms": dict(sorted(forms.items())),
            "weight_bytes": model_file.weight_bytes(self.model),
            "spent": self.spent,
            "holds": self.within_budget,
        }
        if validation is None:
            return {**found, **dict.fromkeys(("samples", "drop", "worst_sqnr_db", "speedup"))}
        measured, speedup = validation.measurement, validation.latency.speedup
        return {
            **found,
            "samples": measured.samples,
            "drop": None if measured.metric is None else measured.drop,
            "worst_sqnr_db": measured.worst_sqnr_db,
            "speedup": speedup if validation.timed_on_target and math.isfinite(speedup) else None,
        }

    def _repr_markdown_(self) -> str:
        """What matters first, where Markdown is shown."""
        return self._summary().markdown()

    def _repr_html_(self) -> str:
        """What matters first, in a notebook."""
        return self._summary().html()

    def _summary(self) -> Summary:
        sizes = self.original_bytes, model_file.whole_size(self.model)
        return summary_of(self.validation, sizes, self.problems, self.warnings)

    def save(self, path: str | os.PathLike[str], *, external_data: bool = False) -> list[Path]:
        """Write the model and, beside it, its recipe; each whole or not at all.

        For a target that prefers `.ort`, that form and its list of operators too.

        Raises:
            OutputError: a place cannot be written, or holds a recipe written by hand.

        Returns:
            What was written.
        """
        with FileSet() as files:
            return self.stage(files, Path(path), external_data=external_data)

    def stage(self, files: FileSet, target: Path, *, external_data: bool = False) -> list[Path]:
        """As `save`, as a part of a set of files; the model is the first of them."""
        require_own_recipe(target)
        model_file.save(self.model, target, external_data=external_data, files=files)
        with files.stage(recipe_path(target)) as temporary:
            temporary.write_text(self.recipe.to_toml(), encoding="utf-8", newline="\n")
        written = [target, recipe_path(target)]
        aim = load_target(self.recipe.target)
        whole = self.validation is not None and not self.validation.by_blocks
        if aim.file_forms[0] == "ort" and whole:
            with temporary_folder() as folder:
                source = Path(folder, target.name)
                model_file.save(self.model, source, external_data=external_data)
                written += write_ort(source, aim, final=target, files=files)
        return written


def _rows(stage: StageResult) -> Iterator[dict[str, Any]]:
    for decision in stage.decisions:
        candidate = decision.candidate
        yield {
            "layer": decision.site,
            "pass": candidate.pass_name or stage.pass_.name,
            "form": candidate.family,
            "saved_bytes": candidate.saved_bytes,
            "predicted_error": candidate.predicted_error,
            "reason": None,
            "code": None,
        }
    for skip in stage.left:
        reason, code = split(skip.reason)
        yield {
            "layer": skip.site,
            "pass": stage.pass_.name,
            "form": None,
            "saved_bytes": 0,
            "predicted_error": 0.0,
            "reason": reason,
            "code": code or None,
        }


def _tried_row(one: "TriedModel") -> dict[str, Any]:
    """A model of the search."""
    return {
        "model": "tried",
        "passes": one.passes,
        "forms": dict(one.forms),
        "weight_bytes": one.weight_bytes,
        "spent": one.spent,
        "holds": one.holds,
        "samples": one.samples,
        "drop": one.drop,
        "worst_sqnr_db": one.worst_sqnr_db,
        "speedup": one.speedup,
    }


def _beaten(own: tuple[int, float], others: Sequence[tuple[int, float]]) -> bool:
    """Whether one of the others is no worse by both figures and better by one."""
    return any(o != own and o[0] <= own[0] and o[1] <= own[1] for o in others)


def recipe_path(model_path: Path) -> Path:
    """Where the recipe of a model file lies."""
    return model_path.with_suffix(".recipe.toml")


def require_own_recipe(model_path: Path) -> None:
    """Refuse to write over a recipe that a person has written: ours names its original.

    Raises:
        OutputError: what lies at the recipe's place was not written by `save`.
    """
    path = recipe_path(model_path)
    if not path.is_file():
        return
    try:
        found = read_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if not isinstance(found.get("model_sha256"), str):
        raise OutputError(
            f"{path}: the recipe would overwrite a file that onnxpress has not written (it has no "
            "model_sha256); move it away or choose another -o [O003]"
        )


def made_by_us(model: ir.Model) -> str:
    """What to say of a model that is an earlier result; empty for any other."""
    if STAMP not in model.metadata_props:
        return ""
    return (
        "the model is itself a result of onnxpress: the budget counts from it and not from its "
        "original, so losses add up; give the original to keep within the budget [W017]"
    )


def stamp(model: ir.Model, recipe: Recipe, digest: str) -> None:
    """Say in the model where it came from."""
    model.metadata_props[STAMP] = __version__
    model.metadata_props["onnxpress.recipe_sha256"] = recipe.digest
    model.metadata_props["onnxpress.original_sha256"] = digest
