"""Caches in bytes: what a token takes, how far logits go, and that bytes stay as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoders import prompts, write_decoder, write_merged

from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.pipelines import Running, Wiring, read_folder, wired
from onnxpress.pipelines.caching import cache_bytes, in_bytes, key_peaks, refusal
from onnxpress.pipelines.recording import forced
from onnxpress.runtime import Array, Feed, InputSpec, Session


def both(folder: Path) -> tuple[Running, Running, Samples]:
    """The pipeline of a folder, the same with bytes in its cache, and samples to follow."""
    pipeline = read_folder(folder)
    sessions = {"decoder": Session(pipeline.parts[0].model, threads=1)}
    wiring = wired(pipeline, sessions)
    original = Running(wiring, sessions)
    feeds = tuple({"input_ids": ids[None]} for ids in prompts(4))
    samples = forced(original, Samples(feeds, None, "four"))
    return original, _in_bytes(wiring, sessions, samples), samples


def _in_bytes(wiring: Wiring, sessions: dict[str, Session], samples: Samples) -> Running:
    (part,) = wiring.pipeline.parts
    assert part.loop is not None
    peaks = key_peaks(wiring, sessions, samples, "decoder")
    model, scales = in_bytes(model_file.load(part.model), part.loop.cache, peaks)
    changed = replace(part, loop=replace(part.loop, cache={**part.loop.cache, **scales}))
    opened = {"decoder": Session(model, threads=1)}
    return Running(wired(replace(wiring.pipeline, parts=(changed,)), opened), opened)


@pytest.mark.parametrize("merged", [False, True])
def test_logits_stay_near_and_a_token_takes_less_than_a_third(
    tmp_path: Path, *, merged: bool
) -> None:
    write = write_merged if merged else write_decoder
    write(tmp_path / ("decoder_model_merged.onnx" if merged else "model.onnx"))
    original, result, samples = both(tmp_path)
    one, other = (
        np.concatenate([r.run(feed)["logits"] for feed in samples.feeds])
        for r in (original, result)
    )
    assert 10 * np.log10(one.var() / np.mean((one - other) ** 2)) > 35
    loops = [r.wiring.pipeline.parts[0].loop for r in (original, result)]
    sizes = [
        cache_bytes(r.sessions["decoder"], loop.cache, ())
        for r, loop in zip((original, result), loops, strict=True)
        if loop is not None
    ]
    # 2 heads of 16 numbers, as float32; as bytes, with a half scale for each head of the value.
    assert sizes == [2 * 2 * 16 * 4, 2 * 16 + 2 * (16 + 2)]


def test_bytes_in_the_cache_never_change(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    _, result, samples = both(tmp_path)
    seen: list[Feed] = []
    Running(result.wiring, result.sessions, lambda call: seen.append(call.feed)).run(
        samples.feeds[0]
    )
    first, last = seen[1], seen[-1]
    for name in ("key", "value", "value_scale"):
        early, late = (feed[f"past_key_values.0.{name}"] for feed in (first, last))
        assert np.array_equal(early, late[:, :, : early.shape[2]])


def test_a_key_beyond_its_scale_is_held_at_the_largest_byte(tmp_path: Path) -> None:
    write_decoder(tmp_path / "model.onnx")
    model = model_file.load(tmp_path / "model.onnx")
    peaks: dict[str, Array] = {"past_key_values.0.key": np.full((1, 2, 1, 16), 1e-2, np.float32)}
    caches = {"past_key_values.0.key": "present.0.key"}
    changed, _ = in_bytes(model, caches, peaks)
    feed: dict[str, Array] = {
        "input_ids": prompts(1),
        "past_key_values.0.key": np.zeros((1, 2, 0, 16), np.int8),
        "past_key_values.0.value": np.zeros((1, 2, 0, 16), np.float32),
    }
    found = Session(changed, threads=1).run(feed)["present.0.key"]
    assert found.dtype == np.int8
    assert (int(found.min()), int(found.max())) == (-127, 127)


@pytest.mark.parametrize(
    ("dtype", "shape", "said"),
    [
        ("int8", ("b", 2, "past", 16), "of int8 already"),
        ("float32", ("b", 2, 64, 16), "is no"),
        ("float32", ("b", "heads", "past", 16), "is no"),
        ("float32", ("b", 2, 16, "past"), "is no"),
    ],
)
def test_another_layout_is_left_and_told(
    dtype: str, shape: tuple[int | str, ...], said: str
) -> None:
    reason = refusal(InputSpec("past", dtype, shape))
    assert reason is not None
    assert said in reason
    assert reason.endswith("[N006]")
