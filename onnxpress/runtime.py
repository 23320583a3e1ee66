"""Run models with onnxruntime: one way to open, to run and to time.

The options that change what a quantized file computes on x86-64 are named here once
(`DEFAULT`, `EXACT`, `X64_PRECISE`); see the onnxruntime session option keys of the same names.
"""

import collections
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxpress import model_file
from onnxpress.errors import ModelError

__all__ = [
    "DEFAULT",
    "EXACT",
    "X64_PRECISE",
    "Array",
    "Feed",
    "InputSpec",
    "Latency",
    "Session",
    "compare_latency",
    "executed_operators",
    "is_integer_operator",
    "seen_by_providers",
]

logger = logging.getLogger(__name__)

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Feed = Mapping[str, Array]

DEFAULT: Mapping[str, str] = {}
EXACT: Mapping[str, str] = {"session.disable_quant_qdq": "1"}
X64_PRECISE: Mapping[str, str] = {"session.x64quantprecision": "1"}

_IN_MEMORY_BYTES = 32_000_000
"""Weights of larger models are given as a file, which onnxruntime maps instead of copying."""
_INTEGER_PREFIXES = (
    "QLinear",
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantizeMatMul",
)
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
    """A model input: its name, NumPy type name and shape (`None` or a name: dynamic)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


class Session:
    """An onnxruntime CPU session of a model."""

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

        Raises:
            ModelError: onnxruntime cannot load it; the message is onnxruntime's own.
        """
        self._name = name
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
            level = levels.ORT_ENABLE_BASIC if basic else levels.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
            # Weights beside it: onnxruntime cannot write more than 2 GB into one file.
            key = "session.optimized_model_external_initializers_file_name"
            options.add_session_config_entry(key, f"{optimized_path.name}.data")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        source: str | bytes
        if isinstance(model, Path):
            source = str(model)
        elif model_file.weight_bytes(model) >= _IN_MEMORY_BYTES:
            self._folder = tempfile.TemporaryDirectory(prefix="onnxpress-")
            source = str(Path(self._folder.name, "model.onnx"))
            model_file.save(model, source, external_data=True)
        else:
            source = model_file.to_bytes(model)
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises bare C++ exceptions of many types for a bad model.
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{name}: onnxruntime {ort.__version__} cannot load it: {reason}"
            ) from (error)
        self.inputs = tuple(
            InputSpec(
                value.name,
                _NUMPY_TYPES.get(value.type, value.type),
                tuple(value.shape),
            )
            for value in self._session.get_inputs()
        )
        self.output_names = tuple(value.name for value in self._session.get_outputs())
        self.output_ranks = tuple(len(value.shape) for value in self._session.get_outputs())
        self.output_types = tuple(value.type for value in self._session.get_outputs())

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; `feed` maps every input name to an array; `outputs` defaults to all.

        Raises:
            ModelError: onnxruntime fails on these inputs.
        """
        names = self.output_names if outputs is None else outputs
        results = self._results(feed, names)
        return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}

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

    def _results(self, feed: Feed, outputs: Sequence[str]) -> list[object]:
        try:
            return list(self._session.run(list(outputs), dict(feed)))
        except Exception as error:
            # onnxruntime raises bare C++ exceptions of many types for inputs it cannot take.
            reason = " ".join(str(error).split())
            raise ModelError(f"{self._name}: onnxruntime fails to run it: {reason}") from error


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency against a reference from interleaved rounds.

    Attributes:
        median_ms: median of one run of this model.
        reference_ms: median of one run of the reference in the same rounds.
        speedup: median over the rounds of reference time / own time; above 1 is faster.
        low: first quartile of that ratio.
        high: third quartile.
    """

    median_ms: float
    reference_ms: float
    speedup: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Sequence[tuple[float, float]]) -> "Latency":
        """From (reference, own) milliseconds of each round."""
        low, middle, high = _quartiles(sorted(before / after for before, after in times))
        return cls(
            median_ms=statistics.median(after for _, after in times),
            reference_ms=statistics.median(before for before, _ in times),
            speedup=middle,
            low=low,
            high=high,
        )


def is_integer_operator(name: str) -> bool:
    """Whether an operator of onnxruntime's computes in 8-bit integers."""
    return name.startswith(_INTEGER_PREFIXES)


def seen_by_providers(model: ir.Model) -> ir.Model:
    """The graph as an execution provider is asked about it: after the basic optimizations.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        path = Path(folder, "basic.onnx")
        Session(model, threads=1, optimize="basic", optimized_path=path)
        proto = onnx.load(path, load_external_data=False)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def executed_operators(model: ir.Model | Path, *, integer_only: bool = False) -> dict[str, int]:
    """How many nodes of each operator onnxruntime runs, in subgraphs too, as it optimizes them.

    With `integer_only`, those that compute in 8-bit integers.
    """
    with tempfile.TemporaryDirectory(prefix="onnxpress-") as folder:
        optimized = Path(folder, "optimized.onnx")
        Session(model, threads=1, optimized_path=optimized)
        proto = onnx.load(optimized, load_external_data=False)
    counts = collections.Counter(node.op_type for node in _nodes(proto.graph))
    return {
        name: count
        for name, count in sorted(counts.items())
        if not integer_only or is_integer_operator(name)
    }


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def compare_latency(
    reference: Session,
    model: Session,
    feed: Feed,
    model_feed: Feed | None = None,
    *,
    rounds: int = 15,
    budget_s: float = 6.0,
    round_s: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time two sessions in turn, so that a drifting machine slows both alike.

    Each round repeats a run until it lasts about `round_s`; the order is swapped from round to
    round. Five rounds at least are done whatever `budget_s` says. The model may take another
    feed than the reference.
    """
    feeds = {reference: feed, model: feed if model_feed is None else model_feed}
    for session in (reference, model):
        session.run(feeds[session])
    start = clock()
    reference.run(feed)
    single = max(clock() - start, 1e-6)
    repeats = max(1, min(400, int(round_s / single)))

    def timed(session: Session) -> float:
        start = clock()
        for _ in range(repeats):
            session.run(feeds[session])
        return (clock() - start) / repeats * 1e3

    begun = clock()
    times: list[tuple[float, float]] = []
    for index in range(rounds):
        if index % 2 == 0:
            before = timed(reference)
            after = timed(model)
        else:
            after = timed(model)
            before = timed(reference)
        times.append((before, after))
        if index >= 4 and clock() - begun > budget_s:
            break
    return Latency.of(times)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.asarray(values), [25, 50, 75])
    return float(low), float(middle), float(high)
