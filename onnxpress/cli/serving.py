"""One page for the browsers of this machine, until Ctrl-C.

Only 127.0.0.1 listens. A request has to name it as its host: a page of elsewhere whose name was
made to lead here (DNS rebinding) is refused, and so cannot read what is in the model.
"""

import errno
import os
import sys
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

from onnxpress.errors import UsageError

__all__ = ["serve", "server_of"]

_HOST = "127.0.0.1"


def serve(page: str, port: int, *, said: str, browser: bool) -> None:
    """Serve a page, say where, and open it; ends with Ctrl-C.

    Args:
        page: HTML.
        port: where; 0: any that is free.
        said: what the page is about, for the console.
        browser: whether one is opened.

    Raises:
        UsageError: the port is taken, or not for this user.
    """
    with server_of(page, port) as server:
        address = f"http://{_HOST}:{server.server_port}/"
        click.echo(said)
        click.echo(f"{address}  (Ctrl-C ends it)")
        sys.stdout.flush()
        if browser and _has_screen():
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo()


def _has_screen() -> bool:
    """Without one, a browser for the terminal would open in the middle of ours."""
    return sys.platform != "linux" or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def server_of(page: str, port: int) -> ThreadingHTTPServer:
    """A server that gives the page and nothing else.

    Raises:
        UsageError: the port is taken, or not for this user.
    """
    content = page.encode("utf-8")

    class Handler(BaseHTTPRequestHandler):
        """Answers of this page's server."""

        def do_GET(self) -> None:
            """The page at `/`, nothing for the icon, an error for all else."""
            self._answer(content)

        def do_HEAD(self) -> None:
            """The same without the page."""
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            status = self._status()
            body = body if status == HTTPStatus.OK else b""
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            self.wfile.write(body)

        def _status(self) -> HTTPStatus:
            port = server.server_port
            if self.headers.get("Host") not in (f"{_HOST}:{port}", f"localhost:{port}"):
                return HTTPStatus.FORBIDDEN
            if self.path == "/favicon.ico":
                return HTTPStatus.NO_CONTENT
            return HTTPStatus.OK if self.path == "/" else HTTPStatus.NOT_FOUND

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing is said of requests."""

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        why = (
            "is taken" if error.errno == errno.EADDRINUSE else (error.strerror or "cannot be used")
        )
        raise UsageError(
            f"--port {port}: {_HOST}:{port} {why}; give another, or leave it out for one that is "
            "free [U018]"
        ) from error
    server.daemon_threads = True
    return server
