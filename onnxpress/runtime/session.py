"""Sessions of onnxruntime's CPU provider.

The options that change what a quantized file computes on x86-64 are named here once
(`DEFAULT`, `EXACT`, `X64_PRECISE`); see the onnxruntime session option keys of the same names.
"""

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxpress import model_file
from onnxpress.errors import ModelError, brief

__all__ = [
    "DEFAULT",
    "EXACT",
    "X64_PRECISE",
    "Array",
    "Feed",
    "InputSpec",
    "Session",
    "structural_refusal",
]

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Feed = Mapping[str, Array]

DEFAULT: Mapping[str, str] = {}
EXACT: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
X64_PRECISE: Mapping[str, str] = {"session.x64quantprecision": "1"}

_LARGE_BYTES = 65_536
"""Of a weight that is left out where only the structure is checked."""
_MAPS = ("seq(map(", "map(")
_NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input or output: its name, NumPy type name and shape (`None` or a name: dynamic).

    Attributes:
        metadata: what the model's file says of itself, for who prepares samples for it.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


class Session:
    """An onnxruntime CPU session of a model.

    Attributes:
        model: what it was opened from.
        inputs: what it takes.
        outputs: what it gives.
        output_names: of these, in order; likewise their ranks and types.
    """

    def __init__(
        self,
        model: ir.Model | Path,
        *,
        threads: int = 0,
        config: Mapping[str, str] = DEFAULT,
        optimize: bool | Literal["basic"] = True,
        arena: bool = True,
        name: str = "the model",
        optimized_path: Path | None = None,
        profile: Path | None = None,
    ) -> None:
        """Open a session.

        Args:
            model: a model or a file.
            threads: intra-op threads; 0 lets onnxruntime take all cores.
            config: session configuration entries.
            optimize: graph optimizations at their default, or none, or only the basic ones,
                which are what an execution provider is shown.
            arena: keep freed memory for the next run. With many outputs it grows to twice what a
                run needs.
            name: what messages call the model.
            optimized_path: where onnxruntime writes the graph it really runs.
            profile: how the name of a file begins into which runs are profiled (`end_profile`).

        Raises:
            ModelError: onnxruntime cannot load it; the message is onnxruntime's own.
        """
        self._name = name
        self.model = model
        options = _options(threads, config, optimize, optimized_path, arena=arena)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        source: str | bytes
        if isinstance(model, Path):
            source = str(model)
        else:
            referring = model_file.referring(model)
            # onnxruntime maps the files as long as the session lives.
            weakref.finalize(self, referring.temporary.close)
            self._shared = referring.shared
            source = referring.content
            if referring.folder is not None:
                key = "session.model_external_initializers_file_folder_path"
                options.add_session_config_entry(key, str(referring.folder))
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises bare C++ exceptions of many types for a bad model.
            raise ModelError(
                f"{name}: onnxruntime {ort.__version__} cannot load it: {brief(error)} [M006]"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.inputs, self.outputs = (
            tuple(
                InputSpec(
                    value.name,
                    _numpy_type(value.type),
                    tuple(value.shape),
                    metadata,
                )
                for value in values
            )
            for values in (inputs, outputs)
        )
        self.output_names = tuple(value.name for value in outputs)
        maps = [value.type.startswith(_MAPS) for value in outputs]
        self.output_ranks = tuple(
            2 if of_maps else len(value.shape) for of_maps, value in zip(maps, outputs, strict=True)
        )
        self.output_types = tuple(
            "tensor(float)" if of_maps else value.type
            for of_maps, value in zip(maps, outputs, strict=True)
        )

    def end_profile(self) -> Path:
        """The file of the profile, with all runs so far; later runs are not in it."""
        return Path(self._session.end_profiling())

    def run(
        self, feed: Feed, outputs: Sequence[str] | None = None, *, most_s: float | None = None
    ) -> dict[str, Array]:
        """Run once; `feed` maps every input name to an array; `outputs` defaults to all.

        A sequence of maps (ZipMap) is an array of its values: a row a map, a column a key.

        Args:
            feed: the inputs.
            outputs: names.
            most_s: seconds after which the run is given up; onnxruntime looks between two nodes.

        Raises:
            ModelError: onnxruntime fails on these inputs, or takes longer.
        """
        names = self.output_names if outputs is None else outputs
        results = dict(zip(names, self._results(feed, names, most_s), strict=True))
        for name, result in results.items():
            rows = _rows(result)
            if rows is not None:
                results[name] = rows
            elif isinstance(result, list | dict):
                raise ModelError(
                    f"{self._name}: the output {name!r} is a {type(result).__name__} of values; "
                    "expected a tensor; export the part of tensors alone [M005]"
                )
        return {name: np.asarray(result) for name, result in results.items()}

    def run_sequences(self, feed: Feed, outputs: Sequence[str]) -> dict[str, list[Array]]:
        """As `run`, for outputs that may be sequences; a tensor is a sequence of one.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        results = self._results(feed, outputs)
        return {
            name: [np.asarray(part) for part in (found if isinstance(found, list) else [found])]
            for name, found in zip(outputs, results, strict=True)
        }

    def _results(
        self, feed: Feed, outputs: Sequence[str], most_s: float | None = None
    ) -> list[object]:
        options = ort.RunOptions()
        watch = None if most_s is None else threading.Timer(most_s, _end, (options,))
        if watch is not None:
            watch.start()
        try:
            return list(self._session.run(list(outputs), dict(feed), options))
        except Exception as error:
            if options.terminate:
                raise ModelError(f"{self._name}: a run takes over {most_s:g} s [M007]") from error
            # onnxruntime raises bare C++ exceptions of many types for inputs it cannot take.
            raise ModelError(
                f"{self._name}: onnxruntime fails to run it: {brief(error)} [M007]"
            ) from error
        finally:
            if watch is not None:
                watch.cancel()


def structural_refusal(model: ir.Model, *, name: str = "the model") -> str | None:
    """Why onnxruntime does not load a graph without its large weights; `None` where it does.

    They stand as inputs of their types and shapes: what is checked are those, and that there is a
    kernel for every node. It takes neither the memory nor the time of a session of the whole.

    Args:
        model: not changed.
        name: what messages call it.
    """
    light = model.clone()
    for value in list(light.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LARGE_BYTES or value.is_graph_input():
            continue
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        del light.graph.initializers[value.name or ""]
        value.const_value = None
        if value.is_graph_output():
            light.graph.outputs[:] = [other for other in light.graph.outputs if other is not value]
        light.graph.inputs.append(value)
    try:
        Session(light, threads=1, optimize=False, name=name)
    except ModelError as error:
        return str(error)
    return None


def _end(options: ort.RunOptions) -> None:
    options.terminate = True


def _rows(result: object) -> Array | None:
    """Maps of the same keys as an array, the keys in order; `None` of anything else."""
    found = result if isinstance(result, list) else [result]
    maps = [one for one in found if isinstance(one, dict)]
    if not maps or len(maps) < len(found) or any(one.keys() != maps[0].keys() for one in maps):
        return None
    keys = sorted(maps[0])
    return np.asarray([[one[key] for key in keys] for one in maps], np.float32)


def _options(
    threads: int,
    config: Mapping[str, str],
    optimize: bool | Literal["basic"],  # noqa: FBT001 - as `Session` takes it
    optimized_path: Path | None,
    *,
    arena: bool,
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = arena
    # A session that spins steals the cores of the one it is compared with.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    if optimize is not True:
        levels = ort.GraphOptimizationLevel
        basic = optimize == "basic"
        options.graph_optimization_level = (
            levels.ORT_ENABLE_BASIC if basic else levels.ORT_DISABLE_ALL
        )
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
        # Weights beside it: onnxruntime cannot write more than 2 GB into one file.
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, f"{optimized_path.name}.data")
    return options


def _numpy_type(kind: str) -> str:
    """NumPy's name of a type; of an optional tensor that of the tensor, which it is fed as."""
    inner = kind[len("optional(") : -1] if kind.startswith("optional(") else kind
    return _NUMPY_TYPES.get(inner, kind)
