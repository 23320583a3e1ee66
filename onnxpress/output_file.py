"""Files that are written whole or not at all, several of them as one set.

Each file is written into a temporary folder beside its place and synced; when all of a set are
there they are renamed, in the order in which they were staged, with nothing between. What a killed
run left behind is removed by the next one that writes there (`temporary`).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from onnxpress.errors import OutputError
from onnxpress.temporary import TemporaryFolder, alone_in

__all__ = ["FileSet", "check_output", "place_of", "replace_file", "rewriting"]

_PREFIX = ".onnxpress-"


def place_of(path: Path) -> Path:
    """Where a file is really written: a symbolic link is written through.

    Raises:
        OSError: the name cannot be looked up.
        OutputError: the link leads in a circle.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except RuntimeError as error:
        raise OutputError(f"{path}: is a symbolic link that leads in a circle [O002]") from error


def check_output(output: Path, *, source: Path | None = None) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        OutputError: the folder is missing or closed to us, what is there is no regular file, or
            the output is the input.
    """
    try:
        place = place_of(output)
        _check_place(output, place)
        same = source is not None and place.exists() and place.samefile(source)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror or error}; choose another "
            "name or folder [O002]"
        ) from error
    if same:
        raise OutputError(
            f"{output}: is the input itself, which is never overwritten; choose another -o [O001]"
        )


def _check_place(output: Path, place: Path) -> None:
    folder = place.parent
    if not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist; create it first [O002]")
    if place.is_dir():
        raise OutputError(f"{output}: is a folder; expected the name of a file to write [O002]")
    if place.exists() and not place.is_file():
        raise OutputError(
            f"{output}: is a device, a pipe or a socket, which would be replaced; expected the "
            "name of a regular file [O002]"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{output}: the folder {folder} cannot be written to [O002]")
    # A name that is too long is told by the file system alone.
    with contextlib.suppress(FileNotFoundError):
        os.lstat(place)


class FileSet:
    """Files that appear together where a `with` block ends without an exception."""

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []
        self._folders: list[TemporaryFolder] = []
        self._removed: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._rename()
        finally:
            for folder in self._folders:
                folder.close()

    @contextlib.contextmanager
    def stage(self, path: Path) -> Iterator[Path]:
        """Yield the temporary path of a file; it takes the place of `path` with the whole set.

        Raises:
            OutputError: the disk is full or the folder cannot be written to.
        """
        try:
            place = place_of(path)
            _check_place(path, place)
            temporary = self._folder(place.parent) / place.name
            yield temporary
            _sync(temporary)
        except OSError as error:
            raise _not_written(path, error, done=False) from error
        self._staged.append((temporary, place))

    def remove(self, path: Path) -> None:
        """Remove a file once the set has taken its places."""
        self._removed.append(path)

    def _folder(self, beside: Path) -> Path:
        self._folders.append(TemporaryFolder(beside, _PREFIX))
        return self._folders[-1].path

    def _rename(self) -> None:
        done = False
        with _signals_held():
            for temporary, place in self._staged:
                try:
                    temporary.replace(place)
                    done = True
                except OSError as error:
                    raise _not_written(place, error, done=done) from error
            for path in self._removed:
                with contextlib.suppress(OSError):
                    path.unlink()
        # Afterwards, for between two renames there should be as little time as can be.
        if sys.platform != "win32":
            for folder in dict.fromkeys(place.parent for _, place in self._staged):
                _sync(folder)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let what would interrupt wait; what nobody can hold, SIGKILL, has some microseconds.

    On Windows nothing can be held.
    """
    if sys.platform == "win32":
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it takes the place of `path`, on failure it is gone.

    Raises:
        OutputError: the disk is full or the folder cannot be written to.
    """
    with FileSet() as files, files.stage(path) as temporary:
        yield temporary


@contextlib.contextmanager
def rewriting(path: Path) -> Iterator[None]:
    """Let one process at a time read a file and replace it by what follows from it; others wait.

    It is the file's folder that is locked, which all processes know alike and which is there
    already. Those of other machines do not wait; of theirs what is written last stays.

    Raises:
        OutputError: the folder cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone_in(place_of(path).parent))
        except OSError as error:
            raise _not_written(path, error, done=False) from error
        yield


def _not_written(path: Path, error: OSError, *, done: bool) -> OutputError:
    kept = "what was there before is unchanged" if path.exists() else "nothing was written"
    if done:
        kept = "other files of the same run are already in place"
    return OutputError(
        f"{path}: cannot be written: {error.strerror or error}; {kept}; make room or choose "
        "another folder with -o [O002]"
    )


def _sync(path: Path) -> None:
    # Windows syncs only what may be written, and opens no folders.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
