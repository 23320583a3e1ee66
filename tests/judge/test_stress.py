"""Stressed samples: what each stress does, and what it leaves alone."""

import numpy as np
import pytest

from onnxpress.data import Samples
from onnxpress.judge.stress import stressed
from onnxpress.runtime import Array, Feed, InputSpec

IMAGE = InputSpec("image", "float32", ("batch", 3, "height", "width"))
IDS = InputSpec("input_ids", "int64", ("batch", "sequence"))
MASK = InputSpec("attention_mask", "int64", ("batch", "sequence"))
TYPES = InputSpec("token_type_ids", "int64", ("batch", "sequence"))
LENGTH = 12


def images(number: int = 5, *, last: bool = False) -> Samples:
    rng = np.random.default_rng(0)
    shape = (1, 32, 40, 3) if last else (1, 3, 32, 40)
    feeds = tuple({"image": rng.random(shape, np.float32)} for _ in range(number))
    return Samples(feeds, None, "images")


def texts(number: int = 6) -> Samples:
    rng = np.random.default_rng(0)
    feeds = []
    for index in range(number):
        length = LENGTH - index % 4
        mask = (np.arange(LENGTH) < length).astype(np.int64)[np.newaxis]
        ids = rng.integers(5, 1000, (1, LENGTH)) * mask
        feeds.append(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
        )
    return Samples(tuple(feeds), None, "texts")


def by_name(samples: Samples, specs: list[InputSpec], number: int = 500) -> dict[str, list[Feed]]:
    found: dict[str, list[Feed]] = {}
    for name, feed in stressed(samples, specs, seed=0, number=number):
        found.setdefault(name, []).append(feed)
    return found


def original(feed: Feed, samples: Samples, name: str) -> Array:
    """The sample whose sorted values a feed's are."""
    return next(
        one[name]
        for one in samples
        if np.array_equal(np.sort(one[name].ravel()), np.sort(feed[name].ravel()))
    )


def test_images_are_stressed_in_every_way() -> None:
    assert set(by_name(images(), [IMAGE])) == {
        "noise", "longer", "shifted", "brighter", "batch of two", "zoomed", "shorter", "darker",
        "mirrored", "silence",
    }  # fmt: skip


def test_types_are_kept_and_values_stay_within_those_of_the_samples() -> None:
    samples = images()
    low = min(feed["image"].min() for feed in samples)
    high = max(feed["image"].max() for feed in samples)
    for _, feed in stressed(samples, [IMAGE], seed=0, number=40):
        assert feed["image"].dtype == np.float32
        assert low <= feed["image"].min()
        assert feed["image"].max() <= high


def test_bytes_stay_bytes() -> None:
    pixels = np.random.default_rng(0).integers(40, 200, (4, 1, 32, 32, 3)).astype(np.uint8)
    samples = Samples(tuple({"image": one} for one in pixels), None, "bytes")
    found = by_name(samples, [InputSpec("image", "uint8", (1, 32, 32, 3))])
    assert all(feed["image"].dtype == np.uint8 for feeds in found.values() for feed in feeds)
    assert (found["silence"][0]["image"] == 0).all()
    assert found["brighter"][0]["image"].mean() > pixels.mean()


@pytest.mark.parametrize("last", [False, True])
def test_images_move_along_height_and_width_wherever_their_channels_are(last: bool) -> None:  # noqa: FBT001
    samples = images(last=last)
    found = by_name(samples, [IMAGE])
    feed = found["mirrored"][0]
    before = original(feed, samples, "image")
    assert np.array_equal(feed["image"], np.flip(before, 2 if last else 3))
    feed = found["shifted"][0]
    before = original(feed, samples, "image")
    axes = (1, 2) if last else (2, 3)
    assert np.array_equal(feed["image"], np.roll(before, (4, 5), axes))


