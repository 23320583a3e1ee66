"""Temporary folders that do not outlive their process for long.

A folder is locked as long as its process lives (`flock(2)`). What a killed run left behind is not,
and is removed by the next run that makes a folder in the same place.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from onnxpress.errors import OutputError

__all__ = ["TemporaryFolder", "no_room", "temporary_folder"]

_SUFFIX = ".tmp"


class TemporaryFolder:
    """A folder of this process, removed when it is closed or nothing refers to it any more.

    Attributes:
        path: where it is.
    """

    def __init__(self, beside: Path | None = None, prefix: str = "onnxpress-") -> None:
        """Make a folder, and remove those of the same prefix whose processes are gone.

        Args:
            beside: the folder that it is made in; `None`: where the system keeps temporary files.
            prefix: of its name.

        Raises:
            OSError: it cannot be made.
        """
        place = Path(tempfile.gettempdir()) if beside is None else beside
        _remove_left_over(place, prefix)
        # Under a name that nobody takes for left over until it is locked.
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        lock = os.open(made, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.rename(made.with_name(f"{made.name}{_SUFFIX}"))
        self._end = weakref.finalize(self, _remove, self.path, lock)

    def close(self) -> None:
        """Remove it with all that is in it."""
        self._end()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is gone afterwards.

    Raises:
        OutputError: there is no room for what is written into it, or it cannot be made.
    """
    try:
        folder = TemporaryFolder()
        try:
            yield folder.path
        finally:
            folder.close()
    except OSError as error:
        raise no_room(error) from error


def no_room(error: OSError) -> OutputError:
    """What to say where a temporary file cannot be written."""
    return OutputError(
        f"{tempfile.gettempdir()}: a temporary file cannot be written there: "
        f"{error.strerror or error}; make room, or name another folder in TMPDIR [O006]"
    )


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _remove_left_over(beside: Path, prefix: str) -> None:
    """Remove folders of processes that are gone."""
    left_over = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}" + re.escape(_SUFFIX))
    for folder in beside.glob(f"{prefix}*{_SUFFIX}"):
        if not left_over.fullmatch(folder.name):
            continue
        # One that another process holds, has just removed or owns is not ours to touch.
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
