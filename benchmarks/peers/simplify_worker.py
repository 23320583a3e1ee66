"""Simplifies models for `onnx_backend_tests.py`: a line `IN.onnx OUT.onnx` each, until the end.

    python simplify_worker.py onnxsim|onnxslim|onnxoptimizer|onnxscript

Answers each line with the seconds it took, or with what went wrong. Every tool as its own
documentation calls it.
"""

import contextlib
import io
import sys
import time

import onnx


def by_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """As `onnxsim IN OUT`."""
    import onnxsim  # noqa: PLC0415

    simplified, agrees = onnxsim.simplify(model)
    if not agrees:
        raise RuntimeError("onnxsim's own check: the outputs differ")
    return simplified


def by_onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    """As `onnxslim IN OUT`."""
    import onnxslim  # noqa: PLC0415

    return onnxslim.slim(model)


def by_onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Its default passes."""
    import onnxoptimizer  # noqa: PLC0415

    return onnxoptimizer.optimize(model)


def by_onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    """Onnxscript's optimizer."""
    import onnxscript.optimizer  # noqa: PLC0415

    return onnxscript.optimizer.optimize(model)


def main() -> None:
    """Serve until standard input ends."""
    simplify = globals()[f"by_{sys.argv[1]}"]
    print("ready", flush=True)
    for line in sys.stdin:
        given, made = line.split()
        started = time.monotonic()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                onnx.save(simplify(onnx.load(given)), made)
            answer = f"{time.monotonic() - started:.6f}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - counted by the other side
            answer = f"failed {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
