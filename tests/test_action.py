"""The steps of the GitHub Action and of the pre-commit hook, run as a runner would run them."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml = importlib.import_module("yaml")
"""Without stubs."""
ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
CHECK = ACTION["runs"]["steps"][1]


def stated(step: dict[str, Any], **inputs: str) -> dict[str, str]:
    """The environment of a step: each input as the workflow gives it, or its default."""
    given = {
        name: inputs.get(name, one.get("default", "")) for name, one in ACTION["inputs"].items()
    }
    return {
        name: given[text.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, text in step["env"].items()
    }


def steps(folder: Path, step: dict[str, Any], **inputs: str) -> tuple[int, str]:
    """Exit status and output of a step; `python` and `onnxpress` print their arguments."""
    for name in ("python", "onnxpress"):
        program = folder / name
        program.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
        program.chmod(0o755)
    place = os.pathsep.join([str(folder), os.environ["PATH"]])
    environment = {"PATH": place, "GITHUB_ACTION_PATH": "/action", **stated(step, **inputs)}
    done = subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", step["run"]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({}, "</action>"),
        ({"extras": "images,texts"}, "</action[images,texts]>"),
        ({"package": "onnxpress==1"}, "<onnxpress==1>"),
    ],
)
def test_action_installs_itself(tmp_path: Path, inputs: dict[str, str], wanted: str) -> None:
    status, said = steps(tmp_path, ACTION["runs"]["steps"][0], **inputs)
    assert status == 0
    assert said == f"<-m><pip><install><--quiet>{wanted}"


def test_action_gives_what_is_stated_and_nothing_else(tmp_path: Path) -> None:
    inputs = {"model": "a b.onnx", "optimized": "$(x).onnx", "max-size": "4MB"}
    status, said = steps(tmp_path, CHECK, **inputs)
    assert status == 0
    assert said == ("<check><a b.onnx><--format><github><--optimized><$(x).onnx><--max-size><4MB>")


def test_every_input_of_the_action_is_an_option_of_check(tmp_path: Path) -> None:
    names = [name for name in ACTION["inputs"] if name not in ("extras", "package")]
    _, said = steps(tmp_path, CHECK, **dict.fromkeys(names, "x"))
    shown = subprocess.run(
        [sys.executable, "-m", "onnxpress", "check", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in names:
        assert name == "model" or (f"<--{name}>" in said and f"--{name}" in shown)


def test_hook_calls_a_command_that_the_package_installs() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert hook["entry"].split() == ["onnxpress", "check"]
    assert "onnxpress" in project["scripts"]
    assert not hook["pass_filenames"]
