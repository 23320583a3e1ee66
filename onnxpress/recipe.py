"""Recipes: the plan as TOML, enough to write the same bytes again without a search.

version = 1
target = "cpu"
seed = 0
model_sha256 = "…"
[calibration]
source = "calibration.npz"
digest = "…"
held_out = true
[[pass]]
name = "quantize"
form = "auto"
[[pass.decision]]
site = "conv1.weight"
form = "static"
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxpress import registry
from onnxpress.contract import Candidate, Decision, Parameter, Pass
from onnxpress.conversion import Fit
from onnxpress.data import Samples
from onnxpress.errors import RecipeError

__all__ = ["CalibrationSource", "Recipe", "RecipeStage", "samples_digest"]

FORMAT = 1
_ESCAPES = {"\x7f": "\\u007f"}


@dataclass(frozen=True)
class CalibrationSource:
    """Which samples the plan was made with.

    Attributes:
        source: as the user named it.
        digest: of the samples' content (`samples_digest`).
        held_out: whether a third was held out for the evaluation.
    """

    source: str
    digest: str
    held_out: bool


@dataclass(frozen=True)
class RecipeStage:
    """A pass with its settings, and what was decided; `None`: leave the decisions to a search."""

    pass_: Pass
    decisions: tuple[Decision, ...] | None


@dataclass(frozen=True)
class Recipe:
    """All that makes a model from its original.

    Attributes:
        stages: in order.
        target: name of the target.
        seed: of everything drawn at random.
        model_sha256: of the original file, or `None` in a recipe written by hand.
        calibration: or `None` without calibration data.
        fit: what was asked for besides what the target needs.
    """

    stages: tuple[RecipeStage, ...]
    target: str
    seed: int
    model_sha256: str | None
    calibration: CalibrationSource | None
    fit: Fit = field(default_factory=Fit)

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def to_toml(self) -> str:
        """The text; the same recipe always gives the same text."""
        lines = [
            "# Reproduces the model exactly: onnxpress optimize MODEL --recipe THIS_FILE",
            f"version = {FORMAT}",
            f"target = {_toml(self.target)}",
            f"seed = {self.seed}",
        ]
        if self.model_sha256 is not None:
            lines.append(f"model_sha256 = {_toml(self.model_sha256)}")
        if self.calibration is not None:
            lines += [
                "",
                "[calibration]",
                f"source = {_toml(self.calibration.source)}",
                f"digest = {_toml(self.calibration.digest)}",
                f"held_out = {_toml(self.calibration.held_out)}",
            ]
        if self.fit != Fit():
            lines += [
                "",
                "[fit]",
                f"shapes = {_toml(list(self.fit.shapes))}",
                f"float16 = {_toml(self.fit.float16)}",
                f"opset = {self.fit.opset}",
            ]
        for stage in self.stages:
            lines += ["", "[[pass]]", f"name = {_toml(stage.pass_.name)}"]
            for setting in registry.settings(type(stage.pass_)):
                lines.append(f"{setting.name} = {_toml(getattr(stage.pass_, setting.name))}")
            if stage.decisions is not None and not stage.decisions:
                lines.append("decision = []")
            for decision in stage.decisions or ():
                lines += ["", "[[pass.decision]]", f"site = {_toml(decision.site)}"]
                parameters = decision.candidate.parameters
                lines += [f"{_key(key)} = {_toml(value)}" for key, value in parameters.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, source: str = "the recipe") -> "Recipe":
        """Read a recipe; a pass without decisions is searched.

        Raises:
            RecipeError: it is no recipe of a version we know.
            UsageError: it names a pass or setting that does not exist.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{source}: is not TOML: {error}") from error
        if table.get("version") != FORMAT:
            raise RecipeError(
                f"{source}: version is {table.get('version')!r}; expected {FORMAT}, as onnxpress "
                "writes beside a model"
            )
        unknown = set(table) - {
            "version",
            "target",
            "seed",
            "model_sha256",
            "calibration",
            "fit",
            "pass",
        }
        if unknown:
            raise RecipeError(f"{source}: unknown entries {', '.join(sorted(unknown))}")
        try:
            stages = tuple(_stage(entry) for entry in table.get("pass", []))
            calibration = table.get("calibration")
            return cls(
                stages,
                str(table.get("target", "cpu")),
                int(table.get("seed", 0)),
                table.get("model_sha256"),
                None if calibration is None else CalibrationSource(**calibration),
                _fit(table.get("fit", {})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"{source}: is not a recipe: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe file.

        Raises:
            RecipeError: it is missing or no recipe.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from error
        return cls.from_toml(text, str(path))


def _fit(table: Mapping[str, Any]) -> Fit:
    return Fit(**{**table, "shapes": tuple(table.get("shapes", ()))})


def _stage(entry: Mapping[str, Any]) -> RecipeStage:
    options = {key: value for key, value in entry.items() if key not in ("name", "decision")}
    pass_ = registry.create(str(entry["name"]), options)
    if "decision" not in entry:
        return RecipeStage(pass_, None)
    decisions = tuple(
        Decision(
            str(item["site"]),
            Candidate({key: value for key, value in item.items() if key != "site"}, 0.0),
        )
        for item in entry["decision"]
    )
    return RecipeStage(pass_, decisions)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _toml(key)


def _toml(value: Parameter | Sequence[Parameter]) -> str:
    """A TOML value; JSON strings, numbers and booleans are TOML too."""
    if isinstance(value, float):
        return repr(float(value))
    text = json.dumps(value, ensure_ascii=False)
    return "".join(_ESCAPES.get(char, char) for char in text)


def samples_digest(samples: Samples) -> str:
    """SHA-256 of the samples' names, types, shapes and values; labels do not count."""
    state = hashlib.sha256()
    for feed in samples:
        for name, array in sorted(feed.items()):
            state.update(f"{name}|{array.dtype}|{array.shape}".encode())
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
