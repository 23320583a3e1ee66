"""Whether recipes of version 1, written before the redesign, still give the same model.

    python benchmarks/replay_version_1.py BEFORE NAME [NAME ...]

BEFORE holds what the code of before wrote with `onnxpress optimize … -o BEFORE/NAME.onnx`, the
recipe beside it; a check-out of commit 446146d writes it. Models and data are those of
`models/README.md`. Recipes are put into the form of version 2 (other names of passes, settings that
are lists or absent, typed fields instead of keys in the parameters) and repeated; the files are
compared byte for byte but for the metadata, which names version and recipe.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

import onnx
import tomli_w

import onnxpress
from onnxpress import model_file, registry
from onnxpress.recipe import Recipe
from onnxpress.settings import settings_of

MODELS = Path(__file__).parents[1] / "models"
NAMES = {"shrink": "prune", "prune": "sparsify"}


def converted(text: str) -> str:
    """A recipe of version 1 as one of version 2."""
    table = tomllib.loads(text)
    table["version"] = 2
    if "fit" in table:
        table["conversion"] = table.pop("fit")
    for entry in table["pass"]:
        entry["name"] = NAMES.get(entry["name"], entry["name"])
        for setting in settings_of(registry.load(entry["name"])):
            value = entry.get(setting.name)
            if setting.many:
                entry[setting.name] = [item for item in str(value or "").split(",") if item]
            elif setting.optional and not value:
                entry.pop(setting.name, None)
        if "decision" in entry:
            entry["decision"] = [_decision(entry["name"], found) for found in entry["decision"]]
    return tomli_w.dumps(table)


def _decision(name: str, found: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"site": found.pop("site")}
    family = found.pop("form", None) or found.pop("level", None)
    if name == "prune":
        block = made["site"].startswith("block:")
        family = "exact" if found.pop("exact", False) else "block" if block else "channel"
    if name == "sparsify":
        family = "sparse"
    if family:
        made["family"] = family
    if "members" in found:
        made["members"] = found.pop("members").split("\n")
    if found.pop("refined", False):
        made["refined"] = True
    if found:
        made["parameters"] = found
    return made


def files(name: str) -> tuple[Path, dict[str, str]]:
    """The model, and its data as arguments of `optimize`."""
    folder = MODELS / ".cache" / name
    original, stem = folder / "model.onnx", folder / ""
    if name.startswith("fashion"):
        original, stem = MODELS / f"{name}.onnx", MODELS / "fashion_"
    data = {kind: f"{stem}/{kind}.npz" for kind in ("calibration", "evaluation")}
    if name.startswith("fashion"):
        data = {kind: f"{stem}{kind}.npz" for kind in ("calibration", "evaluation")}
    return original, {kind: path for kind, path in data.items() if Path(path).exists()}


def main() -> None:
    """Print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("names", nargs="+")
    asked = parser.parse_args()
    for name in asked.names:
        recipe = Recipe.from_toml(converted((asked.before / f"{name}.recipe.toml").read_text()))
        original, data = files(name)
        result = onnxpress.optimize(original, recipe=recipe, **data)  # type: ignore[arg-type]
        old = onnx.load(asked.before / f"{name}.onnx")
        new = onnx.load_from_string(model_file.to_bytes(result.model))
        del old.metadata_props[:]
        del new.metadata_props[:]
        same = old.SerializeToString() == new.SerializeToString()
        for node in (*old.graph.node, *new.graph.node):
            node.name = ""
        alike = same or old.SerializeToString() == new.SerializeToString()
        print(name, "same bytes" if same else "same but for node names" if alike else "DIFFERS")


if __name__ == "__main__":
    main()
