"""Recipes: the plan as TOML, enough to write the same bytes again without a search.

version = 2
target = "cpu"
seed = 0
model_sha256 = "…"
[calibration]
source = "calibration.npz"
digest = "…"
held_out = true
[preprocessing.images]
mean = [0.5]
[layers."/head/*"]
keep = true
[[pass]]
name = "quantize"
form = "auto"
[[pass.decision]]
site = "conv1.weight"
family = "static"
parameters = { input_scale = 0.0039, input_zero_point = 0 }
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from onnxpress import registry
from onnxpress.constraints import NO_CONSTRAINTS, Constraints
from onnxpress.contract import Candidate, Decision, Pass
from onnxpress.conversion import Conversion
from onnxpress.data import Samples, check_preparation
from onnxpress.data.copies import feeds_digest
from onnxpress.errors import RecipeError, UsageError, nearest, nearest_file
from onnxpress.recipe_entries import Entries
from onnxpress.selection import NOTHING_SELECTED, Selection
from onnxpress.settings import checked, settings_of
from onnxpress.toml_places import places_of, read_toml

__all__ = ["CalibrationSource", "Recipe", "RecipeStage", "samples_digest"]

FORMAT = 2
_KEYS = (
    "version",
    "target",
    "seed",
    "model_sha256",
    "overridable",
    "calibration",
    "preprocessing",
    "conversion",
    "constraints",
    "layers",
    "pass",
)
_CALIBRATION_KEYS = ("source", "digest", "held_out", "observed")
_CONVERSION_KEYS = ("shapes", "float16", "opset")
_CONSTRAINT_KEYS = ("max_size", "min_speedup", "max_latency")
_DECISION_KEYS = ("site", "family", "members", "refined", "keeps_kernels", "parameters")


@dataclass(frozen=True)
class CalibrationSource:
    """Which samples the plan was made with.

    Attributes:
        source: as the user named it.
        digest: of the samples' content (`samples_digest`).
        held_out: whether a third was held out for the evaluation.
        observed: how many of the samples, the first, were observed where time was too short for
            all; `None`: all.
    """

    source: str
    digest: str
    held_out: bool
    observed: int | None = None


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
        conversion: what was asked for besides what the target needs.
        selection: what lossy passes leave alone.
        overridable: whether callers may override weights that are inputs too; `None`: by the
            version of the file.
        preparation: how files were prepared that became samples (`Samples.preparation`).
        constraints: what the model has to reach.
    """

    stages: tuple[RecipeStage, ...]
    target: str
    seed: int
    model_sha256: str | None
    calibration: CalibrationSource | None
    conversion: Conversion = field(default_factory=Conversion)
    selection: Selection = NOTHING_SELECTED
    overridable: bool | None = None
    preparation: Mapping[str, Any] = field(default_factory=dict)
    constraints: Constraints = NO_CONSTRAINTS

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def to_toml(self) -> str:
        """The text; the same recipe always gives the same text."""
        table: dict[str, Any] = {"version": FORMAT, "target": self.target, "seed": self.seed}
        if self.model_sha256 is not None:
            table["model_sha256"] = self.model_sha256
        if self.overridable is not None:
            table["overridable"] = self.overridable
        if self.calibration is not None:
            table["calibration"] = {
                "source": self.calibration.source,
                "digest": self.calibration.digest,
                "held_out": self.calibration.held_out,
            }
            if self.calibration.observed is not None:
                table["calibration"]["observed"] = self.calibration.observed
        if self.preparation:
            table["preprocessing"] = dict(self.preparation)
        if self.conversion != Conversion():
            table["conversion"] = {
                "shapes": list(self.conversion.shapes),
                "float16": self.conversion.float16,
                "opset": self.conversion.opset,
            }
        if self.constraints:
            table["constraints"] = self.constraints.table()
        if self.selection:
            table["layers"] = self.selection.to_table()
        table["pass"] = [_stage_table(stage) for stage in self.stages]
        return tomli_w.dumps(table)

    @classmethod
    def from_toml(
        cls,
        text: str,
        source: str = "the recipe",
        classes: Mapping[str, type[Pass]] | None = None,
    ) -> "Recipe":
        """Read a recipe; a pass without decisions is searched.

        Args:
            text: what `to_toml` wrote, or a person.
            source: what messages call it.
            classes: passes by name besides those that are installed.

        Raises:
            RecipeError: it is no recipe of a version we know, or names a pass or setting that does
                not exist; with the line.
        """
        try:
            table = read_toml(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{source}: is not TOML: {error} [R003]") from error
        if table.get("version") != FORMAT:
            raise RecipeError(
                f"{source}: version is {table.get('version')!r}; expected {FORMAT}, as onnxpress "
                "writes beside a model; optimize again to make one [R003]"
            )
        root = Entries(table, source, places_of(text))
        root.known(_KEYS)
        stages = tuple(_stage(entry, classes or {}) for entry in root.tables("pass"))
        calibration = root.table("calibration")
        return cls(
            stages,
            root.value("target", str, "cpu"),
            _seed(root),
            root.value("model_sha256", str, None),
            None if calibration is None else _calibration(calibration),
            _conversion(root.table("conversion")),
            Selection.from_table(
                root.layers(),
                registry.lossy_names([stage.pass_ for stage in stages]),
                root.where("layers"),
            ),
            root.value("overridable", bool, None),
            _preparation(root),
            _constraints(root.table("constraints")),
        )

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe file.

        Raises:
            RecipeError: it is missing or no recipe.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise RecipeError(
                f"{path}: there is no such file{nearest_file(Path(path))}; expected a recipe [R003]"
            ) from error
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{path}: is no text; expected a recipe, as optimize writes beside its model "
                "(MODEL.opt.recipe.toml) [R003]"
            ) from error
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read as a recipe: {error} [R003]") from error
        return cls.from_toml(text, str(path))


