"""`onnxpress doctor`: what is installed, what runs, and how to get the rest."""

import json
import sys
from pathlib import Path

import pytest
from command_line import message, run

from onnxpress.providers import PROVIDERS, survey

pytestmark = pytest.mark.usefixtures("no_configuration")


def test_doctor_names_every_provider_and_how_to_get_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "ep.toml"
    config.write_text(f'[ep.qnn]\npython = "{tmp_path}/none"\n', encoding="utf-8")
    found = {entry.provider: entry for entry in survey(config)}
    assert list(found) == list(PROVIDERS)
    assert found["cpu"].state == "runs"
    assert found["qnn"].state == "missing"
    assert "onnxpress doctor --install qnn" in found["qnn"].detail
    assert found["nnapi"].state == "rules"


def test_doctor_looks_where_the_environment_of_each_provider_says(tmp_path: Path) -> None:
    # Two providers on one interpreter, each with packages of its own, as a GPU's build has them.
    site = tmp_path / "site"
    (site / "onnxruntime_openvino-1.24.1.dist-info").mkdir(parents=True)
    config = tmp_path / "ep.toml"
    python = json.dumps(sys.executable)
    config.write_text(
        f"[ep.qnn]\npython = {python}\n"
        f"[ep.openvino]\npython = {python}\n"
        f"environment = {{ PYTHONPATH = {json.dumps(str(site))} }}\n",
        encoding="utf-8",
    )
    found = {entry.provider: entry for entry in survey(config)}
    assert found["openvino"].state == "runs"
    assert "onnxruntime-openvino 1.24.1" in found["openvino"].detail
    assert found["qnn"].state == "missing"


def test_doctor_runs_a_model_when_asked(tmp_path: Path) -> None:
    document = tmp_path / "doctor.json"
    config = tmp_path / "ep.toml"
    config.write_text("", encoding="utf-8")
    result = run("doctor", "--run", "--ep-config", config, "--json", document)
    assert result.exit_code == 0, result.output
    verdicts = json.loads(document.read_text())["verdicts"]
    assert {"cpu", "ort"} <= {verdict["provider"] for verdict in verdicts if verdict["counts"]}


def test_what_cannot_be_installed_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("doctor", "--install", "web")
    assert result.exit_code == 0, result.output
    assert "web: skipped: there is no npm" in result.output


def test_installing_what_nobody_knows_is_refused() -> None:
    result = run("doctor", "--install", "abacus")
    assert result.exit_code == 2
    assert "cannot install abacus" in message(result)
