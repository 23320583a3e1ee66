"""Spoken numbers and months by espeak-ng, with noise, as log-mel features with their words."""

import ctypes
from collections.abc import Sequence

import numpy as np

Pieces = "ctypes._Pointer[ctypes.c_short]"

# fmt: off
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "january",
    "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)
# fmt: on
START, END, PADDING = 0, 1, -1
VOCABULARY, MOST_WORDS = len(WORDS) + 2, 5
RATE, HOP, WINDOW, MELS, FRAMES = 16000, 256, 512, 48, 256
# speak_lib.h
_SYNCHRONOUS, _SPEED, _PITCH, _CHARACTERS, _UTF8 = 2, 1, 3, 1, 1
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
SPEAKERS = {
    "training": ("m1", "m2", "m3", "m4", "f1", "f2", "Andy", "Annie", "Gene", "steph"),
    "calibration": ("m5", "linda"),
    "evaluation": ("m7", "f3", "Lee"),
    "fresh": ("m8", "f4", "Michael", "belinda"),
}
HELD_OUT = {"calibration": 96, "evaluation": 256, "fresh": 512}


class Speech:
    """espeak-ng within this process: a process a sentence would take ten times as long."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        if self.rate <= 0:
            raise SystemExit("espeak-ng cannot be started; apt-get install espeak-ng")
        self.pieces: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        # The library keeps no reference to it.
        self.hearer = kind(self._heard)
        self.library.espeak_SetSynthCallback(self.hearer)

    def _heard(self, sound: Pieces, number: int, _events: int) -> int:
        if sound and number:
            self.pieces.append(np.ctypeslib.as_array(sound, (number,)).copy())
        return 0

    def say(self, words: Sequence[str], voice: str, speed: int, pitch: int) -> np.ndarray:
        """At 16 kHz, float64 in [-1, 1]; words a minute, pitch of 0 to 99."""
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise SystemExit(f"espeak-ng has no voice {voice}; apt-get install espeak-ng-data")
        self.library.espeak_SetParameter(_SPEED, speed, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)
        text = " ".join(words).encode()
        self.pieces.clear()
        size = ctypes.c_size_t(len(text) + 1)
        self.library.espeak_Synth(text, size, 0, _CHARACTERS, 0, _UTF8, None, None)
        heard = np.concatenate(self.pieces).astype(np.float64) / 32768
        return np.interp(
            np.arange(0, len(heard) - 1, self.rate / RATE), np.arange(len(heard)), heard
        )


def with_noise(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White or brown noise, 5 to 30 dB below the speech."""
    noise = rng.normal(0, 1, len(clean))
    if rng.integers(0, 2):
        noise = np.cumsum(noise)
        noise -= np.convolve(noise, np.full(800, 1 / 800), "same")
    power = np.mean(clean**2) / 10 ** (rng.uniform(5, 30) / 10)
    return clean + noise * np.sqrt(power / np.mean(noise**2))


def filters() -> np.ndarray:
    """Triangles on the mel scale from 60 to 7,600 Hz, [48, 257]."""
    ends = 2595 * np.log10(1 + np.array([60, 7600]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = (edges[at : at + MELS, None] for at in range(3))
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))


def features(sound: np.ndarray) -> np.ndarray:
    """Log-mel float32 [48, 256], the loudest 8 decades, about -1 to 1 (as Whisper's)."""
    padded = np.zeros(FRAMES * HOP + WINDOW)
    padded[: min(len(sound), FRAMES * HOP)] = sound[: FRAMES * HOP]
    at = np.arange(FRAMES)[:, None] * HOP + np.arange(WINDOW)
    power = np.abs(np.fft.rfft(padded[at] * np.hanning(WINDOW))) ** 2
    mel = np.log10(np.maximum(filters() @ power.T, 1e-10))
    return ((np.maximum(mel, mel.max() - 8) + 4) / 4).astype(np.float32)


def recordings(name: str, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 48, 256] and labels [n, 6] of sentences that fit into 4.1 s."""
    rng = np.random.default_rng([seed, list(SPEAKERS).index(name)])
    speakers = SPEAKERS[name]
    asked = [
        (
            [WORDS[at] for at in rng.integers(0, len(WORDS), rng.integers(1, MOST_WORDS + 1))],
            f"{rng.choice(ACCENTS)}+{speakers[n % len(speakers)]}",
            int(rng.integers(150, 211)),
            int(rng.integers(30, 71)),
        )
        for n in range(number + number // 4)
    ]
    speech = Speech()
    sounds = [speech.say(*one) for one in asked]
    found, labels = [], []
    for (words, *_), sound in zip(asked, sounds, strict=True):
        if len(sound) > FRAMES * HOP or len(found) == number:
            continue
        whole = np.zeros(FRAMES * HOP)
        start = int(rng.integers(0, FRAMES * HOP - len(sound) + 1))
        whole[start : start + len(sound)] = sound
        found.append(features(with_noise(whole, rng)))
        label = [WORDS.index(word) + 2 for word in words] + [END]
        labels.append(label + [PADDING] * (MOST_WORDS + 1 - len(label)))
    if len(found) < number:
        raise SystemExit(f"{name}: {len(found)} sentences fit into the window, {number} are needed")
    return np.stack(found), np.array(labels, np.int64)
