"""Stressed samples: what a model may meet beyond its calibration data; they need no labels.

The original answers them as it does, and a smaller model has to answer alike. Signals (floats,
images in bytes, audio in 16 bits) get noise, gain, shifts, crops, mirroring and silence, tokens
are shuffled, dynamic axes get another length and another batch size. Masks, scalars, states,
positions and strings are left alone. That a model is as good on shifted data is no matter of
course: Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019; pruned models lose more there: Hooker et al., arXiv 1911.05248.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.data import Samples
from onnxpress.judge.roles import Roles, Signal, read_roles
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = ["stressed"]

_NOISE = 0.1
"""Of the input's standard deviation over the samples: 20 dB below it."""
_BRIGHTER, _DARKER = 1.25, 0.8
_SHIFTED = 0.1
"""Of the standard deviation, what brightness moves by besides."""
_ROLLED = 8
"""The part of an axis, one in so many, that things move by."""
_KEPT = 0.8
"""Of height and width, what is zoomed in on."""
_SHORTER = 0.75
_SHORTEST = 4
"""Elements of an axis below which its length is no length: channels, coordinates."""

Rng = np.random.Generator
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Case:
    """A sample to be stressed.

    Attributes:
        feed: the sample.
        partner: another of the same shapes, or itself.
        inputs: of the model.
        roles: what the inputs hold.
    """

    feed: Feed
    partner: Feed
    inputs: Sequence[InputSpec]
    roles: Roles


Stress = Callable[[_Case, Rng], Feed | None]
"""The stressed feed, or `None` where this does not change such a sample."""


def stressed(
    samples: Samples,
    inputs: Sequence[InputSpec],
    seed: int,
    number: int,
    names: Collection[str] | None = None,
) -> tuple[tuple[str, Feed], ...]:
    """At most `number` stressed samples, by turns of all stresses, each with the stress's name.

    What the model itself cannot run, such as a length that it does not take, is the caller's to
    leave out.

    Args:
        samples: of the model; not changed.
        inputs: of the model, which say what axes are dynamic and which of them go together.
        seed: decides all that is random; the same samples give the same feeds.
        number: how many are wanted.
        names: of the stresses; all of them if not given.
    """
    roles = read_roles(samples.feeds)
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    found: list[tuple[str, Feed]] = []
    for name, stress, index, rng in _turns(order, seed):
        if len(found) == number:
            break
        if names is not None and name not in names:
            continue
        feed = samples.feeds[index]
        case = _Case(feed, _partner(samples.feeds, index), inputs, roles)
        changed = stress(case, rng)
        if changed is not None:
            found.append((name, changed))
    return tuple(found)


def _turns(order: Sequence[int], seed: int) -> Iterator[tuple[str, Stress, int, Rng]]:
    """Every stress on every sample, one after the other; neighbours get different samples."""
    for turn in range(len(order)):
        for place, (name, stress) in enumerate(_STRESSES.items()):
            index = order[(turn + place) % len(order)]
            yield name, stress, index, np.random.default_rng([seed, place, index])


def _partner(feeds: Sequence[Feed], index: int) -> Feed:
    """The next sample with the same shapes; itself where there is none."""
    shapes = {name: array.shape for name, array in feeds[index].items()}
    others = (feeds[(index + step) % len(feeds)] for step in range(1, len(feeds)))
    for other in others:
        if {name: array.shape for name, array in other.items()} == shapes:
            return other
    return feeds[index]


def _on_signals(
    change: Callable[[Floats, Signal, Rng], Floats], *, moving: bool = False, images: bool = False
) -> Stress:
    """A stress of all signals of a sample, in 64 bits and back within the range of the samples.

    Args:
        change: of one signal.
        moving: along its axes, which a table does not have.
        images: of images alone.
    """

    def stress(case: _Case, rng: Rng) -> Feed | None:
        feed = dict(case.feed)
        changed = False
        for name, signal in case.roles.signals.items():
            if (moving and not signal.axes) or (images and not signal.is_image):
                continue
            array = feed[name]
            new = change(array.astype(np.float64), signal, rng)
            new = np.clip(new, signal.low, signal.high)
            new = np.rint(new) if array.dtype.kind in "iu" else new
            feed[name] = new.astype(array.dtype)
            changed = changed or not np.array_equal(feed[name], array)
        return feed if changed else None

    return stress


def _noise(array: Floats, signal: Signal, rng: Rng) -> Floats:
    return np.asarray(array + _NOISE * signal.deviation * rng.standard_normal(array.shape))


def _gain(factor: float) -> Callable[[Floats, Signal, Rng], Floats]:
    """Away from the mean or towards it, and up or down a little."""

    def change(array: Floats, signal: Signal, rng: Rng) -> Floats:
        moved = signal.mean + np.sign(factor - 1) * _SHIFTED * signal.deviation
        return np.asarray(factor * (array - signal.mean) + moved)

    return change


