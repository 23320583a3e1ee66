"""Chromium without a window, driven by its own protocol over a pipe: no other package is needed.

The DevTools protocol (https://chromedevtools.github.io/devtools-protocol/): JSON messages that end
with a zero byte, written to file descriptor 3 of the browser and read from its 4.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Page", "chromium", "opened"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
)


def chromium() -> str | None:
    """Where the browser is, or `None`."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Page:
    """A page in a browser.

    Attributes:
        said: what the page wrote to the console, and exceptions that nobody caught.
        requested: addresses that it asked for, `data:` apart.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.said: list[str] = []
        self.requested: list[str] = []

    def attach(self) -> None:
        """Open an empty page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                return dict(found["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._reading, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            self.said.append(str([argument.get("value") for argument in told["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.said.append(str(told["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.said.append(str(told["entry"].get("text")))
        elif event == "Network.requestWillBeSent":
            address = told["request"]["url"]
            if not address.startswith("data:"):
                self.requested.append(address)

    def size(self, width: int, *, height: int = 900, dark: bool = False) -> None:
        """Set the window's width in CSS pixels, and the theme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])

    def open(self, file: Path) -> None:
        """Load a file and wait until it is complete."""
        self.call("Page.navigate", url=file.resolve().as_uri())
        self.run("new Promise(r => document.readyState === 'complete' ? r() : onload = () => r())")

    def run(self, script: str) -> Any:
        """What an expression gives; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, top: float = 0, height: float | None = None) -> bytes:
        """A PNG of the page, or of a part of its height."""
        whole = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {
            "x": 0,
            "y": top,
            "width": whole["width"],
            "height": min(height or whole["height"], whole["height"] - top),
            "scale": 1,
        }
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(found["data"])


@contextmanager
def opened(browser: str) -> Iterator[Page]:
    """A browser with an empty page, ended at the end."""
    to_read, to_write = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shell = f'exec "$@" 3<&{to_write[0]} 4>&{to_read[1]}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", browser, *_OPTIONS, f"--user-data-dir={folder}"],
            pass_fds=(to_write[0], to_read[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_write[0])
        os.close(to_read[1])
        try:
            page = Page(to_read[0], to_write[1])
            page.attach()
            yield page
        finally:
            os.close(to_write[1])
            os.close(to_read[0])
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
