"""numpy's linear algebra and onnxruntime share one number of threads."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clocks import BY_WORK
from refitting import refined_decisions
from threadpoolctl import threadpool_info

import onnxpress
from onnxpress import model_file
from onnxpress.data import random_samples
from onnxpress.passes.quantize import Quantize
from onnxpress.pool import Pool
from onnxpress.runtime import (
    Session,
    cholesky,
    eigh,
    eigvalsh,
    inv,
    numpy_threads,
    pinv,
    qr,
    solve,
    svd,
)
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS


def in_use() -> set[int]:
    """How many threads each BLAS in the process uses."""
    np.eye(8) @ np.eye(8)
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_numpy_uses_as_many_threads_as_onnxruntime_while_a_model_is_optimized(
    models: Path,
) -> None:
    before, during = in_use(), []
    onnxpress.optimize(
        models / "fashion_mlp.onnx",
        passes=["quantize"],
        threads=1,
        clock=BY_WORK,
        progress=lambda _: during.append(in_use()),
    )
    assert all(found == {1} for found in during)
    assert len(during) > 2
    assert in_use() == before


def test_no_number_leaves_numpy_as_it_is() -> None:
    before = in_use()
    with numpy_threads(0):
        assert in_use() == before


def test_number_comes_back_after_an_error() -> None:
    before = in_use()

    with pytest.raises(ValueError, match="inside"), numpy_threads(1):
        raise ValueError("inside")
    assert in_use() == before


DECOMPOSITIONS = [cholesky, eigh, eigvalsh, inv, pinv, qr, solve, svd]


def test_no_other_module_decomposes_by_itself() -> None:
    names = "|".join(function.__name__ for function in DECOMPOSITIONS)
    root = Path(onnxpress.__file__).parent
    sources = [*root.rglob("*.py"), *root.joinpath("passes").resolve().rglob("*.py")]
    found = {file.name for file in sources if re.search(rf"linalg\.({names})\(", file.read_text())}
    assert found == {"threads.py"}


@pytest.mark.parametrize("function", DECOMPOSITIONS)
def test_decompositions_have_one_thread_whatever_products_have(
    function: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[set[int]] = []
    numpys = getattr(np.linalg, function.__name__)

    def watched(*args: object, **given: object) -> object:
        during.append(in_use())
        return numpys(*args, **given)

    monkeypatch.setattr(np.linalg, function.__name__, watched)
    with numpy_threads(2):
        function(*[np.eye(3)] * (2 if function is solve else 1))
        assert in_use() == {2}
    assert during == [{1}]


@pytest.mark.parametrize("name", ["wide_cnn", "mlp_opset17"])
def test_one_thread_and_two_give_the_same_bytes(name: str) -> None:
    model = SAMPLE_MODELS[name]()
    samples = random_samples(Session(model), 12, seed=1)
    found = []
    for threads in (1, 2):
        pool = Pool((Quantize(form="static"),))
        with numpy_threads(threads):
            context = pool.context(model, load_target("cpu"), samples, threads=threads)
            decisions = refined_decisions(pool, context)
            rewritten = pool.rewrite_refined(context, decisions, samples, threads=threads)
        chosen = [(d.site, d.candidate.family, d.candidate.parameters) for d in decisions]
        found.append((chosen, model_file.to_bytes(rewritten)))
    assert found[0] == found[1]