def test_zooming_repeats_the_central_part() -> None:
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (1, 1, 100, 100))
    samples = Samples(({"image": ramp},), None, "ramp")
    zoomed = by_name(samples, [IMAGE])["zoomed"][0]["image"]
    assert zoomed.shape == ramp.shape
    assert (zoomed.min(), zoomed.max()) == (10, 89)


def test_noise_is_a_tenth_of_the_deviation() -> None:
    wave = np.random.default_rng(0).normal(3, 5, (3, 1, 4000)).astype(np.float32)
    samples = Samples(tuple({"x": one} for one in wave), None, "sound")
    feed = by_name(samples, [InputSpec("x", "float32", (1, 4000))])["noise"][0]
    nearest = min(wave, key=lambda one: float(np.abs(one - feed["x"]).sum()))
    assert (feed["x"] - nearest).std() == pytest.approx(0.5, rel=0.05)


def test_tokens_are_shuffled_where_the_mask_is_one_and_masks_are_left_alone() -> None:
    samples = texts()
    for feed in by_name(samples, [IDS, MASK, TYPES])["shuffled"]:
        before = original(feed, samples, "input_ids")
        mask = feed["attention_mask"]
        assert not np.array_equal(feed["input_ids"], before)
        assert (feed["input_ids"][mask == 0] == 0).all()
        assert (feed["input_ids"][mask == 1] > 0).all()
        assert not feed["token_type_ids"].any()


def test_all_tokens_of_one_shape_are_shuffled_alike() -> None:
    ids = np.random.default_rng(0).permutation(40).reshape(1, 40)
    samples = Samples(({"a": ids, "b": 7 * ids},), None, "pairs")
    specs = [InputSpec(name, "int64", (1, 40)) for name in "ab"]
    feed = by_name(samples, specs)["shuffled"][0]
    assert np.array_equal(feed["b"], 7 * feed["a"])


