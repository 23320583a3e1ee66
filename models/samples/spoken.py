"""Spoken numbers and months by espeak-ng, with noise, as log-mel features with their words."""

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, takewhile
from typing import NamedTuple

import numpy as np

# fmt: off
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "january",
    "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)
# fmt: on
START, END, FIRST_WORD, PADDING = 0, 1, 2, -1
VOCABULARY, MOST_WORDS = len(WORDS) + FIRST_WORD, 5
RATE, HOP, WINDOW, MELS, FRAMES = 16000, 256, 512, 48, 256
# speak_lib.h
_SYNCHRONOUS, _SPEED, _PITCH, _CHARACTERS, _UTF8, _LAST, _WORD = 2, 1, 3, 1, 1, 0, 1
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
SPEAKERS = {
    "training": ("m1", "m2", "m3", "m4", "f1", "f2", "Andy", "Annie", "Gene", "steph"),
    "calibration": ("m5", "linda"),
    "evaluation": ("m7", "f3", "Lee"),
    "fresh": ("m8", "f4", "Michael", "belinda"),
}
HELD_OUT = {"calibration": 96, "evaluation": 256, "fresh": 512}


class Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("detail", ctypes.c_char * 8),
    )


class Spoken(NamedTuple):
    """`features` [n, 48, 256], `labels` [n, 6], `starts` [n, 6] of words and of the silence behind.

    Starts are in frames; rows of fewer words are padded with -1.
    """

    features: np.ndarray
    labels: np.ndarray
    starts: np.ndarray


class Speech:
    """espeak-ng within this process: a process a sentence would take ten times as long."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        if self.rate <= 0:
            raise SystemExit("espeak-ng cannot be started; apt-get install espeak-ng")
        self.pieces: list[np.ndarray] = []
        self.starts: dict[int, int] = {}
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_short),
            ctypes.c_int,
            ctypes.POINTER(Event),
        )
        # The library keeps no reference to it.
        self.hearer = kind(self._heard)
        self.library.espeak_SetSynthCallback(self.hearer)

    def _heard(
        self,
        sound: "ctypes._Pointer[ctypes.c_short]",
        number: int,
        events: "ctypes._Pointer[Event]",
    ) -> int:
        if sound and number:
            self.pieces.append(np.ctypeslib.as_array(sound, (number,)).copy())
        told = takewhile(lambda event: event.kind != _LAST, events)
        for event in told:
            if event.kind == _WORD:
                # Some words are told twice.
                self.starts.setdefault(event.text_position, event.milliseconds)
        return 0

    def say(
        self, words: Sequence[str], voice: str, speed: int, pitch: int
    ) -> tuple[np.ndarray, list[int]]:
        """Sound at 16 kHz in [-1, 1], and where each word and the silence behind start, in samples.

        `speed` is in words a minute, `pitch` from 0 to 99.
        """
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak-ng has no voice {voice}; apt-get install espeak-ng-data")
        self.library.espeak_SetParameter(_SPEED, speed, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        text = " ".join(words).encode()
        self.pieces.clear()
        self.starts.clear()
        size = ctypes.c_size_t(len(text) + 1)
        self.library.espeak_Synth(text, size, 0, _CHARACTERS, 0, _UTF8, None, None)
        heard = np.concatenate(self.pieces).astype(np.float64) / 32768
        sound = np.interp(
            np.arange(0, len(heard) - 1, self.rate / RATE), np.arange(len(heard)), heard
        )
        sound = sound[: np.flatnonzero(np.abs(sound) > 0.01)[-1] + 1]
        # A voice that tells more starts names places within words too.
        at = [1 + sum(len(word) + 1 for word in words[:place]) for place in range(len(words))]
        return sound, [self.starts[place] * RATE // 1000 for place in at] + [len(sound)]


def with_noise(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White or brown noise, 5 to 30 dB below the speech."""
    noise = rng.normal(0, 1, len(clean))
    if rng.integers(0, 2):
        noise = np.cumsum(noise)
        # Without what changes within more than 50 ms.
        sums = np.cumsum(np.pad(noise, (400, 400), "edge"))
        noise = noise[: len(sums) - 800] - (sums[800:] - sums[:-800]) / 800
    power = np.mean(clean**2) / 10 ** (rng.uniform(5, 30) / 10)
    return clean + noise * np.sqrt(power / np.mean(noise**2))


@cache
def filters() -> np.ndarray:
    """Triangles on the mel scale from 60 to 7,600 Hz, [48, 257]."""
    ends = 2595 * np.log10(1 + np.array([60, 7600]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = (edges[at : at + MELS, None] for at in range(3))
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))


def features(sound: np.ndarray) -> np.ndarray:
    """Log-mel float32 [48, 256], the loudest 8 decades (as Whisper's), of mean 0 and variance 1."""
    padded = np.zeros(FRAMES * HOP + WINDOW)
    padded[: min(len(sound), FRAMES * HOP)] = sound[: FRAMES * HOP]
    at = np.arange(FRAMES)[:, None] * HOP + np.arange(WINDOW)
    power = np.abs(np.fft.rfft(padded[at] * np.hanning(WINDOW))) ** 2
    mel = np.log10(np.maximum(filters() @ power.T, 1e-10))
    return ((np.maximum(mel, mel.max() - 8) + 1.5) / 1.4).astype(np.float32)


def recordings(name: str, number: int, seed: int) -> Spoken:
    """Sentences of one to five words that fit into 4.1 s, by the speakers of `name`."""
    rng = np.random.default_rng([seed, list(SPEAKERS).index(name)])
    speech, window = Speech(), FRAMES * HOP
    found: list[tuple[np.ndarray, list[int], list[int]]] = []
    while len(found) < number:
        words = rng.integers(0, len(WORDS), rng.integers(1, MOST_WORDS + 1)).tolist()
        voice = f"{rng.choice(ACCENTS)}+{SPEAKERS[name][len(found) % len(SPEAKERS[name])]}"
        speed, pitch = (int(rng.integers(*ends)) for ends in ((150, 211), (30, 71)))
        sound, starts = speech.say([WORDS[word] for word in words], voice, speed, pitch)
        if len(sound) > window:
            continue
        whole = np.zeros(window)
        first = int(rng.integers(0, window - len(sound) + 1))
        whole[first : first + len(sound)] = sound
        frames = [(first + start) // HOP for start in starts]
        label = [word + FIRST_WORD for word in words] + [END]
        found.append((features(with_noise(whole, rng)), label, frames))
    made, labels, starts_of = zip(*found, strict=True)
    return Spoken(np.stack(made), padded(labels), padded(starts_of))


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Int64 [n, 6], rows filled up with -1."""
    return np.array([[*row, *[PADDING] * (MOST_WORDS + 1 - len(row))] for row in rows], np.int64)


def words_at(spoken: Spoken, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each `stride` frames the word's token, and which word of the sentence it is; 0: none."""
    shape = (len(spoken.labels), FRAMES // stride)
    tokens, places = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, (label, starts) in enumerate(zip(spoken.labels, spoken.starts, strict=True)):
        ends = starts[starts >= 0] // stride
        for place, (first, last) in enumerate(pairwise(ends)):
            tokens[row, first:last], places[row, first:last] = label[place], place + 1
    return tokens, places
