"""Make the environments that execution providers run in: `onnxpress doctor --install NAME`.

Each goes into a folder of its own (`.venv-ep/NAME`), nothing into the system except, as root on
Debian, the browser that WebGPU's software adapter comes with. `onnxpress.toml` then says where
they are. What cannot be installed is left out with its reason.

Needs Python's venv and pip; npm for `web`; apt (Debian) for `cpu-arm64` and `cpu-avx2`: their
emulator and the ARM64 libraries are unpacked, not installed.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from onnxpress.errors import UsageError, nearest

__all__ = ["STEPS", "install"]

FOLDER = Path(".venv-ep")
CONFIG = Path("onnxpress.toml")
ONNXRUNTIME = "1.32.0"
WHEELS = {
    "qnn": (f"onnxruntime=={ONNXRUNTIME}", "onnxruntime-qnn==2.7.0"),
    "openvino": ("onnxruntime-openvino==1.24.1",),
    "webgpu": (f"onnxruntime=={ONNXRUNTIME}", "onnxruntime-ep-webgpu==0.4.0"),
}
ONNXRUNTIME_WEB = "1.30.0"
QEMU = "qemu-user"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
STEP_S = 400


class Skip(Exception):  # noqa: N818 - a reason, not an error
    """Why something is not installed."""


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a step and give back what it printed."""
    words = [str(word) for word in command]
    # What lies in the user's folder is no module of Python, of venv's or of pip's.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - the commands of this file
            words,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=STEP_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skip(f"{words[0]}: {error}") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise Skip(f"{' '.join(words[:4])} …: exit status {done.returncode}: {lines[-1]}")
    return done.stdout


def _wheels(name: str, folder: Path) -> dict[str, str]:
    """A virtual environment with a provider's wheels."""
    home = folder / name
    if not (home / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", home)
    _run(home / "bin" / "python", "-m", "pip", "install", "-q", "numpy", *WHEELS[name])
    return {name: f'python = "{home / "bin" / "python"}"'}


def _webgpu(folder: Path) -> dict[str, str]:
    """The plug-in, and SwiftShader (a software Vulkan driver) from Debian's browser."""
    if not Path("/usr/lib/chromium/libvk_swiftshader.so").exists():
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Skip("no software adapter: apt-get install chromium-common, as root")
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium")
    return _wheels("webgpu", folder)


def _web(folder: Path) -> dict[str, str]:
    """onnxruntime-web for Node and the browser."""
    if shutil.which("npm") is None:
        raise Skip("there is no npm")
    home = folder / "web"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    command = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    _run(*command, f"onnxruntime-web@{ONNXRUNTIME_WEB}", cwd=home)
    return dict.fromkeys(("web", "web-browser"), f'packages = "{home}"')


def _qemu(folder: Path) -> Path:
    """The folder of qemu's user-mode emulators, statically linked; version 10 where there is one.

    Version 7 reads the host's /proc/cpuinfo, which onnxruntime for ARM64 cannot parse.
    """
    home = folder / "qemu"
    if (home / "qemu-aarch64").exists():
        return home
    if shutil.which("apt-get") is None:
        raise Skip("there is no apt-get; this way to the emulator is Debian's")
    work = folder / "apt-qemu"
    sources = _backports(work) or _system_sources()
    options = _apt(work, sources)
    packages = work / "packages"
    packages.mkdir(exist_ok=True)
    release = ("-t", f"{_codename()}-backports") if sources[0].endswith("qemu.list") else ()
    _run("apt-get", *options, *release, "download", QEMU, cwd=packages)
    _run("dpkg", "-x", next(packages.glob(f"{QEMU}_*.deb")), work / "root")
    home.mkdir(parents=True, exist_ok=True)
    for name in ("qemu-aarch64", "qemu-x86_64"):
        shutil.copy2(work / "root" / "usr" / "bin" / name, home / name)
    shutil.rmtree(work)
    return home


def _codename() -> str:
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    found = [line.partition("=")[2] for line in text.splitlines() if "VERSION_CODENAME" in line]
    return found[0].strip('"') if found else ""


def _system_sources() -> tuple[str, ...]:
    return ("", "")


def _backports(work: Path) -> tuple[str, ...]:
    """A source list of the release's backports on the mirror this system uses; empty: none."""
    sites = _run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"
    )
    code = _codename()
    mirrors = [line.split()[0] for line in sites.splitlines() if line.split()[1:] == [code]]
    if not mirrors:
        return ()
    work.mkdir(parents=True, exist_ok=True)
    path = work / "qemu.list"
    path.write_text(
        f"deb [signed-by={KEYRING}] {mirrors[0]} {code}-backports main\n"
        f"deb [signed-by={KEYRING}] {mirrors[0]} {code} main\n",
        encoding="utf-8",
    )
    return (str(path.resolve()), "/dev/null")


