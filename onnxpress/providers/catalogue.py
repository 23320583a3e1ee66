"""The providers a model can be checked on, as data: how each is opened and how to get it."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxpress.errors import UsageError, nearest

__all__ = ["PROVIDERS", "Provider", "has_nvidia_gpu", "provider", "provider_names"]

_INSTALL = "onnxpress doctor --install"
_SWIFTSHADER = "/usr/lib/chromium"


@dataclass(frozen=True, slots=True)
class Provider:
    """One way to run a model.

    Attributes:
        name: what `--ep` takes.
        description: one line.
        execution_provider: onnxruntime's name; empty: nothing on Linux can run it.
        runner: `python`, `node` or `browser`.
        target: whose table holds its rules; empty: none.
        machine: what `platform.machine()` must say in the interpreter; empty: anything.
        plugin: module of a plug-in provider's wheel; empty: built into onnxruntime.
        packages: distributions whose versions `doctor` shows.
        options: provider options; `{plugin}` stands for the plug-in's folder.
        config: session configuration entries.
        dump: options of the profiled session that write the provider's own graph to `{folder}`.
        environment: variables of its process.
        emulator: what stands in for the device on an x86-64 machine; empty: nothing does.
        note: what a person must know of a run, such as a software adapter.
        static_shapes: inputs are fixed to the first sample's shape before it runs.
        ort_format: the model is converted to `.ort` before it runs.
        needs_gpu: only a machine with an NVIDIA GPU can run it.
        needs_interpreter: this interpreter can never be the one.
        saturates: it is checked that 16-bit sums saturate there, as they do without VNNI.
        timed: whether its latency says anything; an emulator's does not.
        samples: how many are run at most; emulated providers take less.
        install: the one command that brings it.
    """

    name: str
    description: str
    execution_provider: str = "CPUExecutionProvider"
    runner: str = "python"
    target: str = ""
    machine: str = ""
    plugin: str = ""
    packages: tuple[str, ...] = ("onnxruntime",)
    options: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    dump: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    emulator: str = ""
    note: str = ""
    static_shapes: bool = False
    ort_format: bool = False
    needs_gpu: bool = False
    needs_interpreter: bool = False
    saturates: bool = False
    timed: bool = True
    samples: int = 64
    install: str = ""

    @property
    def is_native(self) -> bool:
        """Whether this machine is such a device itself; phones' are ARM64."""
        return not self.saturates and platform.machine() == (self.machine or "aarch64")


_ALL = (
    Provider("cpu", "onnxruntime's CPU provider with its default options", target="cpu"),
    Provider(
        "cpu-exact",
        "CPU, Q and DQ computed in float: the reference of integer kernels",
        target="cpu",
        config={"session.disable_quant_qdq": "1"},
    ),
    Provider(
        "cpu-precise",
        "CPU with session.x64quantprecision",
        target="cpu",
        config={"session.x64quantprecision": "1"},
    ),
    Provider(
        "cpu-avx2",
        "x86-64 with AVX2 and without VNNI, where 16-bit sums saturate",
        target="cpu",
        machine="x86_64",
        emulator="qemu-user, Haswell",
        needs_interpreter=True,
        timed=False,
        saturates=True,
        samples=8,
        install=f"{_INSTALL} cpu-avx2",
    ),
    Provider(
        "cpu-arm64",
        "ARM64 with NEON, dot product and half arithmetic",
        target="cpu-arm64",
        machine="aarch64",
        emulator="qemu-user",
        needs_interpreter=True,
        timed=False,
        samples=8,
        install=f"{_INSTALL} cpu-arm64",
    ),
    Provider("ort", "the .ort file on this machine's CPU", target="cpu", ort_format=True),
    Provider(
        "ort-arm64",
        "the .ort file on ARM64, as phones run it",
        target="cpu-arm64",
        machine="aarch64",
        emulator="qemu-user",
        needs_interpreter=True,
        timed=False,
        ort_format=True,
        samples=8,
        install=f"{_INSTALL} cpu-arm64",
    ),
    Provider(
        "qnn",
        "Qualcomm's Hexagon tensor processor (Snapdragon NPU)",
        "QNNExecutionProvider",
        target="qnn",
        plugin="onnxruntime_qnn",
        packages=("onnxruntime", "onnxruntime-qnn"),
        options={
            "backend_path": "{plugin}/libQnnHtp.so",
            "soc_model": "57",
            "htp_arch": "75",
        },
        dump={"dump_json_qnn_graph": "1", "json_qnn_graph_dir": "{folder}"},
        emulator="HTP simulator",
        static_shapes=True,
        timed=False,
        samples=32,
        install=f"{_INSTALL} qnn",
    ),
    Provider(
        "openvino",
        "Intel's OpenVINO on its CPU device",
        "OpenVINOExecutionProvider",
        target="openvino",
        packages=("onnxruntime-openvino",),
        options={"device_type": "CPU"},
        install=f"{_INSTALL} openvino",
    ),
    Provider(
        "webgpu",
        "WebGPU, the plug-in provider",
        "WebGpuExecutionProvider",
        target="webgpu",
        plugin="onnxruntime_ep_webgpu",
        packages=("onnxruntime", "onnxruntime-ep-webgpu"),
        environment={
            "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
            "LD_LIBRARY_PATH": _SWIFTSHADER,
            "VK_ICD_FILENAMES": f"{_SWIFTSHADER}/vk_swiftshader_icd.json",
        },
        note="software adapter",
        samples=8,
        install=f"{_INSTALL} webgpu",
    ),
    Provider(
        "web",
        "onnxruntime-web (wasm) in Node",
        "wasm",
        runner="node",
        target="web",
        samples=32,
        install=f"{_INSTALL} web",
    ),
    Provider(
        "web-browser",
        "onnxruntime-web (wasm) in headless Chromium",
        "wasm",
        runner="browser",
        target="web",
        samples=32,
        install=f"{_INSTALL} web",
    ),
    Provider(
        "cuda",
        "CUDA on an NVIDIA GPU",
        "CUDAExecutionProvider",
        target="cuda",
        packages=("onnxruntime-gpu",),
        needs_gpu=True,
        install="pip uninstall onnxruntime && pip install onnxruntime-gpu",
    ),
    Provider(
        "tensorrt",
        "TensorRT on an NVIDIA GPU",
        "TensorrtExecutionProvider",
        target="tensorrt",
        packages=("onnxruntime-gpu", "tensorrt"),
        needs_gpu=True,
        install="pip uninstall onnxruntime && pip install onnxruntime-gpu 'tensorrt<11'",
    ),
    Provider("xnnpack", "XNNPACK on phones", "", target="xnnpack"),
    Provider("nnapi", "Android's NNAPI", "", target="nnapi", static_shapes=True),
    Provider("coreml", "Apple's Core ML", "", target="coreml", static_shapes=True),
)

PROVIDERS: Mapping[str, Provider] = {entry.name: entry for entry in _ALL}


def provider_names() -> list[str]:
    """All names in the order they are shown."""
    return list(PROVIDERS)


def provider(name: str) -> Provider:
    """A provider by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PROVIDERS:
        raise UsageError(
            f"there is no execution provider {name!r}{nearest(name, list(PROVIDERS))} "
            f"(there are: {', '.join(PROVIDERS)}) [U006]"
        )
    return PROVIDERS[name]


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver shows a device."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
