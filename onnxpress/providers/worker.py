"""Run one model on one execution provider, in a process and an interpreter of its own.

Started as a script, `python worker.py JOB.json`, by `launch`. It imports nothing but the standard
library, NumPy and onnxruntime, because the interpreter may be any. The report is rewritten at
every stage, so that the one who started it knows where a crash or a hang happened.
"""

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SPIN = "session.intra_op.allow_spinning"
_RECORD = "session.record_ep_graph_assignment_info"


class Absent(Exception):  # noqa: N818 - a finding, not an error
    """The provider is not in this interpreter."""


class Report:
    """What was found so far, kept in a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"stage": "starting", "machine": platform.machine()}
        self.content["python"] = platform.python_version()

    def write(self, **found: Any) -> None:  # noqa: ANN401 - JSON
        """Add findings."""
        self.content.update(found)
        self.path.write_text(json.dumps(self.content), encoding="utf-8")


def main(job_path: str) -> None:
    """Do a job and write its report."""
    folder = pathlib.Path(job_path).parent
    job = json.loads(pathlib.Path(job_path).read_text(encoding="utf-8"))
    report = Report(folder / "report.json")
    try:
        work(job, folder, report)
    except Absent as reason:
        report.write(status="absent", reason=str(reason))
    except Exception as error:  # noqa: BLE001 - whatever the provider throws is its verdict
        text = " ".join(str(error).split()) or type(error).__name__
        report.write(status="failed", reason=f"{report.content['stage']}: {text}")


def work(job: Mapping[str, Any], folder: pathlib.Path, report: Report) -> None:
    """Load, run, time and profile."""
    report.write(stage="importing onnxruntime")
    try:
        import numpy as np  # noqa: PLC0415 - its absence is a finding

        # An interpreter in a container does not inherit our environment.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime as ort  # noqa: PLC0415
    except ImportError as error:
        raise Absent(f"{sys.executable} cannot import onnxruntime: {error}") from error
    report.write(onnxruntime=ort.__version__, stage="finding the provider")
    if job["machine"] and job["machine"] != platform.machine():
        found = platform.machine()
        raise Absent(f"{sys.executable} runs on {found}; expected {job['machine']}")
    open_session = _provider(ort, job, report)
    if job["probe"]:
        session = ort.InferenceSession(str(folder / job["probe"]))
        a = np.full((1, 4), 255, np.uint8)
        report.write(saturates=int(session.run(None, {"a": a})[0].min()) != 255 * 127 * 4)
    report.write(stage="loading the model")
    # Where latency says nothing, one session does everything: loading may take minutes there.
    own = {key: value.replace("{folder}", str(folder)) for key, value in job["dump"].items()}
    profile = None if job["timed"] else folder / "profile"
    session = open_session(folder / job["model"], profile, own)
    report.write(providers=session.get_providers(), placement=_placement(session))
    feeds = _read(folder, job["feeds"])
    report.write(stage="running the model")
    outputs, started = [], time.perf_counter()
    for feed in feeds:
        outputs.append(session.run(None, feed))
        if time.perf_counter() - started > job["seconds"]:
            break
    report.write(outputs=_write(folder / "outputs.bin", outputs))
    if profile is not None:
        report.write(kernels=_kernels(job, session, len(outputs)))
    report.write(stage="running the original")
    _time(job, folder, report, open_session, session, feeds[0])
    if profile is None:
        report.write(stage="profiling")
        session = open_session(folder / job["model"], folder / "profile", own)
        session.run(None, feeds[0])
        report.write(kernels=_kernels(job, session, 1))
    report.write(stage="done", status="ran")


def _provider(
    ort: Any,  # noqa: ANN401
    job: Mapping[str, Any],
    report: Report,
) -> Callable[..., Any]:
    """How to open a session on the provider alone."""
    name, options = job["execution_provider"], dict(job["options"])
    devices = None
    if job["plugin"]:
        home, devices = _plugin(ort, job, report)
        options = {key: value.replace("{plugin}", str(home)) for key, value in options.items()}
    else:
        if job["preload"] and hasattr(ort, "preload_dlls"):
            with contextlib.suppress(ImportError):
                importlib.import_module("torch")
            ort.preload_dlls()
        if name not in ort.get_available_providers():
            listed = ", ".join(ort.get_available_providers())
            raise Absent(f"onnxruntime {ort.__version__} of {sys.executable} has only {listed}")

    def open_session(
        path: pathlib.Path,
        profile: pathlib.Path | None = None,
        own: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401
        settings = _settings(ort, job, profile)
        mine = {**options, **(own or {})}
        if devices is not None:
            settings.add_provider_for_devices(devices[:1], mine)
            session = ort.InferenceSession(str(path), settings)
        else:
            session = ort.InferenceSession(str(path), settings, providers=[(name, mine)])
        session.disable_fallback()
        if name not in session.get_providers():
            missing = _missing_library(pathlib.Path(ort.__file__).parent / "capi", name)
            if missing:
                raise Absent(missing)
            raise RuntimeError(f"onnxruntime fell back to {', '.join(session.get_providers())}")
        return session

    return open_session


def _missing_library(folder: pathlib.Path, name: str) -> str:
    """What the system says when it cannot load a provider's own library; else nothing.

    onnxruntime lists every provider that it was built with, and tells its log alone that, say,
    TensorRT itself is not installed.
    """
    short = name.removesuffix("ExecutionProvider").lower()
    # It resolves what each provider's library takes from onnxruntime.
    for shared in folder.glob("*onnxruntime_providers_shared.*"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
    for library in folder.glob(f"*onnxruntime_providers_{short}.*"):
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return f"its library cannot be loaded: {error}"
    return ""


def _plugin(
    ort: Any,  # noqa: ANN401
    job: Mapping[str, Any],
    report: Report,
) -> tuple[pathlib.Path, list[Any]]:
    """(folder of a plug-in provider, devices that it finds), once it is registered."""
    name = job["execution_provider"]
    try:
        plugin = importlib.import_module(job["plugin"])
    except ImportError as error:
        raise Absent(f"{sys.executable} has no {job['plugin']}: {error}") from error
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = job["plugin"].replace("_", "-")
        report.write(plugin_version=importlib.metadata.version(distribution))
    if not hasattr(ort, "register_execution_provider_library"):
        raise Absent(f"onnxruntime {ort.__version__} takes no plug-in providers; use 1.23 up")
    ort.register_execution_provider_library(name, plugin.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise Absent(f"{job['plugin']} finds no device that it could run on")
    device = devices[0].device
    report.write(device=f"{device.vendor} {str(device.type).rsplit('.', 1)[-1]}")
    return pathlib.Path(str(plugin.__file__)).parent, devices


def _settings(
    ort: Any,  # noqa: ANN401
    job: Mapping[str, Any],
    profile: pathlib.Path | None,
) -> Any:  # noqa: ANN401
    """Options of a session; with `profile` it writes one under that prefix."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = job["threads"]
    settings.add_session_config_entry(_SPIN, "0")
    settings.add_session_config_entry(_RECORD, "1")
    for key, value in job["config"].items():
        settings.add_session_config_entry(key, value)
    if profile:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    return settings