def _apt(work: Path, sources: tuple[str, ...], architecture: str = "amd64") -> list[str]:
    """Options that keep apt's state in a folder of its own, with its lists fetched."""
    home = work.resolve()
    for name in ("lists/partial", "archives/partial"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Dir::State::Lists": str(home / "lists"),
        "Dir::State::status": str(home / "status"),
        "Dir::Cache": str(home),
    }
    if sources[0]:
        settings |= {"Dir::Etc::sourcelist": sources[0], "Dir::Etc::sourceparts": sources[1]}
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    # A source that has nothing for this architecture is no reason to stop.
    with contextlib.suppress(Skip):
        _run("apt-get", *options, "-qq", "update")
    return options


def _arm64(folder: Path) -> dict[str, str]:
    """Debian's ARM64 Python and the ARM64 wheels behind an emulator."""
    emulator = _qemu(folder) / "qemu-aarch64"
    home = folder / "arm64"
    script = home / "python"
    if not script.exists():
        work = folder / "apt-arm64"
        options = _apt(work, _system_sources(), "arm64")
        _run(
            *("apt-get", *options, "install", "-y", "--download-only", "--no-install-recommends"),
            *("python3-minimal", "libpython3-stdlib", "libstdc++6"),
        )
        (home / "root").mkdir(parents=True, exist_ok=True)
        for package in sorted((work / "archives").glob("*.deb")):
            _run("dpkg", "-x", package, home / "root")
        shutil.rmtree(work)
        python = next((home / "root" / "usr" / "bin").glob("python3.[0-9]*"))
        _arm64_wheels(home, python.name.removeprefix("python"))
        script.write_text(
            '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nroot="$here/root"\n'
            'export PYTHONPATH="$here/site" PYTHONDONTWRITEBYTECODE=1\n'
            f'exec "{emulator.resolve()}" -L "$root" "$root/usr/bin/{python.name}" "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
    _run(script, "-c", "import onnxruntime")
    version = _run(emulator, "--version").split()[2]
    entry = f'python = "{script}"\nemulator = "qemu-user {version}"'
    return dict.fromkeys(("cpu-arm64", "ort-arm64"), entry)


def _arm64_wheels(home: Path, python: str) -> None:
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
    platforms.append("manylinux2014_aarch64")
    target = home / "wheels"
    _run(
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", python, "-d", target),
        *(word for platform in platforms for word in ("--platform", platform)),
        *(f"onnxruntime=={ONNXRUNTIME}", "numpy"),
    )
    for wheel in sorted(target.glob("*.whl")):
        shutil.unpack_archive(wheel, home / "site", "zip")
    shutil.rmtree(target)


def _avx2(folder: Path) -> dict[str, str]:
    """This interpreter on a Haswell: AVX2 without fused 8-bit dot products."""
    emulator = _qemu(folder) / "qemu-x86_64"
    home = folder / "avx2"
    if not (home / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", home)
    python = home / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "numpy", f"onnxruntime=={ONNXRUNTIME}")
    _run(emulator, "-cpu", "Haswell", python, "-c", "import onnxruntime")
    version = _run(emulator, "--version").split()[2]
    return {
        "cpu-avx2": f'python = ["{emulator}", "-cpu", "Haswell", "{python}"]\n'
        f'emulator = "qemu-user {version}, Haswell"'
    }


STEPS: dict[str, Callable[[Path], dict[str, str]]] = {
    "openvino": lambda folder: _wheels("openvino", folder),
    "web": _web,
    "qnn": lambda folder: _wheels("qnn", folder),
    "webgpu": _webgpu,
    "cpu-arm64": _arm64,
    "cpu-avx2": _avx2,
}


def install(
    names: Sequence[str], folder: Path = FOLDER, config: Path = CONFIG
) -> Iterator[tuple[str, str]]:
    """Install one after the other; after each its name and what came of it, in words.

    Args:
        names: of providers that can be installed, or `all`.
        folder: where the environments go.
        config: the configuration file; tables of other providers in it stay.

    Raises:
        UsageError: a name is none of them.
    """
    wanted = list(dict.fromkeys(STEPS if "all" in names else names))
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        raise UsageError(
            f"cannot install {', '.join(unknown)}{nearest(unknown[0], list(STEPS))} (there are: "
            f"all, {', '.join(STEPS)}) [U006]"
        )
    for name in wanted:
        started = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tables = {**_tables(config), **STEPS[name](folder)}
            text = "".join(f"[ep.{key}]\n{entry}\n\n" for key, entry in tables.items())
            config.write_text(text, encoding="utf-8")
            outcome = "installed"
        except (Skip, OSError) as reason:
            outcome = f"skipped: {reason}"
        yield name, f"{outcome} ({time.monotonic() - started:.0f} s)"


def _tables(config: Path) -> dict[str, str]:
    """What stands in the configuration, by provider, as text."""
    if not config.exists():
        return {}
    blocks = config.read_text(encoding="utf-8").split("[ep.")[1:]
    return {name: entry.strip() for name, _, entry in (block.partition("]") for block in blocks)}
