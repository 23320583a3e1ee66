"""Run a worker in a process of its own, and end it in time whatever it does."""

import contextlib
import functools
import http.server
import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from onnxpress.providers.catalogue import Provider
from onnxpress.providers.config import ProviderLocation, executable

__all__ = ["Answer", "launch"]

_POLL_S = 0.05
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""No model and no configuration makes onnxruntime look for a network."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the report, or why there is none to trust.

    Attributes:
        report: the worker's, as far as it got.
        failure: crash, hang or silence, in words; empty: the worker ended by itself.
        absent: the interpreter or the package is not there, in words.
        late: the time limit ended it.
    """

    report: Mapping[str, Any]
    failure: str = ""
    absent: str = ""
    late: bool = False


def launch(entry: Provider, place: ProviderLocation, folder: Path, *, time_limit: float) -> Answer:
    """Do the job that lies in `folder` (`job.json`) and read the report beside it."""
    if entry.runner == "browser":
        return _browser(place, folder, time_limit)
    if entry.runner == "node":
        worker = _worker("worker.mjs", folder)
        command = [place.node, str(worker), str(folder / "job.json"), str(place.packages)]
    else:
        command = [*place.python, str(_worker("worker.py", folder)), str(folder / "job.json")]
    if not place.python and entry.runner == "python":
        return Answer({}, absent="no interpreter is configured for it")
    # Of an emulator's command the first word and the last are files; between are arguments.
    first, last = (
        (place.node,) * 2 if entry.runner == "node" else (place.python[0], place.python[-1])
    )
    missing = next((word for word in (first, last) if _is_missing(word)), None)
    if missing is not None:
        return Answer({}, absent=f"{missing} cannot be found")
    environment = {**os.environ, **entry.environment, **place.environment, **NO_TELEMETRY}
    with _process(command, folder, environment) as process:
        try:
            code = process.wait(timeout=time_limit)
        except subprocess.TimeoutExpired:
            return Answer(_report(folder), failure=_late(folder, time_limit), late=True)
    return Answer(_report(folder), failure=_ended(code, folder))


def _is_missing(word: str) -> bool:
    """Whether a word of the command names a program or a script that is not there."""
    if word.startswith("-") or executable(word):
        return False
    return not Path(word).exists()


def _worker(name: str, folder: Path) -> Path:
    """A copy beside the job: a foreign interpreter must not see this package's folder."""
    source = importlib.resources.files("onnxpress.providers").joinpath(name)
    target = folder / name
    target.write_bytes(source.read_bytes())
    return target


@contextlib.contextmanager
def _process(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Any:  # noqa: ANN401
    """A process group that does not outlive the block."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the user's own configuration
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    if sys.platform == "win32":
        tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(tree, capture_output=True, check=False)  # noqa: S603 - of the system
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _report(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _stage(folder: Path) -> str:
    return str(_report(folder).get("stage", "starting"))


def _late(folder: Path, time_limit: float) -> str:
    return f"no answer within {time_limit:g} s, while {_stage(folder)}"


def _ended(code: int, folder: Path) -> str:
    """In words, why a process that should have answered did not."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"killed by {name} while {_stage(folder)}"
    if code or not _report(folder).get("status"):
        return f"exit status {code} while {_stage(folder)}: {_last_line(folder)}"
    return ""


def _last_line(folder: Path) -> str:
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


def _browser(place: ProviderLocation, folder: Path, time_limit: float) -> Answer:
    package = place.packages / "node_modules" / "onnxruntime-web"
    if not executable(place.browser):
        return Answer({}, absent=f"{place.browser} cannot be found")
    if not package.is_dir():
        return Answer({}, absent=f"{place.packages} has no onnxruntime-web")
    _worker("worker.mjs", folder)
    _worker("page.html", folder)
    try:
        (folder / "package").symlink_to(package.resolve())
    except OSError:
        # Windows lets few make links.
        shutil.copytree(package, folder / "package")
    handler = functools.partial(_Files, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{folder.name}/page.html"
        command = [
            shutil.which(place.browser) or place.browser,
            "--headless",
            "--no-sandbox",  # the page is ours alone; root and containers have no sandbox
            "--disable-gpu",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            address,
        ]
        try:
            with _process(
                command, folder, {**os.environ, **place.environment, **NO_TELEMETRY}
            ) as process:
                return _await_page(process, folder, time_limit)
        finally:
            server.shutdown()


def _await_page(process: Any, folder: Path, time_limit: float) -> Answer:  # noqa: ANN401
    """The browser stays open: the page's own report says when it is done."""
    deadline = time.monotonic() + time_limit
    while time.monotonic() < deadline:
        if _report(folder).get("status"):
            return Answer(_report(folder))
        code = process.poll()
        if code is not None:
            return Answer(_report(folder), failure=_ended(code, folder))
        time.sleep(_POLL_S)
    return Answer(_report(folder), failure=_late(folder, time_limit), late=True)


class _Files(http.server.SimpleHTTPRequestHandler):
    """The job's folder for the page to read, and to put its results into."""

    extensions_map = {  # noqa: RUF012 - as the base class has it
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def do_PUT(self) -> None:
        target = Path(self.directory, unquote(urlsplit(self.path).path).lstrip("/"))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if target.name not in ("report.json", "outputs.bin", "floor.bin"):
            self.send_error(403)
            return
        temporary = target.with_name(f"{target.name}.part")
        temporary.write_bytes(body)
        temporary.replace(target)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Say nothing."""
