"""The recipe of a pipeline: one TOML file with the recipe of every part, in the order followed.

version = 1
cache = "int8"
seed = 0
[calibration]
digest = "…"
[[part]]
name = "decoder"
[part.recipe]
target = "cpu"
[[part.recipe.pass]]
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from onnxpress.errors import RecipeError, nearest
from onnxpress.pipelines.description import CACHES
from onnxpress.recipe import Recipe
from onnxpress.recipe_entries import Entries
from onnxpress.toml_places import places_of, read_toml

__all__ = ["PipelineRecipe"]

FORMAT = 1
_KEYS = ("version", "cache", "seed", "calibration", "part")
_PART_KEYS = ("name", "recipe")


@dataclass(frozen=True)
class PipelineRecipe:
    """All that makes a pipeline from its original.

    Attributes:
        parts: recipes by part, in the order in which they were followed; `None`: left alone.
        cache: what was made of the cache.
        digest: of the calibration samples.
        seed: of everything drawn at random.
    """

    parts: Mapping[str, Recipe | None]
    cache: str
    digest: str
    seed: int = 0

    def to_toml(self) -> str:
        """The text; the same recipe always gives the same text."""
        tables = []
        for name, recipe in self.parts.items():
            table: dict[str, Any] = {"name": name}
            if recipe is not None:
                table["recipe"] = read_toml(recipe.to_toml())
            tables.append(table)
        said: dict[str, Any] = {"version": FORMAT, "cache": self.cache, "seed": self.seed}
        said["calibration"] = {"digest": self.digest}
        return tomli_w.dumps({**said, "part": tables})

    @classmethod
    def load(cls, path: Path) -> "PipelineRecipe":
        """Read a recipe.

        Raises:
            RecipeError: it is none of a pipeline, or an entry means nothing.
        """
        try:
            text = path.read_text(encoding="utf-8")
            table = read_toml(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as a recipe: {error} [R003]") from error
        if table.get("version") != FORMAT or "part" not in table:
            raise RecipeError(
                f"{path}: is no recipe of a pipeline of version {FORMAT}; optimize the pipeline "
                "again to make one [R003]"
            )
        root = Entries(table, str(path), places_of(text))
        root.known(_KEYS)
        parts: dict[str, Recipe | None] = {}
        for entry in root.tables("part"):
            entry.known(_PART_KEYS)
            inner = entry.table("recipe")
            parts[entry.value("name", str)] = (
                None
                if inner is None
                else Recipe.from_toml(
                    tomli_w.dumps(dict(inner.table_itself)), inner.where("version")
                )
            )
        calibration = root.table("calibration")
        digest = "" if calibration is None else calibration.value("digest", str, "")
        cache = root.value("cache", str, "float")
        if cache not in CACHES:
            raise root.error("cache", f"cache is {cache!r}; expected one of {', '.join(CACHES)}")
        return cls(parts, cache, digest, root.value("seed", int, 0))

    def require(self, names: list[str], digest: str, source: str) -> None:
        """Refuse a recipe of another pipeline or other samples.

        Raises:
            RecipeError: parts or the digest differ.
        """
        for name in self.parts:
            if name not in names:
                raise RecipeError(
                    f"the recipe has a part {name!r}, and the pipeline has none of that name"
                    f"{nearest(name, names)} (it has {', '.join(names)}) [R001]"
                )
        missing = [name for name in names if name not in self.parts]
        if missing:
            raise RecipeError(
                f"the recipe says nothing of the part {missing[0]!r} (it has "
                f"{', '.join(self.parts) or 'none'}); give the recipe of this pipeline as it was "
                "written, or optimize again [R001]"
            )
        if self.digest not in ("", digest):
            raise RecipeError(
                f"the recipe was made with other calibration data (digest {self.digest[:12]}; "
                f"given: {source}, digest {digest[:12]}); give the same with --calibration [R002]"
            )
