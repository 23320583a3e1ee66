"""ONNX's own backend tests through the optimizer: same, refused, invalid, different, traceback.

    python benchmarks/onnx_backend_tests.py [--how HOW] [--data] [--every N] [--only WORD]
        [--list]

Each test is a model with inputs (`onnx.backend.test.loader`; kinds node, simple and PyTorch). Those
that onnxruntime runs are rewritten in this process, checked with `onnx.checker` and run again on
the test's own inputs. `pass` calls the pass `simplify` alone; `simplify` is what the command of
that name does; `optimize` is the whole of it. Both are without data, or with `--data` with the
test's own inputs as samples. `onnxsim`, `onnxslim`, `onnxoptimizer` and `onnxscript` run in an
environment and a process of their own, so that one that ends is counted and started again.

- same: valid, the same inputs and outputs, and the same answers (1e-3 of each, as ONNX's tests);
- refused: an `OnnxpressError`, that is one sentence and exit 2;
- invalid: what was written is refused by the checker or by onnxruntime;
- near: of `optimize`, which is lossy, where the worst output keeps 20 dB, its default budget;
- different: it answers otherwise;
- traceback: anything else; of a peer any exception, a process that ended, more than a minute.
"""

import argparse
import collections
import logging
import math
import select
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from peer_environments import interpreter

import onnxpress
from onnxpress import model_file
from onnxpress.errors import OnnxpressError
from onnxpress.passes.simplify import simplify

Samples = dict[str, np.ndarray] | None
MOST_SECONDS = 60
LOSSY_DB = 20
_WORKER = Path(__file__).parent / "peers/simplify_worker.py"
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform", "Dropout")


def cases() -> Iterator[tuple[str, onnx.ModelProto, list[Any]]]:
    """Name, model and inputs of every test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415

        tests = [test for kind in KINDS for test in load_model_tests(kind=kind)]
    for test in tests:
        if test.model is not None:
            yield test.name, test.model, list(test.data_sets[0][0])
            continue
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        yield test.name, model, _inputs(folder / "test_data_set_0", model)


def _inputs(folder: Path, model: onnx.ModelProto) -> list[Any]:
    found: list[Any] = []
    for number, value in enumerate(model.graph.input):
        path = folder / f"input_{number}.pb"
        if not path.exists():
            break
        content = path.read_bytes()
        if value.type.HasField("tensor_type"):
            found.append(numpy_helper.to_array(onnx.TensorProto.FromString(content)))
        elif value.type.HasField("sequence_type"):
            found.append(numpy_helper.to_list(onnx.SequenceProto.FromString(content)))
        else:
            found.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(content)))
    return found


def answers(content: bytes, inputs: list[Any]) -> list[Any]:
    """What onnxruntime makes of the inputs.

    Raises:
        Exception: of any kind, where it cannot.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=False))))


def equal(first: Any, second: Any) -> bool:  # noqa: ANN401
    """Whether two answers are the same, sequences and absent ones included."""
    if isinstance(first, list | tuple):
        same_length = isinstance(second, list | tuple) and len(first) == len(second)
        return same_length and all(map(equal, first, second))
    if first is None or second is None:
        return first is second
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind in "fc" or one.dtype.name in ("bfloat16", "float16"):
        a, b = one.astype(np.float64), other.astype(np.float64)
        return bool(np.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True))
    return bool(np.array_equal(one, other))


def sqnr_db(wanted: list[Any], found: list[Any]) -> float:
    """Signal to noise of the worst output; minus infinity where its form is another."""
    worst = math.inf
    for first, second in zip(wanted, found, strict=True):
        if equal(first, second):
            continue
        one, other = np.asarray(first), np.asarray(second)
        if one.shape != other.shape or one.dtype != other.dtype or one.dtype.kind != "f":
            return -math.inf
        noise = float(np.square(one.astype(np.float64) - other).sum())
        signal = float(np.square(one.astype(np.float64) - one.mean()).sum())
        worst = min(worst, 10 * math.log10(signal / noise) if signal > 0 else -math.inf)
    return worst


def by_pass(path: Path, samples: Samples) -> bytes:
    """The pass alone."""
    model = model_file.load(path)
    simplify(model)
    return model_file.to_bytes(model)


def by_simplify(path: Path, samples: Samples) -> bytes:
    """As the command `simplify`."""
    result = onnxpress.optimize(path, evaluation=samples, passes=["simplify"], threads=1)
    return model_file.to_bytes(result.model)


def by_optimize(path: Path, samples: Samples) -> bytes:
    """As the command `optimize`."""
    result = onnxpress.optimize(path, evaluation=samples, threads=1, time_limit=20)
    return model_file.to_bytes(result.model)


