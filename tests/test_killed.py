"""A run that is killed at any time leaves all files of its set as they were, or all new."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
COMMANDS = {
    "simplify": ("simplify",),
    "optimize": ("optimize", "--goal", "size", "--time-limit", "1"),
}


@dataclasses.dataclass(frozen=True)
class OutputSet:
    """Where a run writes."""

    folder: Path

    @property
    def model(self) -> Path:
        """The model."""
        return self.folder / "out.onnx"

    def arguments(self, command: str, source: Path) -> list[str]:
        """Of a command that writes all there is."""
        name, *options = COMMANDS[command]
        written = ["-o", self.model, "--report", self.folder / "out.html"]
        written += ["--json", self.folder / "out.json", "--external-data"]
        return [name, str(source), *options, *map(str, written), "--threads", "1"]

    def contents(self) -> dict[str, str]:
        """A digest of every file but those of staging folders."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.iterdir())
            if path.is_file()
        }

    def require_whole(self) -> None:
        """Model, weights, recipe and reports belong together."""
        model = onnx.load(self.model, load_external_data=False)
        stamps = {entry.key: entry.value for entry in model.metadata_props}
        recipe = (self.folder / "out.recipe.toml").read_bytes()
        assert stamps["onnxpress.recipe_sha256"] == hashlib.sha256(recipe).hexdigest()
        entries = [entry for w in model.graph.initializer for entry in w.external_data]
        places = {entry.value for entry in entries if entry.key == "location"}
        data = {path.name for path in self.folder.glob("*.data")}
        assert data == places
        session = ort.InferenceSession(str(self.model), providers=["CPUExecutionProvider"])
        session.run(None, {"x": np.ones((2, 64), np.float32)})
        json.loads((self.folder / "out.json").read_text())
        assert (self.folder / "out.html").read_text().rstrip().endswith("</html>")


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two models of the same interface and different weights."""
    made = []
    for number in range(2):
        weight = np.random.default_rng(number).standard_normal((64, 64)).astype(np.float32)
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [info("x", onnx.TensorProto.FLOAT, ["n", 64])],
            [info("y", onnx.TensorProto.FLOAT, ["n", 64])],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        path = tmp_path / f"source{number}.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        made.append(path)
    return made


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "onnxpress", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_while_writing(
    process: "subprocess.Popen[bytes]", folder: Path, number: signal.Signals, delay: float
) -> None:
    """Send a signal so long after the first temporary folder appears."""
    while process.poll() is None and not list(folder.glob(".onnxpress-*.tmp")):
        time.sleep(0.001)
    time.sleep(delay)
    ended(process, number)


def ended(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal, and wait until the whole group of processes is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def kills(number: int) -> Iterator[tuple[signal.Signals, bool, float]]:
    """Signals in turn, half of them while files are written, and how late, from 0 to 1."""
    rng = random.Random(0)  # noqa: S311 - for a test
    for index in range(number):
        yield SIGNALS[index % 3], index % 2 == 0, rng.random()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [4, pytest.param(50, marks=pytest.mark.long)])
def test_killed_run_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, sources: list[Path], command: str, number: int
) -> None:
    out = OutputSet(tmp_path / "out")
    out.folder.mkdir()
    started = time.monotonic()
    assert start(out.arguments(command, sources[0])).wait() in (0, 1)
    whole_s = time.monotonic() - started
    written = 0
    tally: dict[str, int] = {"as before": 0, "new": 0, "left": 0}
    for sent, while_writing, share in kills(number):
        before = out.contents()
        process = start(out.arguments(command, sources[1 - written]))
        if while_writing:
            kill_while_writing(process, out.folder, sent, 0.03 * share)
        else:
            time.sleep(whole_s * share)
            ended(process, sent)
        assert process.returncode in (0, 1, 130, -sent)
        after = out.contents()
        out.require_whole()
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed in (set(), set(after)), f"{sent.name}: only {changed} are new"
        written = 1 - written if changed else written
        tally["new" if changed else "as before"] += 1
        tally["left"] += len(list(out.folder.glob(".onnxpress-*")))
    assert start(out.arguments(command, sources[0])).wait() in (0, 1)
    out.require_whole()
    assert not list(out.folder.glob(".*"))
    assert len(out.contents()) == 5
    print(f"{command}: {number} kills: {tally}")
