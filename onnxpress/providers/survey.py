"""What this machine can run or emulate, without running anything: for `onnxpress doctor`."""

import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from onnxpress.providers.catalogue import PROVIDERS, Provider, has_nvidia_gpu
from onnxpress.providers.config import ProviderLocation, executable, read_config

__all__ = ["Finding", "survey"]

_PROBE_S = 30.0

_Interpreter = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""A command and what it is given in its environment."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a provider before a run.

    Attributes:
        provider: its name.
        state: `runs`, `emulated`, `rules` (only its rules can be checked) or `missing`.
        detail: versions of what was found, or what is missing and the command that installs it.
    """

    provider: str
    state: str
    detail: str


def survey(config: Path | None = None) -> list[Finding]:
    """Look for every provider's interpreter and packages, all at the same time.

    Raises:
        UsageError: the configuration means nothing.
    """
    places = read_config(config)
    with ThreadPoolExecutor() as pool:
        asked = {
            _interpreter(places[entry.name]): entry.name
            for entry in PROVIDERS.values()
            if entry.runner == "python" and places[entry.name].python
        }
        paths = dict(
            zip(asked, pool.map(lambda name: _paths(places[name]), asked.values()), strict=True)
        )
    return [_find(entry, places[entry.name], paths) for entry in PROVIDERS.values()]


def _interpreter(place: ProviderLocation) -> _Interpreter:
    """What decides where packages are looked for: one command may stand for several providers."""
    return place.python, tuple(sorted(place.environment.items()))


def _paths(place: ProviderLocation) -> list[str] | None:
    """Where an interpreter looks for packages, or `None` if it does not answer."""
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own configuration
            [*place.python, "-c", "import sys; print('\\n'.join(sys.path))"],
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            env={**os.environ, **place.environment},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").splitlines()


def _find(
    entry: Provider, place: ProviderLocation, paths: Mapping[_Interpreter, list[str] | None]
) -> Finding:
    if not entry.execution_provider:
        return Finding(entry.name, "rules", "no build for this machine")
    if entry.needs_gpu and not has_nvidia_gpu():
        return Finding(entry.name, "rules", "no NVIDIA GPU here")
    versions, problem = (
        _python(entry, place, paths.get(_interpreter(place)))
        if entry.runner == "python"
        else _javascript(entry, place)
    )
    missing_files = [
        path
        for name, path in {**entry.environment, **place.environment}.items()
        if name.endswith("_FILENAMES") and not Path(path).exists()
    ]
    if not problem and missing_files:
        problem = f"{missing_files[0]} is missing"
    if problem:
        return Finding(entry.name, "missing", f"{problem}; get it: {entry.install}")
    if place.emulator and not entry.is_native:
        return Finding(entry.name, "emulated", f"{place.emulator}; {versions}")
    return Finding(entry.name, "runs", f"{versions}{f'; {entry.note}' if entry.note else ''}")


def _python(entry: Provider, place: ProviderLocation, paths: list[str] | None) -> tuple[str, str]:
    """(versions, problem) of an interpreter, of which one is empty."""
    if not place.python:
        return "", "no interpreter is configured"
    if paths is None:
        return "", f"{' '.join(place.python)} does not answer"
    found = {name: _version(name, paths) for name in entry.packages}
    absent = [name for name, version in found.items() if version is None]
    if absent:
        return "", f"{place.python[-1]} has no {' and no '.join(absent)}"
    return ", ".join(f"{name} {version}" for name, version in found.items()), ""


def _version(package: str, paths: list[str]) -> str | None:
    """Of an installed distribution, from the name of its folder: nothing is imported."""
    stem = package.replace("-", "_")
    for path in paths:
        for folder in Path(path or ".").glob(f"{stem}-*.dist-info"):
            return folder.name.removesuffix(".dist-info").rsplit("-", 1)[-1]
    return None


def _javascript(entry: Provider, place: ProviderLocation) -> tuple[str, str]:
    command = place.node if entry.runner == "node" else place.browser
    if not executable(command):
        return "", f"there is no {command}"
    manifest = place.packages / "node_modules" / "onnxruntime-web" / "package.json"
    try:
        version = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        return "", f"{place.packages} has no onnxruntime-web"
    return f"onnxruntime-web {version}, {Path(command).name}", ""
