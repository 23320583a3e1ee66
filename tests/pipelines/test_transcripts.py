"""What a pipeline generates is held against labels: error rates, their bound, and the budget."""

from pathlib import Path

import numpy as np
import pytest
from command_line import message, run
from decoders import BANDS, VOCABULARY, write_recognizer

from onnxpress import Budget
from onnxpress.data import Samples, load_samples
from onnxpress.errors import DataError, ModelError
from onnxpress.pipelines import Running, optimize_pipeline, read_folder, wired
from onnxpress.pipelines.result import RECIPE
from onnxpress.pipelines.transcripts import Transcripts, transcripts_of
from onnxpress.runtime import Session

STEPS = 8


def opened(folder: Path) -> Running:
    pipeline = read_folder(folder)
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return Running(wired(pipeline, sessions), sessions)


def heard(number: int, seed: int = 0) -> np.ndarray:
    """Features [number, 8, 20]."""
    return np.random.default_rng(seed).normal(0, 1, (number, BANDS, 20)).astype(np.float32)


def labelled(running: Running, number: int, seed: int, *, wrong: int = 0) -> dict[str, np.ndarray]:
    """Recordings with what the original generates, filled up with -1; some with another token."""
    features = heard(number, seed)
    labels = np.full((number, STEPS + 2), -1, np.int64)
    for place, row in enumerate(features):
        tokens = running.tokens({"features": row[None]})[0]
        labels[place, : len(tokens)] = tokens
        if place < wrong:
            labels[place, 0] = 2 + (labels[place, 0] - 1) % (VOCABULARY - 2)
    return {"features": features, "__labels__": labels}


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recognizer(tmp_path_factory.mktemp("recognizer"))


@pytest.fixture(scope="module")
def running(recognizer: Path) -> Running:
    return opened(recognizer)


def transcripts(running: Running, data: dict[str, np.ndarray]) -> Transcripts:
    found = transcripts_of(running, load_samples(data, running.wiring.inputs))
    assert found is not None
    return found


def test_recordings_are_heard_into_different_texts(running: Running) -> None:
    texts = {tuple(running.tokens({"features": row[None]})[0]) for row in heard(20)}
    assert len(texts) > 5


def test_what_the_labels_say_is_without_errors(running: Running) -> None:
    found = transcripts(running, labelled(running, 6, 1))
    assert found.original.tolist() == [0] * 6


def test_each_other_token_is_an_error(running: Running) -> None:
    found = transcripts(running, labelled(running, 6, 1, wrong=2))
    assert found.original.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.rate(found.original) == pytest.approx(100 * 2 / found.number)


def test_texts_end_with_the_end_or_a_negative_number(running: Running) -> None:
    features = heard(3, 2)
    labels = np.array([[5, 6, 1, 7], [5, 6, -100, 7], [5, 6, 7, 8]])
    found = transcripts(running, {"features": features, "__labels__": labels})
    assert found.right == ((5, 6), (5, 6), (5, 6, 7, 8))


def test_one_token_a_sample_is_a_text_of_one(running: Running) -> None:
    found = transcripts(running, {"features": heard(3), "__labels__": np.array([5, 6, 7])})
    assert found.right == ((5,), (6,), (7,))


def test_labels_without_a_token_are_refused(running: Running) -> None:
    data = {"features": heard(3), "__labels__": np.full((3, 4), -1)}
    with pytest.raises(DataError, match=r"no token in front of the end \(1\).*D006"):
        transcripts(running, data)


def test_labels_of_batches_are_refused(running: Running) -> None:
    samples = Samples(({"features": heard(2)},), np.array([[5, 6]]), "two at once")
    with pytest.raises(DataError, match=r"makes 2 texts at once.*D006"):
        transcripts_of(running, samples)


def test_without_labels_nothing_is_said(running: Running) -> None:
    samples = load_samples({"features": heard(3)}, running.wiring.inputs)
    assert transcripts_of(running, samples) is None


def test_the_bound_lies_above_the_rise_and_shrinks_with_samples() -> None:
    rises, bounds = [], []
    for number in (40, 400):
        original = np.zeros(number, np.int64)
        wrong = (np.arange(number) % 20 == 0).astype(np.int64)
        found = Transcripts((), ((2, 3, 4, 5),) * number, (1,), original)
        rises.append(found.rise(wrong))
        bounds.append(found.most(wrong, 0.95))
    assert rises == pytest.approx([1.25, 1.25])
    assert 1.25 < bounds[1] < bounds[0] < 5


def test_a_few_errors_less_prove_nothing_of_other_samples() -> None:
    original = (np.arange(192) < 5).astype(np.int64)
    found = Transcripts((), ((2, 3, 4),) * 192, (1,), original)
    wrong = np.zeros(192, np.int64)
    assert found.rise(wrong) < 0
    assert found.most(wrong, 0.95) == 0