def _placement(session: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """For each provider the nodes it was given, as [name, operator]; None where unknown."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    found: dict[str, Any] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes = [[node.name, node.op_type] for node in part.get_nodes()]
        found.setdefault(part.ep_name, []).append(nodes)
    return found


def _time(
    job: Mapping[str, Any],
    folder: pathlib.Path,
    report: Report,
    open_session: Callable[..., Any],
    session: Any,  # noqa: ANN401
    feed: Mapping[str, Any],
) -> None:
    """Rounds of both models in turn, swapped from round to round."""
    try:
        original = open_session(folder / job["original"])
        report.write(original_outputs=_write(folder / "floor.bin", [original.run(None, feed)]))
    except Exception as error:  # noqa: BLE001 - the model itself did run
        report.write(original_error=" ".join(str(error).split()))
        return
    if not job["timed"]:
        return
    session.run(None, feed)
    started = time.perf_counter()
    session.run(None, feed)
    repeats = max(1, min(400, int(0.02 / max(time.perf_counter() - started, 1e-6))))

    def timed(one: Any) -> float:  # noqa: ANN401
        begun = time.perf_counter()
        for _ in range(repeats):
            one.run(None, feed)
        return (time.perf_counter() - begun) / repeats * 1e3

    times, begun = [], time.perf_counter()
    for index in range(15):
        if index % 2:
            after, before = timed(session), timed(original)
        else:
            before, after = timed(original), timed(session)
        times.append([before, after])
        if time.perf_counter() - begun > job["seconds"]:
            break
    report.write(times=times)


def _kernels(job: Mapping[str, Any], session: Any, runs: int) -> dict[str, int]:  # noqa: ANN401
    """How many kernels of each operator the provider ran in one run, by the profile."""
    events = json.loads(pathlib.Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for event in events:
        args = event.get("args", {})
        if event.get("cat") == "Node" and args.get("provider") == job["execution_provider"]:
            counts[args["op_name"]] = counts.get(args["op_name"], 0) + 1
    return {name: -(-count // runs) for name, count in counts.items()}


def _read(folder: pathlib.Path, index: Sequence[Any]) -> list[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    content = (folder / "feeds.bin").read_bytes()
    return [
        {
            entry["name"]: np.frombuffer(
                content, entry["dtype"], entry["count"], entry["offset"]
            ).reshape(entry["shape"])
            for entry in feed
        }
        for feed in index
    ]


def _write(path: pathlib.Path, outputs: Sequence[Any]) -> list[Any]:
    import numpy as np  # noqa: PLC0415

    index, offset = [], 0
    with path.open("wb") as stream:
        for output in outputs:
            entries = []
            for array in output:
                plain = np.ascontiguousarray(array)
                if plain.dtype.kind not in "fiub":
                    raise TypeError(f"outputs of type {plain.dtype} cannot be compared")
                stream.write(plain.tobytes())
                entries.append(
                    {
                        "dtype": plain.dtype.name,
                        "shape": list(np.shape(array)),
                        "count": plain.size,
                        "offset": offset,
                    }
                )
                offset += plain.nbytes
            index.append(entries)
    return index


if __name__ == "__main__":
    main(sys.argv[1])
