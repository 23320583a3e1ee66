"""A training's state in one file, so that it goes on where it was interrupted.

It is written whole or not at all, and knows of which training it is by a digest of the samples, the
teacher's answers, the weights before the first step and the schedule.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxpress.distillation.problem import Problem
from onnxpress.errors import OutputError
from onnxpress.output_file import FileSet

__all__ = ["State", "StateFile", "digest_of", "require_state"]

_MARK = "onnxpress distill state 1"
_MARKED = "mark"
_EVERY_S = 20.0
"""Between two writes: what is lost at most where the power fails."""


@dataclass(frozen=True)
class State:
    """What steps depend on.

    Attributes:
        arrays: by kind and parameter.
        numbers: counters, losses, the state of the random numbers: what JSON takes.
    """

    arrays: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]
    numbers: Mapping[str, object]


@dataclass
class StateFile:
    """Where a state is kept.

    Attributes:
        path: of the file.
        digest: of the training that it belongs to.
        written: when, by the monotonic clock.
    """

    path: Path
    digest: str
    written: float = field(default_factory=time.monotonic)

    def read(self) -> State | None:
        """What was kept; `None` where there is no file yet.

        Raises:
            OutputError: the file is no state, or that of another training.
        """
        if not self.path.exists():
            return None
        mark, stored = _opened(self.path)
        if mark.get("digest") != self.digest:
            raise OutputError(
                f"{self.path}: is the state of another training; expected the same teacher, "
                "student, samples, steps, rate, temperature and seed: give the file of this one, "
                "or another name to begin anew [O008]"
            )
        arrays: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
        for key, array in stored.items():
            kind, _, name = key.partition("/")
            arrays.setdefault(kind, {})[name] = array
        numbers = mark["numbers"]
        assert isinstance(numbers, dict)
        return State(arrays, numbers)

    @property
    def is_due(self) -> bool:
        """Whether it was not written for some time."""
        return time.monotonic() - self.written > _EVERY_S

    def write(self, state: State) -> None:
        """Take the place of what was kept before.

        Raises:
            OutputError: the disk is full or the folder cannot be written to.
        """
        mark = json.dumps({"mark": _MARK, "digest": self.digest, "numbers": state.numbers})
        stored = {
            f"{kind}/{name}": array
            for kind, arrays in state.arrays.items()
            for name, array in arrays.items()
        }
        with FileSet() as files, files.stage(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{_MARKED: np.asarray(mark)}, **stored)  # type: ignore[arg-type]
        self.written = time.monotonic()


def require_state(path: Path) -> None:
    """Refuse before any work a file that is no state, which would be written over.

    Raises:
        OutputError: such a file is there.
    """
    if path.exists():
        _opened(path)


def digest_of(problem: Problem, schedule: tuple[object, ...], first: float) -> str:
    """SHA-256 of all that steps follow from.

    Args:
        problem: what is minimized over what.
        schedule: how long and how fast, and with which seed.
        first: the loss before any step, which depends on the graphs too.
    """
    found = hashlib.sha256(repr((_MARK, schedule, first)).encode())
    for batches in problem.batches:
        for feed in (*batches.feeds, *batches.answers):
            for name, array in sorted(feed.items()):
                found.update(f"{name}|{array.dtype}|{array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
    for name, parameter in sorted(problem.parameters.items()):
        found.update(f"{name}|{parameter.start.shape}".encode())
        found.update(np.ascontiguousarray(parameter.start).tobytes())
    return found.hexdigest()


def _opened(path: Path) -> tuple[dict[str, object], dict[str, npt.NDArray[np.float32]]]:
    """What a file says of itself, and its arrays.

    Raises:
        OutputError: it is no state.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            mark = json.loads(str(archive[_MARKED]))
            stored = {key: archive[key] for key in archive.files if key != _MARKED}
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise _no_state(path) from error
    if not isinstance(mark, dict) or mark.get("mark") != _MARK:
        raise _no_state(path)
    return mark, stored


def _no_state(path: Path) -> OutputError:
    return OutputError(
        f"{path}: is no state that onnxpress distill has written, and would be overwritten; give "
        "another name, or remove the file [O004]"
    )
