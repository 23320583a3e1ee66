"""Notebooks run, and show what they were committed with; `python tests/test_notebooks.py` anew.

Cells are run in order in one namespace, as Jupyter does, without its hundred packages. Outputs are
compared word for word and number by number; of cells with the tag `timed`, which show what depends
on the clock, only that there is an output of the same kind.
"""

import ast
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
_NUMBER = re.compile(r"\d[\d,]*\.?\d*")
_NEAR, _APART = 0.05, 0.5
"""Kernels of other processors round otherwise: a hundredth of a point, another layer."""


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same with new outputs, run in the current folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found: dict[str, Any] = json.loads(json.dumps(notebook))
    number = 0
    for cell in found["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["execution_count"] = number
        cell["outputs"] = _outputs("".join(cell["source"]), names, number)
    return found


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)  # noqa: S102 - our own notebooks
        if isinstance(last, ast.Expr):
            value = eval(  # noqa: S307 - likewise
                compile(ast.Expression(last.value), f"cell {number}", "eval"), names
            )
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data = {"text/plain": [repr(value)]}
        for kind, name in (("text/html", "_repr_html_"), ("text/markdown", "_repr_markdown_")):
            if hasattr(value, name):
                data[kind] = getattr(value, name)().splitlines(keepends=True)
                data["text/plain"] = [f"<{type(value).__name__}>"]
        outputs.append(
            {
                "data": dict(sorted(data.items())),
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


def shown(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """Kinds and texts of a cell's outputs."""
    texts = []
    for output in cell.get("outputs", ()):
        data = output.get("data") or {output["name"]: output["text"]}
        texts += [(kind, "".join(lines)) for kind, lines in sorted(data.items())]
    return texts


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Where the outputs of two runs differ, in words."""
    found = []
    for old, new in zip(before["cells"], after["cells"], strict=True):
        was, is_now = shown(old), shown(new)
        if "timed" in old["metadata"].get("tags", ()):
            was, is_now = ([(kind, "") for kind, _ in one] for one in (was, is_now))
        if _words(was) != _words(is_now) or not _near(was, is_now):
            found.append(f"{old['id']}: committed {was}, now {is_now}")
    return found


def _words(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, " ".join(_NUMBER.sub("#", text).split())) for kind, text in texts]


def _near(was: list[tuple[str, str]], is_now: list[tuple[str, str]]) -> bool:
    old, new = (
        [float(n.replace(",", "")) for _, text in one for n in _NUMBER.findall(text)]
        for one in (was, is_now)
    )
    return all(abs(a - b) <= _NEAR * abs(a) + _APART for a, b in zip(old, new, strict=True))


def run_apart(name: str, folder: Path) -> dict[str, Any]:
    """A notebook, run where what it writes is not in the way."""
    place = folder / "docs" / "notebooks"
    place.mkdir(parents=True)
    (folder / "models").symlink_to(ROOT / "models")
    before = Path.cwd()
    os.chdir(place)
    try:
        return executed(json.loads((FOLDER / name).read_text(encoding="utf-8")))
    finally:
        os.chdir(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_shows_what_it_was_committed_with(name: str, tmp_path: Path) -> None:
    committed = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert differences(committed, run_apart(name, tmp_path)) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_was_run_and_says_nothing_of_its_machine(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp/" not in text  # noqa: S108 - what is not to be there
    assert str(ROOT) not in text


def test_another_word_or_figure_is_stale_and_a_time_is_not() -> None:
    def notebook(text: str, *tags: str) -> dict[str, Any]:
        stream = {"output_type": "stream", "name": "stdout", "text": [text]}
        return {"cells": [{"id": "a", "metadata": {"tags": list(tags)}, "outputs": [stream]}]}

    assert not differences(notebook("2.81 MB, 93.1%"), notebook("2.80 MB, 93.3%"))
    assert differences(notebook("93.1%"), notebook("83.1%"))
    assert differences(notebook("True"), notebook("False"))
    assert not differences(notebook("12 s", "timed"), notebook("98 s and more", "timed"))


if __name__ == "__main__":
    for each in sys.argv[1:] or NOTEBOOKS:
        apart = Path(tempfile.mkdtemp())
        made = json.dumps(run_apart(each, apart), indent=1, ensure_ascii=False) + "\n"
        shutil.rmtree(apart)
        (FOLDER / each).write_text(made, encoding="utf-8")