class Peer:
    """A tool that is served by `peers/simplify_worker.py`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path, samples: Samples) -> bytes:
        """What the tool makes of a model; `RuntimeError` where it makes nothing."""
        if self._process is None:
            self._process = self._started()
        made = path.with_name("made.onnx")
        made.unlink(missing_ok=True)
        answer = self._asked(f"{path} {made}\n")
        if answer.startswith("failed"):
            raise RuntimeError(answer)
        return made.read_bytes()

    def _started(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                interpreter("simplifiers"),
                _WORKER,
                self._name,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def _asked(self, line: str) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], MOST_SECONDS)
        answer = process.stdout.readline().strip() if ready else ""
        if answer:
            return answer
        if not ready:
            process.kill()
        self._process = None
        status = process.wait()
        return f"failed: the process ended with {status}" if ready else "failed: over a minute"


PEERS = ("onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")
HOW: dict[str, Callable[[Path, Samples], bytes]] = {
    "pass": by_pass,
    "simplify": by_simplify,
    "optimize": by_optimize,
    **{name: Peer(name) for name in PEERS},
}


def samples_of(model: onnx.ModelProto, inputs: list[Any]) -> Samples:
    """A test's own inputs, as one sample; `None` where a model has other inputs than tensors."""
    names = _names(model, "input", model.ir_version)
    if not inputs or not all(isinstance(value, np.ndarray) for value in inputs):
        return None
    feed = dict(zip(names, inputs, strict=False))
    return {name: array[np.newaxis] for name, array in feed.items()}


def judge(
    rewrite: Callable[[Path, Samples], bytes],
    model: onnx.ModelProto,
    inputs: list[Any],
    path: Path,
    *,
    data: bool,
) -> tuple[str, str, float]:
    """One of the words above, more about it, and the seconds that the rewrite took."""
    try:
        wanted = answers(model.SerializeToString(), inputs)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises C++ exceptions of any type
        return "not run by onnxruntime", str(error), 0
    onnx.save(model, path)
    started = time.monotonic()
    try:
        content = rewrite(path, samples_of(model, inputs) if data else None)
    except OnnxpressError as error:
        return "refused", str(error), time.monotonic() - started
    except Exception as error:  # noqa: BLE001 - counted
        return "traceback", f"{type(error).__name__}: {error}", time.monotonic() - started
    seconds = time.monotonic() - started
    try:
        written = onnx.load_from_string(content)
        onnx.checker.check_model(written, full_check=_is_inferable(model))
        for place in ("input", "output"):
            before, after = (_names(m, place, model.ir_version) for m in (model, written))
            if before != after:
                return "invalid", f"{place}s {after}, expected {before}", seconds
        found = answers(content, inputs)
    except Exception as error:  # noqa: BLE001 - counted
        return "invalid", str(error), seconds
    if any(node.op_type.startswith(RANDOM) for node in model.graph.node):
        return "same", "not compared: it draws random numbers", seconds
    if equal(wanted, found):
        return "same", "", seconds
    nearness = sqnr_db(wanted, found)
    near = rewrite is by_optimize and nearness >= LOSSY_DB
    return "near" if near else "different", f"{nearness:.1f} dB", seconds


def _names(model: onnx.ModelProto, place: str, ir_version: int) -> list[str]:
    """Of inputs or outputs; below IR 4 without the weights, which had to be inputs there."""
    weights = {tensor.name for tensor in model.graph.initializer} if ir_version < 4 else set()
    return [value.name for value in getattr(model.graph, place) if value.name not in weights]


def _is_inferable(model: onnx.ModelProto) -> bool:
    """Whether the original itself passes the full check (`test_mvn` does not)."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        return False
    return True


def main() -> None:
    """Print a line for each test that is not the same, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--how", choices=HOW, default="pass")
    parser.add_argument("--data", action="store_true", help="with the test's own inputs")
    parser.add_argument("--every", type=int, default=1, help="one test of so many")
    parser.add_argument("--only", default="", help="tests whose name contains this word")
    parser.add_argument("--list", action="store_true", help="also what is the same")
    options = parser.parse_args()
    logging.disable()
    counts: collections.Counter[str] = collections.Counter()
    spent = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, model, inputs) in enumerate(cases()):
            if options.only not in name or number % options.every:
                continue
            path = Path(folder, "model.onnx")
            word, reason, seconds = judge(HOW[options.how], model, inputs, path, data=options.data)
            counts[word] += 1
            spent += seconds
            if options.list or word not in ("same", "not run by onnxruntime"):
                print(f"{word}: {name}: {' '.join(reason.split())[:160]}", flush=True)
    print(f"{options.how}: {dict(counts.most_common())}, {spent:.0f} s")


if __name__ == "__main__":
    main()
