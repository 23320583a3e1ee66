"""Nothing that we run looks for a network or leaves identifiers of the machine behind."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxpress.providers.catalogue import PROVIDERS
from onnxpress.providers.config import ProviderLocation
from onnxpress.providers.launch import launch

COMMANDS = ["optimize", "inspect"]


def test_every_import_switches_telemetry_off() -> None:
    code = "import os, onnxpress; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given in ("", "0"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "ORT_DISABLE_TELEMETRY": given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "1"


def test_processes_of_providers_are_started_without_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        "report = {'status': 'ran', 'environment': dict(os.environ)}\n"
        "pathlib.Path(sys.argv[2]).with_name('report.json').write_text(json.dumps(report))\n"
    )
    script.chmod(0o755)
    place = ProviderLocation(python=(str(script),), environment={"ORT_DISABLE_TELEMETRY": "0"})
    entry = next(entry for entry in PROVIDERS.values() if entry.runner == "python")
    (tmp_path / "job").mkdir()
    answer = launch(entry, place, tmp_path / "job", time_limit=60)
    assert answer.failure == ""
    assert answer.report["environment"]["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_in_the_home_folder(
    tmp_path: Path, linear_model: Path, command: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ran(command, linear_model, home)
    assert list(home.rglob("*")) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_system_call_reaches_for_a_network(
    tmp_path: Path, linear_model: Path, command: str
) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    ran(command, linear_model, home, "strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace))
    assert not re.findall(r".*AF_INET.*", trace.read_text())


def ran(command: str, model: Path, home: Path, *before: str) -> None:
    """Run the command line with a home of its own."""
    words = [*before, sys.executable, "-m", "onnxpress", command, str(model)]
    words += ["--json", str(model.parent / "found.json")]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((model.parent / "found.json").read_text())
