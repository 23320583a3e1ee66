"""ONNX's own backend tests through the optimizer: same, refused, invalid, different, traceback.

    python benchmarks/onnx_backend_tests.py [--how pass|simplify|optimize] [--only WORD] [--list]

Each test is a model with inputs (`onnx.backend.test.loader`; kinds node, simple and PyTorch). Those
that onnxruntime runs are rewritten in this process, checked with `onnx.checker` and run again on
the test's own inputs. `pass` calls the pass `simplify` alone; `simplify` is what the command of
that name does, without data; `optimize` is the whole of it, without data.

- same: valid, the same inputs and outputs, and the same answers (1e-3 of each, as ONNX's tests);
- refused: an `OnnxpressError`, that is one sentence and exit 2;
- invalid: what was written is refused by the checker or by onnxruntime;
- different: it answers otherwise;
- traceback: anything else.
"""

import argparse
import collections
import logging
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

import onnxpress
from onnxpress import model_file
from onnxpress.errors import OnnxpressError
from onnxpress.passes.simplify import simplify

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


def by_pass(path: Path) -> bytes:
    """The pass alone."""
    model = model_file.load(path)
    simplify(model)
    return model_file.to_bytes(model)


def by_simplify(path: Path) -> bytes:
    """As the command `simplify` without data."""
    return model_file.to_bytes(onnxpress.optimize(path, passes=["simplify"], threads=1).model)


def by_optimize(path: Path) -> bytes:
    """As the command `optimize` without data."""
    return model_file.to_bytes(onnxpress.optimize(path, threads=1, time_limit=20).model)


HOW: dict[str, Callable[[Path], bytes]] = {
    "pass": by_pass,
    "simplify": by_simplify,
    "optimize": by_optimize,
}


def judge(
    rewrite: Callable[[Path], bytes], model: onnx.ModelProto, inputs: list[Any], path: Path
) -> tuple[str, str]:
    """One of the words above, and more about it."""
    try:
        wanted = answers(model.SerializeToString(), inputs)
    except Exception as error:  # noqa: BLE001 - onnxruntime raises C++ exceptions of any type
        return "not run by onnxruntime", str(error)
    onnx.save(model, path)
    try:
        content = rewrite(path)
    except OnnxpressError as error:
        return "refused", str(error)
    except Exception as error:  # noqa: BLE001 - counted
        return "traceback", f"{type(error).__name__}: {error}"
    try:
        written = onnx.load_from_string(content)
        onnx.checker.check_model(written, full_check=_is_inferable(model))
        for place in ("input", "output"):
            before, after = (_names(m, place) for m in (model, written))
            if before != after:
                return "invalid", f"{place}s {after}, expected {before}"
        found = answers(content, inputs)
    except Exception as error:  # noqa: BLE001 - counted
        return "invalid", str(error)
    if any(node.op_type.startswith(RANDOM) for node in model.graph.node):
        return "same", "not compared: it draws random numbers"
    return ("same", "") if equal(wanted, found) else ("different", "")


def _names(model: onnx.ModelProto, place: str) -> list[str]:
    """Of inputs or outputs; below IR 4 without the weights, which had to be inputs there."""
    weights = {tensor.name for tensor in model.graph.initializer} if model.ir_version < 4 else set()
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
    parser.add_argument("--only", default="", help="tests whose name contains this word")
    parser.add_argument("--list", action="store_true", help="also what is the same")
    options = parser.parse_args()
    logging.disable()
    counts: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name, model, inputs in cases():
            if options.only not in name:
                continue
            path = Path(folder, "model.onnx")
            word, reason = judge(HOW[options.how], model, inputs, path)
            counts[word] += 1
            if options.list or word not in ("same", "not run by onnxruntime"):
                print(f"{word}: {name}: {' '.join(reason.split())[:160]}", flush=True)
    seconds = time.monotonic() - started
    print(f"{options.how}: {dict(counts.most_common())}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
