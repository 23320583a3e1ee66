"""Where providers live on this machine: `onnxpress.toml`.

    [ep.openvino]
    python = "openvino/bin/python"              # or a list: an emulator and its arguments first
    environment = { NAME = "value" }            # added to the provider's own
    options = { device_type = "GPU" }           # provider options, likewise
    emulator = "qemu-user 10.0"                 # what to call what stands in for the device

    [ep.web]
    node = "node"
    packages = "web"                            # the folder that has node_modules

Looked for in the working directory, then in `~/.config/onnxpress/config.toml`. Relative paths that
name something beside the file are taken from there, other commands from PATH.
"""

import math
import shutil
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxpress.errors import UsageError, nearest, nearest_file
from onnxpress.providers.catalogue import PROVIDERS, Provider, provider
from onnxpress.toml_places import home_expanded, read_toml

__all__ = [
    "NO_PROVIDERS",
    "ProviderLocation",
    "ProviderOptions",
    "executable",
    "find_config",
    "read_config",
]

_KEYS = {
    "python": (str, list),
    "node": (str,),
    "browser": (str,),
    "packages": (str,),
    "environment": (dict,),
    "options": (dict,),
    "emulator": (str,),
}


@dataclass(frozen=True, slots=True)
class ProviderLocation:
    """How a provider is started here.

    Attributes:
        python: the interpreter, with an emulator before it where one is needed; empty: none.
        node: the command for Node.
        browser: the command for Chromium.
        packages: the folder whose node_modules hold onnxruntime-web.
        environment: variables added to the provider's own.
        options: provider options added to its own.
        emulator: what to call the emulator.
    """

    python: tuple[str, ...] = ()
    node: str = "node"
    browser: str = "chromium"
    packages: Path = field(default_factory=Path)
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    emulator: str = ""


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """Where a model is to be run, and what must come of it.

    Attributes:
        asked: providers by name; `all` for every one.
        required: those that must really run it.
        config: the configuration file; `None`: the usual places.
        time_limit: seconds for each provider; one that takes longer has failed. The default
            lets a small model run under emulation.
    """

    asked: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    config: Path | None = None
    time_limit: float = 300.0

    @property
    def names(self) -> tuple[str, ...]:
        """All that are to be run, each once, in the order given."""
        every = [PROVIDERS if name == "all" else (name,) for name in self.asked]
        return tuple(dict.fromkeys([*(name for names in every for name in names), *self.required]))

    def check(self) -> None:
        """Refuse before any work what means nothing.

        Raises:
            UsageError: an unknown provider, a broken configuration or no time.
        """
        for name in self.names:
            provider(name)
        if not (self.time_limit > 0 and math.isfinite(self.time_limit)):
            raise UsageError(
                f"the providers' time limit is {self.time_limit:g}; expected seconds above 0 [U009]"
            )
        read_config(self.config)


NO_PROVIDERS = ProviderOptions()


def find_config(path: Path | None = None) -> Path | None:
    """The file to read: the one given, or the first of the two usual places that exists.

    Raises:
        UsageError: the given file does not exist.
    """
    if path is not None:
        if not path.is_file():
            raise UsageError(
                f"{path}: there is no such file{nearest_file(path)} "
                "(given as the provider configuration) [U014]"
            )
        return path
    usual = (Path("onnxpress.toml"), home_expanded("~/.config/onnxpress/config.toml"))
    return next((file for file in usual if file.is_file()), None)


def read_config(path: Path | None = None) -> dict[str, ProviderLocation]:
    """A place for every provider, by name.

    Raises:
        UsageError: the file is no TOML, or has a key or a value that means nothing.
    """
    found = find_config(path)
    tables: dict[str, Any] = {}
    if found is not None:
        try:
            content = read_toml(found.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{found}: cannot be read as TOML: {error} [U014]") from error
        tables = content.get("ep", {})
        if not isinstance(tables, dict):
            raise UsageError(
                f"{found}: ep is {tables!r}; expected tables such as [ep.openvino] [U014]"
            )
        _check(tables, found)
    folder = Path() if found is None else found.parent
    return {name: _place(entry, tables.get(name, {}), folder) for name, entry in PROVIDERS.items()}


def _check(tables: Mapping[str, Any], path: Path) -> None:
    for name, table in tables.items():
        if name not in PROVIDERS:
            raise UsageError(
                f"{path}: [ep.{name}]: there is no such provider"
                f"{nearest(name, list(PROVIDERS))} (there are: "
                f"{', '.join(PROVIDERS)}) [U006]"
            )
        if not isinstance(table, dict):
            raise UsageError(f"{path}: ep.{name} is {table!r}; expected a table [ep.{name}] [U014]")
        for key, value in table.items():
            if key not in _KEYS:
                raise UsageError(
                    f"{path}: [ep.{name}]: unknown key {key!r}; expected one of "
                    f"{', '.join(_KEYS)} [U014]"
                )
            texts = value if isinstance(value, list) else [value]
            texts = list(value.values()) if isinstance(value, dict) else texts
            if not isinstance(value, _KEYS[key]) or not all(isinstance(t, str) for t in texts):
                kinds = " or ".join(kind.__name__ for kind in _KEYS[key])
                raise UsageError(
                    f"{path}: [ep.{name}] {key} is {value!r}; expected text ({kinds} of str) [U014]"
                )


def _place(entry: Provider, table: Mapping[str, Any], folder: Path) -> ProviderLocation:
    python = table.get("python", [] if entry.needs_interpreter else [sys.executable])
    words = [python] if isinstance(python, str) else python
    return ProviderLocation(
        python=tuple(_beside(word, folder) for word in words),
        node=_beside(table.get("node", "node"), folder),
        browser=_beside(table.get("browser", "chromium"), folder),
        packages=Path.cwd() / folder / table.get("packages", "."),
        environment=table.get("environment", {}),
        options=table.get("options", {}),
        emulator=table.get("emulator", entry.emulator),
    )


def _beside(word: str, folder: Path) -> str:
    """A path beside the configuration file, or the word as it is.

    Not resolved: the python of a virtual environment is a link that must stay one.
    """
    if "/" in word and not Path(word).is_absolute():
        return str(Path.cwd() / folder / word)
    return word


def executable(command: str) -> bool:
    """Whether a command can be started."""
    return shutil.which(command) is not None
