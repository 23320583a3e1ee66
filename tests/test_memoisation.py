"""What is remembered follows from what a function is given, and from nothing else."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.contract import Context, Layer, memoised, memoised_of_model
from onnxpress.data import random_samples
from onnxpress.layers import find_layers
from onnxpress.memory import Memory
from onnxpress.runtime import Array, Session
from onnxpress.statistics import Observations, collect
from onnxpress.targets import load_target
from onnxpress.testing import SAMPLE_MODELS

CALLS: list[str] = []


@memoised
def norm(context: Context, layer: Layer, power: float = 2.0) -> float:
    CALLS.append(layer.name)
    return float((np.abs(layer.read()) ** power).sum())


@memoised
def summed(context: Context, array: Array) -> float:
    CALLS.append("array")
    return float(array.sum())


@memoised_of_model
def count(context: Context) -> int:
    CALLS.append("model")
    return len(context.base.graph)


def context() -> Context:
    CALLS.clear()
    return Context(SAMPLE_MODELS["mlp_opset17"](), load_target("cpu"))


def test_the_same_is_worked_out_once() -> None:
    known = context()
    assert norm(known, known.layers[0]) == norm(known, known.layers[0])
    assert CALLS == ["w1"]


def test_a_clone_shares_what_follows_from_weights() -> None:
    known = context()
    clone = replace(known, model=known.model.clone(), layers=())
    assert norm(known, known.layers[0]) == norm(clone, clone.layers[0])
    assert CALLS == ["w1"]


def test_a_changed_weight_of_the_same_name_is_another() -> None:
    known = context()
    clone = replace(known, model=known.model.clone(), layers=())
    clone.layers[0].write(clone.layers[0].read() * 2)
    assert norm(clone, clone.layers[0]) == 4 * norm(known, known.layers[0])
    assert len(CALLS) == 2


def test_other_arguments_targets_seeds_and_drafts_are_others() -> None:
    known = context()
    layer = known.layers[0]
    narrow = replace(known.target, weight_bits=7)
    norm(known, layer)
    norm(known, layer, 1.0)
    norm(known, layer, power=1.0)
    norm(replace(known, target=narrow), layer)
    norm(replace(known, seed=1), layer)
    norm(replace(known, draft=True), layer)
    norm(known, known.layers[1])
    # Positional and by name are told apart, which costs a call and no wrong answer.
    assert len(CALLS) == 7


def test_one_and_true_are_not_the_same_argument() -> None:
    known = context()
    norm(known, known.layers[0], 1)
    norm(known, known.layers[0], True)  # noqa: FBT003 - that is the question
    assert len(CALLS) == 2


def test_statistics_of_another_run_are_others() -> None:
    model = SAMPLE_MODELS["mlp_opset17"]()
    layers = find_layers(model)
    wanted = Observations(layers=frozenset(layer.name for layer in layers))
    samples = random_samples(Session(model), 4, 0)
    known = context()
    for _ in range(2):
        seen = collect(model, layers, samples, wanted)
        norm(replace(known, statistics=seen), known.layers[0])
    assert len(CALLS) == 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_arrays_are_known_by_their_content(values: list[float]) -> None:
    known = context()
    array = np.asarray(values)
    summed(known, array)
    summed(known, array.copy())
    assert len(CALLS) == 1
    changed = array.copy()
    changed[0] += 1
    summed(known, changed)
    assert len(CALLS) == 2


def test_what_follows_from_the_model_belongs_to_its_base() -> None:
    known = context()
    count(known)
    count(replace(known, model=known.model.clone(), layers=()))
    assert CALLS == ["model"]
    other = SAMPLE_MODELS["cnn_opset17"]()
    count(replace(known, model=other, base=other, layers=()))
    assert CALLS == ["model", "model"]


def test_memory_is_bounded_and_forgets_what_was_not_asked_for_longest() -> None:
    memory = Memory(limit_bytes=2_000)
    made: list[str] = []

    def make(name: str) -> Array:
        made.append(name)
        return np.zeros(100)

    for name in ("a", "b", "a", "c", "a", "b"):
        memory.recall(name, lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
