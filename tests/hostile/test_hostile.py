"""Every kind of hostile input ends in a sentence and an exit status, and nothing else happens."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.serving import Trials

from hostile.beside import RECIPES, SAMPLES
from hostile.building import Kind, saved, valid
from hostile.files import FILES
from hostile.graphs import GRAPHS, SLOW_GRAPHS

_COMMANDS = {
    "inspect": ("inspect", "{model}"),
    "simplify": ("simplify", "{model}", "-o", "{out}", "--threads", "1"),
    "optimize": (
        "optimize", "{model}", "-o", "{out}", "--threads", "1", "--time-limit", "20",
    ),
}  # fmt: skip
_MOST_SECONDS = 60
_LONG = pytest.mark.long


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with Trials() as started:
        yield started


def _state(folder: Path) -> dict[str, str]:
    """What lies in a folder, without what may be written."""
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.name not in ("out.onnx", "out.recipe.toml")
    }


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"


def _check(trials: Trials, words: tuple[str, ...], folder: Path, **places: Path) -> None:
    before = _state(folder)
    out = folder / "out.onnx"
    arguments = [word.format(out=out, **places) for word in words]
    outcome = trials.run(arguments, folder, _MOST_SECONDS)
    assert outcome.problem in ("", "ended"), outcome.text[-3000:]
    assert outcome.status in (0, 1, 2)
    assert outcome.text.strip()
    assert all(line.isprintable() for line in outcome.text.splitlines())
    if outcome.status == 2:
        assert outcome.text.count("\n") <= 3, outcome.text
        assert not out.exists()
    assert _state(folder) == before


def _parameters(*kinds: dict[str, Kind], mark: pytest.MarkDecorator | None = None) -> list[object]:
    marks = [mark] if mark else []
    return [
        pytest.param(make, command, id=f"{name}-{command}", marks=marks)
        for group in kinds
        for name, make in group.items()
        for command in _COMMANDS
    ]


@pytest.mark.parametrize(
    ("make", "command"),
    [*_parameters(FILES, GRAPHS), *_parameters(SLOW_GRAPHS, mark=_LONG)],
)
def test_hostile_model_is_a_sentence(
    trials: Trials, tmp_path: Path, make: Kind, command: str
) -> None:
    model = make(tmp_path)
    _check(trials, _COMMANDS[command], tmp_path, model=model)


@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES.keys())
def test_hostile_samples_are_a_sentence(trials: Trials, tmp_path: Path, make: Kind) -> None:
    model, data = saved(tmp_path, valid()), make(tmp_path)
    words = (*_COMMANDS["optimize"], "--calibration", "{data}")
    _check(trials, words, tmp_path, model=model, data=data)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES.keys())
def test_hostile_recipe_is_a_sentence(trials: Trials, tmp_path: Path, make: Kind) -> None:
    model, recipe = saved(tmp_path, valid()), make(tmp_path)
    words = (*_COMMANDS["optimize"], "--recipe", "{recipe}")
    _check(trials, words, tmp_path, model=model, recipe=recipe)