def test_all_axes_of_one_name_change_together() -> None:
    found = by_name(texts(), [IDS, MASK, TYPES])
    for name, length in [("shorter", LENGTH * 3 // 4), ("longer", 2 * LENGTH)]:
        for feed in found[name]:
            assert {array.shape for array in feed.values()} == {(1, length)}
    for feed in found["batch of two"]:
        assert {array.shape for array in feed.values()} == {(2, LENGTH)}


def test_lengths_change_all_together_or_the_last_alone_to_multiples_of_32() -> None:
    shape = (1, 3, 320, 640)
    feeds = tuple({"image": np.full(shape, value, np.float32)} for value in range(2, 10))
    found = by_name(Samples(feeds, None, "several"), [IMAGE])
    shorter = {feed["image"].shape[2:] for feed in found["shorter"]}
    longer = {feed["image"].shape[2:] for feed in found["longer"]}
    assert shorter == {(224, 480), (320, 480)}
    assert longer == {(640, 1280), (320, 1280)}


def test_a_batch_of_two_is_two_samples_wherever_their_batch_is() -> None:
    rng = np.random.default_rng(0)
    feeds: tuple[Feed, ...] = tuple(
        {
            "x": rng.random((1, 20, 4), np.float32),
            "h": rng.random((2, 1, 8), np.float32),
            "rate": np.asarray(16_000, np.int64),
        }
        for _ in range(3)
    )
    specs = [
        InputSpec("x", "float32", ("n", 20, 4)),
        InputSpec("h", "float32", (2, "n", 8)),
        InputSpec("rate", "int64", ()),
    ]
    feed = by_name(Samples(feeds, None, "states"), specs)["batch of two"][0]
    assert {name: array.shape for name, array in feed.items()} == {
        "x": (2, 20, 4), "h": (2, 2, 8), "rate": (),
    }  # fmt: skip
    assert not np.array_equal(feed["x"][0], feed["x"][1])


def test_fixed_shapes_stay() -> None:
    samples = images()
    fixed = InputSpec("image", "float32", (1, 3, 32, 40))
    for _, feed in stressed(samples, [fixed], seed=0, number=60):
        assert feed["image"].shape == (1, 3, 32, 40)


def left_alone() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "attention_mask": np.ones((1, 30), np.int64),
        "bias": np.where(rng.random((1, 1, 30, 30)) < 0.5, 0, -np.inf).astype(np.float32),
        "past_key": rng.random((1, 2, 30, 16), np.float32),
        "position_ids": np.arange(30)[np.newaxis],
        "threshold": np.asarray(0.3, np.float32),
        "size": np.asarray([[480, 640]], np.int64),
        "name": np.asarray([["a", "b"]], object),
        "flags": rng.random((1, 30)) < 0.5,
    }


def test_masks_scalars_states_positions_and_strings_are_left_alone() -> None:
    fixed = left_alone()
    rng = np.random.default_rng(1)
    feeds = tuple({**fixed, "x": rng.random((1, 300), np.float32)} for _ in range(3))
    specs = [InputSpec(name, str(a.dtype), a.shape) for name, a in feeds[0].items()]
    found = stressed(Samples(feeds, None, "mixed"), specs, seed=0, number=100)
    assert found
    for _, feed in found:
        for name, array in fixed.items():
            assert np.array_equal(feed[name], array), name


def test_columns_of_a_table_do_not_move() -> None:
    table = np.random.default_rng(0).random((6, 1, 20), np.float32)
    samples = Samples(tuple({"x": row} for row in table), None, "table")
    assert set(by_name(samples, [InputSpec("x", "float32", (1, 20))])) == {
        "noise", "brighter", "darker", "silence",
    }  # fmt: skip


def test_samples_are_not_changed() -> None:
    samples = images()
    before = [feed["image"].copy() for feed in samples]
    stressed(samples, [IMAGE], seed=0, number=40)
    assert all(np.array_equal(a, feed["image"]) for a, feed in zip(before, samples, strict=True))


def test_the_seed_alone_decides() -> None:
    first, again, other = (stressed(texts(), [IDS, MASK, TYPES], seed, 20) for seed in (0, 0, 1))
    assert [name for name, _ in first] == [name for name, _ in again]
    for (_, a), (_, b) in zip(first, again, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert any(
        not np.array_equal(a["input_ids"], b["input_ids"])
        for (_, a), (_, b) in zip(first, other, strict=True)
    )


def test_noise_of_another_seed_is_another() -> None:
    first, other = (stressed(images(1), [IMAGE], seed, 1)[0] for seed in (0, 1))
    assert first[0] == other[0] == "noise"
    assert not np.array_equal(first[1]["image"], other[1]["image"])


def test_a_few_feeds_come_from_as_many_stresses_and_several_samples() -> None:
    rng = np.random.default_rng(0)
    feeds = tuple(
        {"image": rng.normal(100 * index, 1, (1, 3, 32, 40)).astype(np.float32)}
        for index in range(5)
    )
    found = stressed(Samples(feeds, None, "far apart"), [IMAGE], seed=0, number=10)
    assert len({name for name, _ in found}) == len(found) == 10
    moved = [feed["image"] for name, feed in found if name in {"shifted", "zoomed", "mirrored"}]
    assert len({round(float(image.mean()) / 100) for image in moved}) > 1


def test_bytes_are_rounded_rather_than_cut() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    samples = Samples(({"image": pixels},), None, "bytes")
    noisy = by_name(samples, [InputSpec("image", "uint8", (1, 32, 32, 3))])["noise"][0]["image"]
    inner = (pixels > 60) & (pixels < 195)
    # Cutting would darken by half a step; the mean of 1,600 noisy pixels varies by 0.2.
    change = noisy[inner].astype(float) - pixels[inner]
    assert abs(change.mean()) < 0.5


def test_where_nothing_can_be_stressed_there_is_nothing() -> None:
    samples = Samples(({"x": np.asarray(3.0, np.float32)},), None, "scalars")
    assert stressed(samples, [InputSpec("x", "float32", ())], seed=0, number=5) == ()
