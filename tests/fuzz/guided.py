"""Fuzzing that follows the coverage of our code: atheris (libFuzzer for Python), where installed.

    pip install atheris
    PYTHONPATH=tests python -m fuzz.guided FOLDER -max_total_time=600 -rss_limit_mb=2048 -timeout=20

Loads, inspects and simplifies models in one process, mutated as in `mutation`. libFuzzer keeps what
reached new code in FOLDER, and ends at the first exception, abort, hang or file that takes more
memory, which it leaves as `crash-…`, `timeout-…` or `oom-…` in the current folder.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["onnxpress"]):
    from fuzz.mutation import mutated_model
    from fuzz.seeds import models
    from onnxpress import optimize
    from onnxpress.errors import OnnxpressError
    from onnxpress.inspection import inspect_model

_FOLDER = tempfile.TemporaryDirectory()
_PATH = Path(_FOLDER.name, "model.onnx")


def one(content: bytes) -> None:
    """Read, inspect and simplify."""
    _PATH.write_bytes(content)
    try:
        inspect_model(_PATH)
        optimize(_PATH, passes=["simplify"], threads=1)
    except OnnxpressError:
        return


def mutate(content: bytes, most: int, seed: int) -> bytes:
    """A mutation of the message, or of another valid one where the content is none any more."""
    rng = random.Random(seed)  # noqa: S311 - for a test
    pool = list(models().values())
    try:
        return mutated_model(content, rng.choice(pool), rng)[:most]
    except Exception:  # noqa: BLE001 - whatever protobuf says of bytes
        return mutated_model(rng.choice(pool), rng.choice(pool), rng)[:most]


def main() -> None:
    """Fuzz."""
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