def _seed(root: Entries) -> int:
    seed = root.value("seed", int, 0)
    if seed < 0:
        raise root.error("seed", f"seed is {seed}; expected a whole number from 0 up")
    return seed


def _stage_table(stage: RecipeStage) -> dict[str, Any]:
    table: dict[str, Any] = {"name": stage.pass_.name}
    for setting in settings_of(type(stage.pass_)):
        value = getattr(stage.pass_, setting.name)
        if value is not None:
            table[setting.name] = list(value) if setting.many else value
    if stage.decisions is not None:
        table["decision"] = [_decision_table(decision) for decision in stage.decisions]
    return table


def _decision_table(decision: Decision) -> dict[str, Any]:
    candidate = decision.candidate
    table: dict[str, Any] = {"site": decision.site}
    if candidate.family:
        table["family"] = candidate.family
    if candidate.members:
        table["members"] = list(candidate.members)
    if candidate.refined:
        table["refined"] = True
    if candidate.keeps_kernels:
        table["keeps_kernels"] = True
    if candidate.parameters:
        table["parameters"] = dict(candidate.parameters)
    return table


def _calibration(entry: Entries) -> CalibrationSource:
    entry.known(_CALIBRATION_KEYS)
    observed = entry.value("observed", int, None)
    if observed is not None and observed < 1:
        raise entry.error("observed", f"observed is {observed}; expected a number of samples")
    return CalibrationSource(
        entry.value("source", str),
        entry.value("digest", str),
        entry.value("held_out", bool),
        observed,
    )


def _preparation(root: Entries) -> Mapping[str, Any]:
    entry = root.table("preprocessing")
    if entry is None:
        return {}
    try:
        check_preparation(entry.table_itself)
    except UsageError as error:
        raise root.error("preprocessing", str(error)) from error
    return entry.table_itself


def _conversion(entry: Entries | None) -> Conversion:
    if entry is None:
        return Conversion()
    entry.known(_CONVERSION_KEYS)
    shapes, half = entry.texts("shapes"), entry.value("float16", str, "no")
    opset = entry.value("opset", int, 0)
    try:
        return Conversion(shapes, half, opset)
    except UsageError as error:
        wrong = next((key for key in _CONVERSION_KEYS if key in str(error)), "")
        raise entry.error(wrong, str(error)) from error


def _constraints(entry: Entries | None) -> Constraints:
    if entry is None:
        return NO_CONSTRAINTS
    entry.known(_CONSTRAINT_KEYS)
    given = {key: entry.table_itself.get(key) for key in _CONSTRAINT_KEYS}
    for key, value in given.items():
        kinds = (int, float) if key == "min_speedup" else (int, float, str)
        if value is not None and (type(value) not in kinds):
            raise entry.error(key, f"{key} is {value!r}; expected a number")
    try:
        return Constraints.of(**given)
    except UsageError as error:
        wrong = next((key for key in given if key.replace("_", " ") in str(error)), "")
        raise entry.error(wrong, str(error)) from error


def _stage(entry: Entries, classes: Mapping[str, type[Pass]]) -> RecipeStage:
    name = entry.value("name", str)
    options = {k: v for k, v in entry.table_itself.items() if k not in ("name", "decision")}
    try:
        if name in classes:
            pass_ = classes[name](**checked(classes[name], name, options))
        else:
            pass_ = registry.create(name, options)
    except UsageError as error:
        wrong = next((key for key in options if key in str(error)), "name")
        raise entry.error(wrong, str(error)) from error
    if "decision" not in entry.table_itself:
        return RecipeStage(pass_, None)
    return RecipeStage(pass_, tuple(_decision(item, pass_) for item in entry.tables("decision")))


def _decision(item: Entries, pass_: Pass) -> Decision:
    item.known(_DECISION_KEYS)
    family, families = item.value("family", str, ""), list(pass_.families)
    if families and family not in families:
        raise item.error(
            "family",
            f"family is {family!r}{nearest(family, families)} ({pass_.name} has "
            f"{', '.join(families)})",
        )
    parameters = item.table("parameters")
    candidate = Candidate(
        {} if parameters is None else dict(parameters.table_itself),
        family=family,
        members=item.texts("members"),
        refined=item.value("refined", bool, default=False),
        keeps_kernels=item.value("keeps_kernels", bool, default=False),
        pass_name=pass_.name,
    )
    return Decision(item.value("site", str), candidate)


def samples_digest(samples: Samples) -> str:
    """SHA-256 of the samples' names, types, shapes and values; labels do not count."""
    return feeds_digest(samples)
