"""Temporary folders that do not outlive their process for long.

A folder is locked as long as its process lives (`flock(2)`; on Windows, which opens no folders, a
file in it). What a killed run left behind is not, and is removed by the next run that makes a
folder in the same place.
"""

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from onnxpress.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["TemporaryFolder", "alone", "alone_in", "no_room", "temporary_folder"]

_SUFFIX = ".tmp"
_LOCK = ".onnxpress-lock"
"""On Windows."""
_YOUNG_S = 60
"""On Windows a folder has its final name a moment before it is locked."""


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
        self.path, lock = _made(place, prefix)
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


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine is at something.

    Args:
        name: of what one at a time may do; letters, digits and hyphens.

    Raises:
        OutputError: nothing can be written where the system keeps temporary files.
    """
    place = Path(tempfile.gettempdir(), f"onnxpress{_user()}.{name}")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(place.open("a"))
        except OSError as error:
            raise no_room(error) from error
        # The system gives it back however the process ends.
        _wait_for(file.fileno())
        yield


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process on this machine is at something in a folder.

    Raises:
        OSError: the folder cannot be opened.
    """
    if sys.platform == "win32":
        # A file that stays: there an open one cannot be removed.
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    else:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait_for(lock)
        yield
    finally:
        os.close(lock)


def _made(place: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the lock on it."""
    if sys.platform == "win32":
        # A folder with an open file in it cannot be renamed there.
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=place))
        (path / _LOCK).touch()
        return path, _held(path)
    # Under a name that nobody takes for left over until it is locked.
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    lock = _held(made)
    return made.rename(made.with_name(f"{made.name}{_SUFFIX}")), lock


def _held(folder: Path) -> int:
    """A lock that ends with this process.

    Raises:
        OSError: another process holds it, or it is no folder of ours.
    """
    if sys.platform == "win32":
        lock = os.open(folder / _LOCK, os.O_RDWR)
    else:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove(path: Path, lock: int) -> None:
    if sys.platform == "win32":
        # There an open file cannot be removed.
        os.close(lock)
        shutil.rmtree(path, ignore_errors=True)
        return
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
            if sys.platform == "win32" and time.time() - folder.stat().st_mtime < _YOUNG_S:
                continue
            _remove(folder, _held(folder))


if sys.platform == "win32":

    def _wait_for(file: int) -> None:
        """Wait until nobody else holds an open file."""
        while True:
            # It gives up after ten seconds.
            with contextlib.suppress(OSError):
                msvcrt.locking(file, msvcrt.LK_LOCK, 1)
                return

    def _user() -> str:
        """Its temporary folder is of one user."""
        return ""

else:

    def _wait_for(file: int) -> None:
        """Wait until nobody else holds an open file."""
        fcntl.flock(file, fcntl.LOCK_EX)

    def _user() -> str:
        """Who waits for whom: others may not open this user's file."""
        return f"-{os.getuid()}"
