"""A campaign: mutated files through the commands, for a time or a number of cases.

    PYTHONPATH=tests python -m fuzz [--minutes 2] [--cases N] [--seed 0] [--first 0] [--wide]
        [--keep FOLDER] [--replay FILE ...]

The same seed gives the same cases. What fails is told by its kind and the place in the code, once
each, and its files are kept in the folder, with the command that shows it again.
"""

import argparse
import collections
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fuzz import trial
from fuzz.mutation import mutated_model, mutated_samples, mutated_text
from fuzz.seeds import models, samples_of, tests_of_onnx
from fuzz.trial import Outcome

_FRAME = re.compile(r'File "\S*?((?:onnxpress|passes|site-packages)/\S+)", line (\d+),? in (\S+)')
RECIPE_OF = "mlp_opset17"
COMMANDS = (
    ("inspect", "{model}"),
    ("simplify", "{model}", "-o", "{out}", "--threads", "1"),
)
_OPTIMIZE = (
    "optimize", "{model}", "-o", "{out}", "--threads", "1", "--time-limit", "5", "--goal", "size",
)  # fmt: skip


def cases(seed: int, first: int, *, wide: bool) -> Iterator[tuple[str, str, bytes]]:
    """Numbered kinds, names of the seed and contents of files, without end.

    Args:
        seed: of all of them.
        first: number of the first one.
        wide: whether ONNX's own tests are mutated too.
    """
    own = models()
    pool = {**own, **(tests_of_onnx() if wide else {})}
    recipe = _recipe()
    number = first
    while True:
        rng = random.Random(f"{seed}/{number}")  # noqa: S311 - for tests
        match rng.choices(("model", "samples", "recipe"), (8, 1, 1))[0]:
            case "model":
                name, other = rng.choice(sorted(pool)), rng.choice(sorted(own))
                yield "model", name, mutated_model(pool[name], own[other], rng)
            case "samples":
                name = rng.choice(sorted(own))
                yield "samples", name, mutated_samples(samples_of(name), rng)
            case _:
                yield "recipe", RECIPE_OF, mutated_text(recipe, rng)
        number += 1


def _recipe() -> str:
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder, "model.onnx"), Path(folder, "out.onnx")
        model.write_bytes(models()[RECIPE_OF])
        arguments = [word.format(model=model, out=out) for word in _OPTIMIZE]
        outcome = trial.run(arguments, Path(folder))
        found = sorted(Path(folder).glob("*.toml"))
        if not found:
            raise RuntimeError(outcome.text)
        return found[0].read_text()


def commands_of(kind: str, number: int) -> list[tuple[str, ...]]:
    """What is run on a file of a kind."""
    if kind == "model":
        return [*COMMANDS, *([_OPTIMIZE] if number % 8 == 0 else [])]
    if kind == "samples":
        read = ("simplify", "{valid}", "-o", "{out}", "--threads", "1", "--calibration", "{file}")
        return [("inspect", "{valid}", "--data", "{file}"), read]
    return [("optimize", "{valid}", "-o", "{out}", "--threads", "1", "--recipe", "{file}")]


_SUFFIXES = {"model": "onnx", "samples": "npz", "recipe": "toml"}


def tried(kind: str, name: str, content: bytes, number: int) -> list[tuple[str, Outcome]]:
    """The commands on one file, and what became of each."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        file, valid = Path(folder, f"file.{_SUFFIXES[kind]}"), Path(folder, "valid.onnx")
        file.write_bytes(content)
        if kind != "model":
            valid.write_bytes(models()[name])
        out = Path(folder, "out.onnx")
        places = {"model": file, "file": file, "valid": valid, "out": out}
        for words in commands_of(kind, number):
            arguments = [word.format(**places) for word in words]
            outcome = trial.run(arguments, Path(folder))
            if outcome.problem == "fault":
                text = trial.run([*arguments, "--debug"], Path(folder)).text
                outcome = replace(outcome, text=text)
            found.append((words[0], outcome))
            for left in Path(folder).glob("out*"):
                left.unlink()
        if file.read_bytes() != content:
            raise RuntimeError(f"{kind} {name} number {number}: its file was changed")
        extra = [p for p in Path(folder).iterdir() if p not in (file, valid)]
        if extra:
            raise RuntimeError(f"{kind} {name} number {number}: left {extra}")
    return found


def place_of(outcome: Outcome) -> str:
    """The innermost of our lines in a traceback, or the beginning of what was said."""
    frames = _FRAME.findall(outcome.text)
    own = [frame for frame in frames if "site-packages" not in frame[0]]
    innermost = 0 if "most recent call first" in outcome.text else -1
    where = " ".join(own[innermost]) if own else ""
    beyond = frames[innermost][0].split("site-packages/")[-1] if frames else ""
    last = [] if innermost == 0 else outcome.text.strip().splitlines()[-1:]
    said = last[0][:160] if last else ""
    return f"{outcome.problem} ({outcome.status}) {where} < {beyond} {said}"


def main() -> None:
    """Run a campaign and print what was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--cases", type=int, default=1 << 60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--wide", action="store_true", help="mutate ONNX's own tests too")
    parser.add_argument("--keep", type=Path, default=None, metavar="FOLDER")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    counts: collections.Counter[str] = collections.Counter()
    places: collections.Counter[str] = collections.Counter()
    try:
        for number, (kind, name, content) in enumerate(
            cases(options.seed, options.first, wide=options.wide), options.first
        ):
            if time.monotonic() > deadline or number >= options.first + options.cases:
                break
            counts["files"] += 1
            for command, outcome in tried(kind, name, content, number):
                counts["commands"] += 1
                counts[f"exit {outcome.status}"] += 1
                if not outcome.problem:
                    continue
                counts[outcome.problem] += 1
                place = place_of(outcome)
                places[place] += 1
                if places[place] == 1:
                    print(
                        f"{number} {kind} {name} {command}: {place} "
                        f"[{outcome.seconds:.1f} s, {outcome.peak_bytes / 1e6:.0f} MB]",
                        flush=True,
                    )
                    _keep(options.keep, f"{number}.{command}", kind, content, outcome)
    finally:
        print(dict(counts.most_common()))
    for place, count in places.most_common():
        print(f"{count}: {place}")
    # What onnx or onnxruntime ended was told in a sentence, and is listed to be looked at.
    raise SystemExit(any(not place.startswith("ended") for place in places))


def _keep(folder: Path | None, name: str, kind: str, content: bytes, outcome: Outcome) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.{_SUFFIXES[kind]}").write_bytes(content)
    (folder / f"{name}.log").write_text(outcome.text)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
