"""Trials for tests: a process that has imported all and has no threads forks for each of them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from fuzz.trial import MOST_SECONDS, Outcome, run

__all__ = ["Trials"]


class Trials:
    """Runs commands one after the other, each in a process of its own."""

    def __enter__(self) -> Self:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{code}from fuzz.serving import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, arguments: Sequence[object], folder: Path, most_s: int = MOST_SECONDS) -> Outcome:
        """What becomes of a command in a folder, within seconds of processor time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [str(argument) for argument in arguments]
        self._process.stdin.write(json.dumps([words, str(folder), most_s]) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Answer lines of standard input."""
    for line in sys.stdin:
        arguments, folder, most_s = json.loads(line)
        print(json.dumps(asdict(run(arguments, Path(folder), most_s))), flush=True)