def _roll(array: Floats, signal: Signal, rng: Rng) -> Floats:
    steps = [max(1, array.shape[axis] // _ROLLED) for axis in signal.axes]
    return np.roll(array, steps, signal.axes)


def _zoom(array: Floats, signal: Signal, rng: Rng) -> Floats:
    """The central part, as large as the whole, by nearest neighbours."""
    for axis in signal.axes:
        size = array.shape[axis]
        places = size * (1 - _KEPT) / 2 + _KEPT * (np.arange(size) + 0.5)
        array = np.take(array, np.minimum(places.astype(np.int64), size - 1), axis)
    return array


def _mirror(array: Floats, signal: Signal, rng: Rng) -> Floats:
    return np.flip(array, signal.axes[-1])


def _silence(array: Floats, signal: Signal, rng: Rng) -> Floats:
    """Zeros, or the darkest there is: zero is grey where images were centred."""
    return np.full_like(array, signal.low if signal.is_image else 0.0)


def _shuffle(case: _Case, rng: Rng) -> Feed | None:
    """Tokens in another order, all inputs of one shape alike, what is masked where it was."""
    feed = dict(case.feed)
    changed = False
    for shape in sorted({feed[name].shape for name in case.roles.tokens}):
        alike = [name for name in case.roles.tokens if feed[name].shape == shape]
        mask = case.roles.mask_of(feed, shape)
        order = _row_orders(np.ones(shape, bool) if mask is None else mask != 0, rng)
        for name in alike:
            new = np.take_along_axis(feed[name], order, -1)
            changed = changed or not np.array_equal(new, feed[name])
            feed[name] = new
    return feed if changed else None


def _row_orders(free: Array, rng: Rng) -> npt.NDArray[np.int64]:
    """Indices along the last axis: those that are free permuted, the others in place."""
    order = np.broadcast_to(np.arange(free.shape[-1]), free.shape).copy()
    for place in np.ndindex(free.shape[:-1]):
        spots = np.flatnonzero(free[place])
        order[place][spots] = rng.permutation(spots)
    return order


def _shorter(case: _Case, rng: Rng) -> Feed | None:
    """About three quarters of all dynamic lengths, multiples of 32 where they are large."""

    def cut(array: Array, axis: int) -> Array:
        size = int(array.shape[axis] * _SHORTER)
        step = 32 if size >= 96 else 1
        return array.take(np.arange(size - size % step), axis)

    return _with_lengths(case, rng, cut)


def _longer(case: _Case, rng: Rng) -> Feed | None:
    """Twice all dynamic lengths, by repetition."""
    return _with_lengths(case, rng, lambda array, axis: np.concatenate([array, array], axis))


def _with_lengths(case: _Case, rng: Rng, change: Callable[[Array, int], Array]) -> Feed | None:
    """All dynamic lengths changed, or the last one alone; axes of one name have one length."""
    batch = _batch(case.inputs)
    places: dict[str, list[tuple[str, int]]] = {}
    for spec in case.inputs:
        for axis, dim in enumerate(spec.shape):
            is_batch = axis == 0 if dim is None else dim == batch
            is_long = case.feed[spec.name].shape[axis] >= _SHORTEST
            if _is_dynamic(dim) and not is_batch and is_long:
                length = dim if isinstance(dim, str) else f"{spec.name}/{axis}"
                places.setdefault(length, []).append((spec.name, axis))
    if not places:
        return None
    # Some axes are dynamic in name alone, such as the height of a line of text.
    lengths = list(places) if rng.random() < 0.5 else [list(places)[-1]]
    feed = dict(case.feed)
    for name, axis in (place for length in lengths for place in places[length]):
        feed[name] = change(feed[name], axis)
    return feed


def _batched(case: _Case, rng: Rng) -> Feed | None:
    """Two samples in one run, along the dynamic first axis and those of the same name."""
    batch = _batch(case.inputs)
    feed = dict(case.feed)
    changed = False
    for spec in case.inputs:
        for axis, dim in enumerate(spec.shape):
            if _is_dynamic(dim) and (axis == 0 if dim is None else dim == batch):
                pair = [case.feed[spec.name], case.partner[spec.name]]
                feed[spec.name] = np.concatenate(pair, axis)
                changed = True
                break
    return feed if changed else None


def _is_dynamic(dim: int | str | None) -> bool:
    return not isinstance(dim, int) or dim < 0


def _batch(inputs: Sequence[InputSpec]) -> str | None:
    """The name of the first axis, where it has one."""
    firsts = (spec.shape[0] for spec in inputs if spec.shape)
    return next((dim for dim in firsts if isinstance(dim, str)), None)


_STRESSES: dict[str, Stress] = {
    "noise": _on_signals(_noise),
    "longer": _longer,
    "shifted": _on_signals(_roll, moving=True),
    "shuffled": _shuffle,
    "brighter": _on_signals(_gain(_BRIGHTER)),
    "batch of two": _batched,
    "zoomed": _on_signals(_zoom, images=True),
    "shorter": _shorter,
    "darker": _on_signals(_gain(_DARKER)),
    "mirrored": _on_signals(_mirror, images=True),
    "silence": _on_signals(_silence),
}
