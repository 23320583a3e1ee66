"""Files that once failed, and mutated ones: a sentence and an exit status for each."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.__main__ import RECIPE_OF, commands_of
from fuzz.mutation import mutated_model
from fuzz.seeds import models
from fuzz.serving import Trials
from onnxpress import model_file
from onnxpress.errors import ModelError

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
KINDS = {".onnx": "model", ".npz": "samples", ".toml": "recipe"}


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with Trials() as started:
        yield started


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_once_failed_is_a_sentence(trials: Trials, tmp_path: Path, path: Path) -> None:
    valid, out = tmp_path / "valid.onnx", tmp_path / "out.onnx"
    valid.write_bytes(models()[RECIPE_OF])
    for words in commands_of(KINDS[path.suffix], 0):
        arguments = [w.format(model=path, file=path, valid=valid, out=out) for w in words]
        outcome = trials.run(arguments, tmp_path)
        assert outcome.problem in ("", "ended"), outcome.text[-3000:]
        for written in tmp_path.glob("out*"):
            written.unlink()


def test_mutated_models_are_read_or_refused(tmp_path: Path) -> None:
    path, pool = tmp_path / "model.onnx", list(models().values())
    read = 0
    for number in range(300):
        rng = random.Random(number)  # noqa: S311 - for a test
        path.write_bytes(mutated_model(rng.choice(pool), rng.choice(pool), rng))
        try:
            model_file.to_bytes(model_file.load(path))
            read += 1
        except ModelError:
            continue
    assert 30 < read < 270


def test_short_campaign_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--cases", "40", "--minutes", "10"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "'files': 40" in done.stdout
