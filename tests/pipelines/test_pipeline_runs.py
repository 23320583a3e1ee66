"""A pipeline gives what onnxruntime gives when it is called by hand, step by step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from decoders import DIM, HEADS, prompts, write_decoder, write_merged, write_seq2seq

from onnxpress.data import Samples
from onnxpress.errors import DataError, ModelError
from onnxpress.pipelines import Pipeline, Running, read_folder, wired
from onnxpress.pipelines.recording import forced, recorded
from onnxpress.pipelines.running import FORCED
from onnxpress.runtime import Session

STEPS = 32


def running(folder: Path) -> Running:
    pipeline: Pipeline = read_folder(folder)
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return Running(wired(pipeline, sessions), sessions)


def without_cache(path: Path, ids: np.ndarray, **others: np.ndarray) -> np.ndarray:
    """Greedy tokens of a decoder that is given all tokens again at every step."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = ids
    for _ in range(STEPS):
        logits = session.run(["logits"], {"input_ids": made, **others})[0]
        made = np.concatenate([made, logits[:, -1].argmax(-1)[:, None]], axis=1)
    return made[:, ids.shape[1] :]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder of all tests as one that takes no past."""
    return write_decoder(tmp_path_factory.mktemp("whole") / "whole.onnx", with_past=False)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("merged", [False, True])
def test_tokens_are_those_without_a_cache(
    tmp_path: Path, whole: Path, batch: int, *, merged: bool
) -> None:
    write = write_merged if merged else write_decoder
    write(tmp_path / ("decoder_model_merged.onnx" if merged else "model.onnx"))
    ids = prompts(batch, seed=batch)
    assert np.array_equal(running(tmp_path).tokens({"input_ids": ids}), without_cache(whole, ids))


def padded(folder: Path, *, cache: bool = True) -> Running:
    """A decoder with a mask whose samples hold that of the prompt."""
    write_decoder(folder / "model.onnx", masked=True, with_past=cache)
    if cache:
        pipeline = read_folder(folder)
    else:
        text = "[[part]]\nname = 'decoder'\nmodel = 'model.onnx'\n[part.loop]\ntokens = 'input_ids'"
        (folder / "pipeline.toml").write_text(f"{text}\nmask = 'attention_mask'\n")
        pipeline = read_folder(folder)
    (part,) = pipeline.parts
    assert part.loop is not None
    pipeline = replace(pipeline, parts=(replace(part, loop=replace(part.loop, padded=True)),))
    sessions = {"decoder": Session(part.model, threads=1)}
    return Running(wired(pipeline, sessions), sessions)


@pytest.mark.parametrize("cache", [False, True])
def test_texts_of_different_lengths_go_on_as_alone(
    tmp_path: Path, whole: Path, *, cache: bool
) -> None:
    made = padded(tmp_path, cache=cache)
    assert {spec.name for spec in made.wiring.inputs} == {"input_ids", "attention_mask"}
    ids, lengths = prompts(3, 9), (4, 9, 6)
    mask = np.stack([np.arange(9) >= 9 - length for length in lengths]).astype(np.int64)
    found = made.tokens({"input_ids": ids, "attention_mask": mask})
    for row, length in enumerate(lengths):
        alone = without_cache(whole, ids[row : row + 1, 9 - length :])
        assert np.array_equal(found[row : row + 1], alone), length


@pytest.mark.parametrize(
    "mask", [[[1, 1, 1, 0]], [[1, 0, 1, 1]], [[1, 1, 1]]], ids=["right", "inside", "short"]
)
def test_padding_elsewhere_than_in_front_is_refused(tmp_path: Path, mask: list[list[int]]) -> None:
    feed = {"input_ids": prompts(1, 4), "attention_mask": np.array(mask)}
    with pytest.raises(
        DataError, match=r"zeros in front and ones from where each text begins.*D003"
    ):
        padded(tmp_path).tokens(feed)


def test_positions_count_text_alone(tmp_path: Path) -> None:
    made = padded(tmp_path)
    (part,) = made.wiring.pipeline.parts
    assert part.loop is not None
    # As if the mask were the input of positions: what is counted is looked at.
    loop = replace(part.loop, positions="attention_mask", mask=None)
    seen = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    found = made._counted("decoder", loop, np.zeros((2, 2), np.int64), seen, {})
    assert found["attention_mask"].tolist() == [[1, 2], [3, 4]]


def test_an_encoder_runs_once_and_feeds_every_step(tmp_path: Path) -> None:
    folder = write_seq2seq(tmp_path / "model")
    source = prompts(2, 9)
    encoder = ort.InferenceSession(folder / "encoder_model.onnx")
    (states,) = encoder.run(None, {"input_ids": source})
    plain = write_decoder(tmp_path / "plain.onnx", with_past=False, encoder=True)
    start = np.zeros((2, 1), np.int64)
    wanted = without_cache(plain, start, encoder_hidden_states=states)
    ends = (wanted == 1).cumsum(axis=1).cumsum(axis=1) > 1
    wanted[ends] = 1
    found = running(folder).tokens({"input_ids": source})
    assert np.array_equal(found, wanted[:, : found.shape[1]])
    calls: list[str] = []
    made = running(folder)
    Running(made.wiring, made.sessions, lambda call: calls.append(call.part)).run(
        {"input_ids": source}
    )
    assert calls[:3] == ["encoder", "decoder", "decoder_with_past"]
    assert calls.count("encoder") == calls.count("decoder") == 1


def test_forced_tokens_are_followed(tmp_path: Path, whole: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    ids, follow = prompts(1), prompts(1, 5, seed=9)
    found = running(tmp_path).run({"input_ids": ids, FORCED: follow})["logits"]
    session = ort.InferenceSession(whole)
    wanted = session.run(["logits"], {"input_ids": np.concatenate([ids, follow], axis=1)})[0]
    assert np.abs(found.astype(np.float64) - wanted[:, 5:10]).max() < 1e-4


def test_what_a_part_is_given_is_recorded_by_sample(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    made = running(tmp_path)
    feeds = tuple({"input_ids": ids[None]} for ids in prompts(3))
    samples = forced(made, Samples(feeds, None, "three"))
    found = recorded(made.wiring, made.sessions, samples, "decoder", 9)
    assert found.groups is not None
    assert found.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    pasts = [feed["past_key_values.0.key"].shape for feed in found.feeds[:3]]
    assert pasts == [(1, HEADS, 6 + length, DIM) for length in (15, -6, 30)]


@pytest.mark.parametrize("most", [3, 9])
def test_what_a_part_is_given_is_from_all_of_the_samples(tmp_path: Path, most: int) -> None:
    write_decoder(tmp_path / "model.onnx")
    made = running(tmp_path)
    feeds = tuple({"input_ids": prompts(1, 2 + at)} for at in range(9))
    samples = forced(made, Samples(feeds, None, "nine"))
    found = recorded(made.wiring, made.sessions, samples, "decoder", most)
    lengths = [feed["input_ids"].shape[1] for feed in found.feeds if feed["input_ids"].size > 1]
    assert lengths == {3: [2], 9: [2, 6, 10]}[most]


def test_a_sample_that_ends_with_its_prompt_is_refused(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    made = running(tmp_path)
    (part,) = made.wiring.pipeline.parts
    assert part.loop is not None
    looped = replace(part, loop=replace(part.loop, prompt=6))
    pipeline = replace(made.wiring.pipeline, parts=(looped,))
    prompted = Running(wired(pipeline, made.sessions), made.sessions)
    samples = Samples(({"input_ids": prompts(1)},), None, "one")
    with pytest.raises(DataError, match=r"sample 1 holds 6 tokens.*nothing follows.*D003"):
        forced(prompted, samples)


def test_a_text_begins_for_each_row_whatever_stands_first(tmp_path: Path) -> None:
    found = running(write_seq2seq(tmp_path))
    feed = {"temperature": np.array(1, np.float32), "input_ids": prompts(3)}
    assert len(found.tokens(feed)) == 3


def test_more_tokens_than_it_was_trained_for_are_refused(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 40}')
    with pytest.raises(DataError, match=r"46 tokens, and it was trained for 40.*N004"):
        running(tmp_path).tokens({"input_ids": prompts(1, 14)})


def test_a_failing_step_is_told_with_its_part_and_sizes(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"part decoder, step 0, with input_ids \[1, 1\]"):
        running(tmp_path).tokens({"input_ids": np.full((1, 1), 99)})
