"""What `--keep`, `--only` and `--exclude` mean in several parts: `[PART:][PASS:]NAME`.

Without a part a selector stands for what it matches in any of them, and is unknown where it
matches in none. As in one model, a pass touches nothing but what an `only` for it or for all names,
so that it leaves alone a part in which none does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress import model_file, registry
from onnxpress.contract import Pass
from onnxpress.lossless import simplified
from onnxpress.pinning import Pins
from onnxpress.pipelines.description import Pipeline
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.recipe import Recipe
from onnxpress.request import Request, planned
from onnxpress.selectable import Selectable, selectable_sites
from onnxpress.selection import Selection, Selector
from onnxpress.targets import load_target

__all__ = ["OPTIONS", "selected"]

OPTIONS = ("keep", "only", "exclude")

Selectors = Mapping[str, Sequence[str | Selector]]
"""By option, as `onnxpress.optimize` takes them."""


@dataclass(frozen=True, slots=True)
class _Sites:
    """What can be selected in a part: as it is given, and as passes see it."""

    given: list[Selectable]
    simple: list[Selectable]


def selected(
    pipeline: Pipeline, options: Mapping[str, Any], told: PipelineRecipe | None = None
) -> dict[str, Selectors]:
    """What each part's own search is told, by part.

    Args:
        pipeline: as described.
        options: of `onnxpress.optimize`; `keep`, `only`, `exclude`, `passes`, `target`, `goal` and
            `seed` are read.
        told: the recipe that is repeated; parts that it leaves alone count for nothing.

    Raises:
        UsageError: a selector is empty, or matches in no part, or nothing that is left once the
            parts are simplified.
    """
    given = {key: tuple(options.get(key) or ()) for key in OPTIONS}
    if not any(given.values()):
        return {part.name: given for part in pipeline.parts}
    passes = registry.lossy_names([p for p in options.get("passes") or () if isinstance(p, Pass)])
    recipes = {
        part.name: _recipe(part.model, options) if told is None else told.parts[part.name]
        for part in pipeline.parts
    }
    sites = {
        part.name: _sites(part.model, recipe)
        for part in pipeline.parts
        if (recipe := recipes[part.name]) is not None
    }
    found: dict[str, dict[str, list[str | Selector]]] = {
        name: {key: [] for key in OPTIONS} for name in sites
    }
    for key, texts in given.items():
        for text in texts:
            known = () if key == "keep" else passes
            for name in _matching(text, known, sites, passes):
                found[name][key].append(_without_part(text, sites))
    limited = {_pass_of(_without_part(text, sites), passes) for text in given["only"]}
    for own in found.values():
        named = {_pass_of(text, passes) for text in own["only"]}
        own["only"] += [Selector("", pass_name) for pass_name in sorted(limited - named)]
    return {part.name: found.get(part.name, {}) for part in pipeline.parts}


def _recipe(model: Path, options: Mapping[str, Any]) -> Recipe:
    """The passes that will see a part, their decisions open."""
    read = {key: options[key] for key in ("passes", "goal", "seed") if key in options}
    target = options.get("target", "cpu")
    target = (target,) if isinstance(target, str) else tuple(target)
    return planned(Request(model, target=target, **read), "").recipe


def _sites(path: Path, recipe: Recipe) -> _Sites:
    model = model_file.load(path)
    passes = [stage.pass_ for stage in recipe.stages]
    simple = simplified(model, passes, load_target(recipe.target), recipe.seed)
    return _Sites(selectable_sites(model), selectable_sites(simple, model))


def _without_part(text: str, parts: Mapping[str, object]) -> str:
    before, colon, after = text.partition(":")
    return after if colon and before in parts else text


def _pass_of(selector: str | Selector, passes: Sequence[str]) -> str:
    """The pass that a selector of `only` is for; empty: all."""
    (found,) = Selection.parse((), (selector,), (), passes).only
    return found.pass_name


def _matching(
    text: str, known: Sequence[str], sites: Mapping[str, _Sites], passes: Sequence[str]
) -> list[str]:
    """The parts in which a selector means something.

    Args:
        text: as the user wrote it.
        known: names of passes that may stand before a colon.
        sites: by part.
        passes: names of all passes that lose something, for hints.
    """
    rest = _without_part(text, sites)
    part = text.removesuffix(rest)
    asked = [part.removesuffix(":")] if part else list(sites)
    selector = Selector.parse(rest, known, part)
    found = [name for name in asked if selector.matches(sites[name].simple)]
    if found:
        return found
    whole = Selection((selector,))
    every = [site for name in asked for site in (*sites[name].given, *sites[name].simple)]
    where = f"the part{'' if len(asked) == 1 else 's'} {', '.join(asked)}"
    whole.require_matches(every, passes, where, sites, part)
    # What it matches is gone once the part is simplified: that is told.
    Pins.of(whole, [site for name in asked for site in sites[name].simple], part)
    return found
