"""What an optimized pipeline is, and how it is written: a folder that is a pipeline itself."""

import functools
import math
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.errors import OutputError
from onnxpress.judge import Judgement, Measurement
from onnxpress.output_file import FileSet
from onnxpress.own_files import require_own_model
from onnxpress.pipelines.description import FILE, Pipeline
from onnxpress.pipelines.judging import Figures
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.pipelines.sharing import SHARED, shared_bytes, write_models
from onnxpress.report.columns import number_or_none
from onnxpress.report.document import document as report_document
from onnxpress.result import Result
from onnxpress.version import __version__

__all__ = ["RECIPE", "PartResult", "PipelineResult"]

RECIPE = "pipeline.recipe.toml"
FORMAT = 1
"""Of the document, which `report/pipeline.schema.json` describes."""


@dataclass(frozen=True)
class PartResult:
    """What became of one part.

    Attributes:
        name: of the part.
        model: to be written.
        result: what `optimize` gave for it; `None`: it is as it was.
        original_bytes: of its file, external data included.
        spent: the share of the pipeline's budget that was spent when it was done.
    """

    name: str
    model: ir.Model
    result: Result | None
    original_bytes: int
    spent: float

    @property
    def bytes(self) -> int:
        """Of the file that holds it whole."""
        return model_file.whole_size(self.model)


@dataclass(frozen=True)
class PipelineResult:
    """What `optimize_pipeline` gives back.

    Attributes:
        pipeline: as it is written, its models by their files' names.
        parts: in the order of the pipeline.
        recipe: reproduces it.
        budget: in words.
        measurement: of the whole, on samples that chose nothing.
        judgement: how far that carries.
        figures: what else was counted on these samples.
        cache_bytes: that a token adds to the cache, before and after; 0 without one.
        within_budget: whether it may be used in place of the original.
        problems: why not, in sentences.
        warnings: what its user should know, in sentences.
        seconds: how long it took.
    """

    pipeline: Pipeline
    parts: tuple[PartResult, ...]
    recipe: PipelineRecipe
    budget: str
    measurement: Measurement
    judgement: Judgement
    figures: Figures
    cache_bytes: tuple[int, int]
    within_budget: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def models(self) -> dict[str, ir.Model]:
        """By the names of their files."""
        return {self.pipeline.files[part.name]: part.model for part in self.parts}

    @property
    def original_bytes(self) -> int:
        """Of all files of the original."""
        return sum(part.original_bytes for part in self.parts)

    @functools.cached_property
    def bytes(self) -> int:
        """Of all files, what several hold counted once."""
        return sum(part.bytes for part in self.parts) - shared_bytes(self.models)

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
        """Write the models, the description, the recipe and the files beside; all or nothing.

        Args:
            folder: is made where it is not there.
            force: replace models that are no earlier results.

        Raises:
            OutputError: the folder is that of the original, or cannot be written.

        Returns:
            What was written.
        """
        target = Path(folder)
        require_place(self.pipeline, target, force=force)
        earlier = (target / RECIPE).exists()
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{target}: the folder cannot be made: {error.strerror or error}; choose another "
                "with -o [O002]"
            ) from error
        with FileSet() as files:
            written = write_models(self.models, target, files)
            texts = {FILE: self.pipeline.to_toml(), RECIPE: self.recipe.to_toml()}
            for name, text in texts.items():
                with files.stage(target / name) as temporary:
                    temporary.write_text(text, encoding="utf-8", newline="\n")
                written.append(target / name)
            for side in self.pipeline.side_files:
                with files.stage(target / side.name) as temporary:
                    shutil.copyfile(side, temporary)
                written.append(target / side.name)
            if earlier and SHARED not in {path.name for path in written}:
                files.remove(target / SHARED)
        return written

    def document(self, command: Sequence[str] = (), *, figures: bool = True) -> dict[str, Any]:
        """All of it as plain data, as `report/pipeline.schema.json` describes it.

        Args:
            command: the command line that asked for it, where there was one.
            figures: with what a page draws of each part's weights.
        """
        measured = self.measurement
        return {
            "format": FORMAT,
            "onnxpress": __version__,
            "command": shlex.join(command),
            "pipeline": self.pipeline.source,
            "within_budget": self.within_budget,
            "budget": self.budget,
            "verdict": str(self.judgement),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "size": {"original_bytes": self.original_bytes, "bytes": self.bytes},
            "cache_bytes": {"original": self.cache_bytes[0], "result": self.cache_bytes[1]},
            "metrics": [
                {"name": m.name, "value": m.value, "original": m.reference, "drop": m.drop}
                for m in measured.metrics
            ],
            "outputs": {
                name: _number_or_words(out.sqnr_db, level=True)
                for name, out in measured.outputs.items()
                if out.is_float
            },
            "samples": measured.samples,
            "figures": [
                {
                    "name": f.name,
                    "original": _number_or_words(f.original, level=f.level),
                    "result": _number_or_words(f.result, level=f.level),
                }
                for f in self.figures
            ],
            "parts": [
                {
                    "name": part.name,
                    "original_bytes": part.original_bytes,
                    "bytes": part.bytes,
                    "spent": number_or_none(part.spent),
                    "optimized": part.result is not None,
                    "report": None
                    if part.result is None
                    else report_document(part.result, figures=figures),
                }
                for part in self.parts
            ],
            "description": self.pipeline.to_toml(),
            "recipe": self.recipe.to_toml(),
            "seconds": round(self.seconds, 2),
        }


def _number_or_words(value: float, *, level: bool) -> float | str:
    """What JSON cannot say as a number in words: of a level +inf is the best there is."""
    if math.isfinite(value):
        return float(value)
    return "no noise" if level and value == math.inf else "not finite"


def places_in(folder: Path, pipeline: Pipeline) -> list[Path]:
    """All files that may be written into a folder."""
    sides = (side.name for side in pipeline.side_files)
    return [folder / name for name in (FILE, RECIPE, SHARED, *pipeline.files.values(), *sides)]


def files_read(pipeline: Pipeline) -> list[Path]:
    """All files that a pipeline consists of: its description, models, their weights, side files.

    Raises:
        ModelError: a part is no ONNX model.
    """
    models = [file for part in pipeline.parts for file in model_file.files_of(part.model)]
    return [Path(pipeline.source), *models, *pipeline.side_files]


def require_place(pipeline: Pipeline, folder: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder where the original or files of others would be lost.

    Raises:
        OutputError: it is such a folder, or no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is no folder; a pipeline is written as a folder [O002]")
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: cannot be made or written to: {nearest} is no folder, or closed to you; "
            "choose another with -o [O002]"
        )
    for part in pipeline.parts:
        place = folder / pipeline.files[part.name]
        if place.exists() and part.model.exists() and place.samefile(part.model):
            raise OutputError(
                f"{place}: would overwrite a part of the original; give another folder with -o "
                "[O001]"
            )
        if not force:
            require_own_model(place)
    if (folder / FILE).resolve() == Path(pipeline.source).resolve():
        raise OutputError(
            f"{folder / FILE}: would overwrite the description of the original; give another "
            "folder with -o [O001]"
        )
    # A folder with our recipe is an earlier result, and what else is of our names there is ours.
    ours = [FILE, SHARED, *(side.name for side in pipeline.side_files)]
    found = [name for name in ours if (folder / name).exists()]
    if found and not force and not (folder / RECIPE).exists():
        raise OutputError(
            f"{folder / found[0]}: exists and is no earlier result of onnxpress, so it is not "
            "replaced; choose another folder, or --force [O004]"
        )
