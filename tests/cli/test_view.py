"""`onnxpress view`: the page as a file and over a server, and what is refused."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import message, run
from made_reports import chain

from onnxpress import model_file
from onnxpress.cli.serving import server_of
from onnxpress.errors import UsageError


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a server of a small page."""
    with server_of("<p>the page</p>", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def answer(port: int, path: str = "/", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        found = connection.getresponse()
        return found.status, found.read().decode()
    finally:
        connection.close()


def test_server_gives_the_page_and_nothing_else(served: int) -> None:
    assert answer(served) == (200, "<p>the page</p>")
    assert answer(served, "/favicon.ico") == (204, "")
    assert answer(served, "/../../etc/passwd") == (404, "")


def test_names_of_elsewhere_that_lead_here_are_refused(served: int) -> None:
    assert answer(served, Host="evil.example") == (403, "")
    assert answer(served, Host=f"localhost:{served}")[0] == 200


def test_server_listens_to_this_machine_alone() -> None:
    with server_of("", 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_taken_port_is_said(served: int) -> None:
    with pytest.raises(UsageError, match=f"--port {served}: 127.0.0.1:{served} is taken") as caught:
        server_of("", served)
    assert caught.value.code == "U018"


def test_taken_port_is_an_error_of_the_command(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("view", models / "fashion_mlp.onnx", "--no-browser", "--port", port)
    assert result.exit_code == 2
    assert message(result).startswith("error[U018]: ")


def test_interrupt_ends_it_quietly(models: Path) -> None:
    # A shell starts what runs in the background with interrupts ignored; children inherit that.
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from onnxpress.cli import main; main()"
    )
    command = [sys.executable, "-c", heeding, "view", str(models / "fashion_mlp.onnx")]
    with subprocess.Popen(
        [*command, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "8 nodes, without those that compute constants.\n"
            found = re.fullmatch(
                r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends it\)\n", process.stdout.readline()
            )
            assert found is not None
            status, page = answer(int(found[1]))
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert status == 200
    assert "<title>onnxpress: fashion_mlp.onnx</title>" in page
    assert (process.returncode, rest.strip(), errors) == (0, "", "")


def test_page_of_two_models_says_what_changed(models: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    assert run("quantize", models / "fashion_mlp.onnx", "-o", small).exit_code == 0
    page = tmp_path / "page.html"
    data = models / "fashion_evaluation.npz"
    arguments = ("view", models / "fashion_mlp.onnx", small, "--calibration", data, "-o", page)
    result = run(*arguments, "--samples", 2)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert re.match(r"\d+ nodes? the same in both, \d+ changed, \d+ removed, \d+ added\.", said)
    assert "Errors of tensors are over 2 samples (fashion_evaluation.npz)." in said
    assert "dB" in page.read_text(encoding="utf-8")
    quiet = run(*arguments, "--samples", 2, "-q")
    assert len(quiet.output.splitlines()) == 1


def test_nothing_in_common_is_said(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    model_file.save(chain(["one"]), other)
    result = run("view", models / "fashion_cnn.onnx", other, "-o", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "the models have nothing in common" in " ".join(result.output.split())


def test_wrong_file_is_an_error(models: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    result = run("view", models / "fashion_mlp.onnx", wrong, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "wrong.onnx" in message(result)
    assert not (tmp_path / "page.html").exists()
    assert run("view", tmp_path / "nothing.onnx").exit_code == 2


def test_samples_need_a_second_model(models: Path) -> None:
    result = run("view", models / "fashion_mlp.onnx", "--data", "x.npz")
    assert message(result).startswith("error[U008]: --data measures how far B is from A")


def test_output_replaces_no_input_and_no_foreign_file(models: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(models / "fashion_mlp.onnx", tmp_path / "m.onnx"))
    before = model.read_bytes()
    assert run("view", model, "-o", model).exit_code == 2
    assert model.read_bytes() == before
    letter = tmp_path / "letter.html"
    letter.write_text("Dear reader")
    assert message(run("view", model, "-o", letter)).startswith("error[O004]: ")
    assert letter.read_text() == "Dear reader"
    page = tmp_path / "page.html"
    assert run("view", model, "-o", page).exit_code == 0
    assert run("view", model, "-o", page).exit_code == 0