def test_without_an_error_more_the_bound_is_that_of_none_in_so_many() -> None:
    found = Transcripts((), ((2, 3),) * 300, (1,), np.zeros(300, np.int64))
    assert found.most(np.zeros(300, np.int64), 0.95) == pytest.approx(1.0, abs=0.01)


def test_a_recognizer_gets_smaller_and_is_judged_by_its_transcripts(
    recognizer: Path, running: Running, tmp_path: Path
) -> None:
    calibration, evaluation = (labelled(running, 40, seed, wrong=40) for seed in (3, 4))
    found = optimize_pipeline(
        recognizer,
        calibration=calibration,
        evaluation=evaluation,
        budget=Budget(max_drop=30.0),
        passes=["quantize"],
        threads=1,
    )
    assert found.within_budget, found.problems
    assert found.bytes < 0.6 * found.original_bytes
    figures = {figure.name: figure for figure in found.figures}
    errors = figures["wrong tokens by the labels, %"]
    assert errors.original > 0
    assert errors.result <= errors.original + 30
    most = figures["points more at most, with 95%"].result
    assert most >= errors.result - errors.original
    written = {path.name: path for path in found.save(tmp_path / "one")}
    again = optimize_pipeline(
        recognizer,
        calibration=calibration,
        evaluation=evaluation,
        budget=Budget(max_drop=30.0),
        recipe=written[RECIPE],
        threads=1,
    )
    for path in again.save(tmp_path / "again"):
        assert path.read_bytes() == written[path.name].read_bytes(), path.name


def test_too_many_wrong_tokens_break_the_budget(
    recognizer: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Transcripts, "wrong", lambda self, _: self.original + np.array([len(r) for r in self.right])
    )
    data = labelled(running, 16, 5)
    found = optimize_pipeline(recognizer, calibration=data, passes=["quantize"], threads=1)
    assert not found.within_budget
    assert "100.00% of tokens are wrong by the labels, of the original 0.00%" in found.problems[-1]
    # Nothing that is tried keeps to the budget, so that every part is as it was.
    assert all(part.result is None for part in found.parts)


def test_one_wrong_token_more_is_allowed_to_each_part(
    recognizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_more(self: Transcripts, _: Running) -> np.ndarray:
        return np.asarray(self.original + (np.arange(len(self.right)) == 0))

    # By 12 samples of one token each: 0.7 of the budget, more than the share of either part.
    data = {"features": heard(48), "__labels__": np.full(48, 5)}
    budget = Budget(max_drop=100 / 12 / 0.7)
    monkeypatch.setattr(Transcripts, "wrong", one_more)
    found = optimize_pipeline(
        recognizer, calibration=data, budget=budget, passes=["quantize"], threads=1
    )
    assert all(part.result is not None for part in found.parts), found.warnings


def test_a_cross_cache_of_the_same_name_is_taken_from_the_encoder(
    running: Running, tmp_path: Path
) -> None:
    same = opened(write_recognizer(tmp_path, names="past_key_values.0.encoder"))
    feed = {"features": heard(1)}
    assert np.array_equal(same.tokens(feed), running.tokens(feed))


def test_a_cross_cache_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"past_key_values\.0\.encoder\.key.*N003"):
        opened(write_recognizer(tmp_path, heads=4))


def test_parts_that_are_swapped_are_refused(recognizer: Path, tmp_path: Path) -> None:
    text = recognizer.read_text()
    for name in ("encoder", "decoder"):
        other = {"encoder": "decoder", "decoder": "encoder"}[name]
        (tmp_path / f"{name}.onnx").symlink_to(recognizer.parent / f"{other}.onnx")
    (tmp_path / "pipeline.toml").write_text(text)
    with pytest.raises(ModelError, match=r"N00\d"):
        opened(tmp_path)


def test_a_missing_part_is_named(recognizer: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(recognizer.read_text())
    (tmp_path / "encoder.onnx").symlink_to(recognizer.parent / "encoder.onnx")
    np.savez(tmp_path / "c.npz", features=heard(8))
    done = run("optimize", tmp_path / "pipeline.toml", "--calibration", tmp_path / "c.npz")
    assert done.exit_code == 2
    assert "part decoder is missing" in message(done)


@pytest.mark.public
def test_the_trained_recognizer_reads_what_was_spoken(models: Path) -> None:
    folder = models / ".cache" / "speech"
    if not (folder / "decoder.onnx").exists():
        pytest.skip("run models/train_speech.py first")
    running = opened(models / "speech_pipeline.toml")
    samples = load_samples(folder / "fresh.npz", running.wiring.inputs).take(range(64))
    found = transcripts_of(running, samples)
    assert found is not None
    # Of 42 tokens, drawn evenly, a guess is wrong at 97%.
    assert found.rate(found.original) < 50
