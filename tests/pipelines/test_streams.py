"""A part that carries states is run over a whole recording, piece by piece, and judged on all."""

import math
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from streams import (
    BEFORE,
    NEW,
    PIECE,
    STATE,
    STREAM,
    by_hand,
    recordings,
    states_by_hand,
    write_recurrent,
)

from onnxpress import Budget
from onnxpress.data import Samples
from onnxpress.errors import DataError, ModelError, RecipeError
from onnxpress.pipelines import Piece, Running, optimize_pipeline, read_folder, wired
from onnxpress.pipelines.judging import figures_of
from onnxpress.pipelines.recording import forced, recorded
from onnxpress.pipelines.result import RECIPE
from onnxpress.pipelines.stream import Stream, cut
from onnxpress.runtime import Array, Feed, Session

ONE = np.array(1, np.float32)
STEPS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stream")
    write_recurrent(made / "net.onnx")
    (made / "pipeline.toml").write_text(STREAM)
    return made


def running(folder: Path) -> Running:
    pipeline = read_folder(folder)
    sessions = {part.name: Session(part.model, threads=1) for part in pipeline.parts}
    return Running(wired(pipeline, sessions), sessions)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_answers_are_those_of_the_network_by_hand(folder: Path, batch: int, gain: float) -> None:
    (sound,) = recordings(1, batch=batch)
    found = running(folder).run({"x": sound, "gain": np.array(gain, np.float32)})
    assert list(found) == ["y"]
    wanted = by_hand(sound, gain)
    assert wanted.shape == (batch, STEPS)
    assert np.allclose(found["y"].reshape(STEPS, batch).T, wanted, atol=1e-5)


def test_what_is_carried_changes_the_answers(folder: Path) -> None:
    # Else a state that is forgotten would not be seen.
    (sound,) = recordings(1)
    assert np.abs(by_hand(sound, 1.0) - by_hand(sound, 0.0)).max() > 0.1


def test_steps_are_put_together_along_the_axis_that_is_named(folder: Path) -> None:
    pipeline = read_folder(folder)
    (part,) = pipeline.parts
    assert part.stream is not None
    other = replace(part, stream=replace(part.stream, joined=1))
    sessions = {"net": Session(part.model, threads=1)}
    found = Running(wired(replace(pipeline, parts=(other,)), sessions), sessions)
    (sound,) = recordings(1, batch=2)
    assert np.allclose(found.run({"x": sound, "gain": ONE})["y"], by_hand(sound, 1.0), atol=1e-5)


def test_a_part_before_makes_the_recording_and_one_behind_reads_all_steps(tmp_path: Path) -> None:
    write_recurrent(tmp_path / "net.onnx", features=True)
    write_recurrent(tmp_path / "net2.onnx")
    joined = "[part.stream]\njoined = 1\n[part.stream.pieces.x]"
    first = STREAM.replace("[part.stream.pieces.x]", joined)
    wires = '"net2.onnx"\n[part.inputs]\nx = "net.features"'
    second = STREAM.replace('"net"', '"net2"').replace('"net.onnx"', wires)
    (tmp_path / "pipeline.toml").write_text(first + second)
    (sound,) = recordings(1)
    # The first gives 48 features at each of 20 steps, side by side.
    features = states_by_hand(sound, 1.0).reshape(1, STEPS * STATE)
    found = running(tmp_path).run({"x": sound, "gain": ONE})["y"]
    assert np.allclose(found[:, 0], by_hand(features, 1.0)[0], atol=1e-4)


def write_smoother(path: Path, given: str) -> None:
    """Twice the levels, of a shape such as `[steps]`."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        smoother (float{given} level) => (float{given} twice) {{ twice = Add (level, level) }}"""
    )
    onnx.save(model, path)


@pytest.mark.parametrize("joined", [0, -1])
def test_a_scalar_of_every_step_is_given_on_as_steps(tmp_path: Path, joined: int) -> None:
    write_recurrent(tmp_path / "net.onnx", level=True)
    write_smoother(tmp_path / "smoother.onnx", "[steps]")
    told = f"[part.stream]\njoined = {joined}\n[part.stream.pieces.x]"
    second = "[[part]]\nname = 'smoother'\nmodel = 'smoother.onnx'\n"
    text = STREAM.replace("[part.stream.pieces.x]", told) + second
    (tmp_path / "pipeline.toml").write_text(text)
    (sound,) = recordings(1, batch=3)
    found = running(tmp_path).run({"x": sound, "gain": ONE})["twice"]
    assert np.allclose(found, 2 * by_hand(sound, 1.0).mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("given", ["", "[steps, 4]"])
def test_a_scalar_of_every_step_does_not_fit_another_rank(tmp_path: Path, given: str) -> None:
    write_recurrent(tmp_path / "net.onnx", level=True)
    write_smoother(tmp_path / "smoother.onnx", given)
    second = "[[part]]\nname = 'smoother'\nmodel = 'smoother.onnx'\n"
    (tmp_path / "pipeline.toml").write_text(STREAM + second)
    with pytest.raises(ModelError, match=r"is given net\.level: float32\[\?\].*N003"):
        running(tmp_path)


@pytest.mark.parametrize("side", ["net", "smoother"])
def test_an_unknown_rank_fits_whatever_it_is(tmp_path: Path, side: str) -> None:
    write_recurrent(tmp_path / "net.onnx")
    write_smoother(tmp_path / "smoother.onnx", "[steps, 1]")
    model = onnx.load(tmp_path / f"{side}.onnx")
    if side == "net":
        # A shape whose length onnxruntime does not find by itself.
        graph = onnx.parser.parse_graph(
            """shaped (float[n, 1] y) => (float[n, 1] level) <int64[2] to = {-1, 1}> {
                all = Cast <to = 9> (to) some = Compress (to, all) level = Reshape (y, some) }"""
        )
        model.graph.node.extend(graph.node)
        model.graph.initializer.extend(graph.initializer)
        model.graph.output[0].name = "level"
    ends = model.graph.output if side == "net" else model.graph.input
    ends[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / f"{side}.onnx")
    wire = "[part.inputs]\nlevel = 'net.{}'\n".format("level" if side == "net" else "y")
    second = "[[part]]\nname = 'smoother'\nmodel = 'smoother.onnx'\n"
    (tmp_path / "pipeline.toml").write_text(STREAM + second + wire)
    made = running(tmp_path)
    specs = made.sessions[side].outputs if side == "net" else made.sessions[side].inputs
    assert specs[0].shape == ()
    (sound,) = recordings(1)
    assert made.run({"x": sound, "gain": ONE})["twice"].shape == (STEPS, 1)


def test_what_is_written_reads_the_same(folder: Path, tmp_path: Path) -> None:
    pipeline = read_folder(folder)
    (part,) = pipeline.parts
    assert part.stream is not None
    assert part.stream.pieces == {"x": Piece(NEW, BEFORE)}
    write_recurrent(tmp_path / "net.onnx")
    full = replace(part, stream=replace(part.stream, joined=1, pieces={"x": Piece(NEW, BEFORE, 1)}))
    (tmp_path / "pipeline.toml").write_text(replace(pipeline, parts=(full,)).to_toml())
    assert read_folder(tmp_path).parts[0].stream == full.stream


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("pieces.x", "pieces.y", ModelError, r"no input 'y' \(the model has x, state"),
        ('"next"', '"nxt"', ModelError, "no output 'nxt'; did you mean 'next'"),
        ('"next"', '"y"', ModelError, r"state 'state' expects state: float32\[1, batch, 48\]"),
        ("state = ", "stat = ", ModelError, "state 'stat' is no input; did you mean 'state'"),
        ("before = 8", "before = 7", ModelError, "takes pieces of 32, and length and before are"),
        ("before = 8", "before = -8", RecipeError, "before -8; expected 1 or more, 0 or more"),
        ("before = 8", "before = 8\naxis = 2", ModelError, "along axis 2; expected one from -2"),
        ("before = 8", "behind = 8", RecipeError, "unknown entry 'behind'.*length, before, axis"),
        ("length = 24", "", RecipeError, "length"),
        ("[part.stream.pieces.x]", "[part.stream.pieces.state]", ModelError, "is a state and"),
        (
            "[part.stream.pieces.x]",
            "[part.stream]\njoined = 2\n[part.stream.pieces.x]",
            ModelError,
            r"joined is 2, and no output has such an axis \(y: .*\); expected one from -2 to 1 ",
        ),
        (
            "[part.stream.states]",
            "[part.loop]\ntokens = 'x'\n[part.stream.states]",
            RecipeError,
            "has a loop or a stream, not both",
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_is_right(
    tmp_path: Path, old: str, new: str, error: type[Exception], said: str
) -> None:
    write_recurrent(tmp_path / "net.onnx")
    (tmp_path / "pipeline.toml").write_text(STREAM.replace(old, new))
    with pytest.raises(error) as raised:
        running(tmp_path)
    assert re.search(said, str(raised.value))


def test_quarters_are_those_of_the_steps_where_they_lie_in_front(tmp_path: Path) -> None:
    """An output [batch] among others that are joined along axis 1 becomes [steps, batch]."""
    write_recurrent(tmp_path / "net.onnx", flat=True)
    joined = "[part.stream]\njoined = 1\n[part.stream.pieces.x]"
    (tmp_path / "pipeline.toml").write_text(STREAM.replace("[part.stream.pieces.x]", joined))
    original = running(tmp_path)
    feed = {"x": recordings(1, batch=8)[0], "gain": ONE}
    found = original.run(feed)
    assert {name: x.shape for name, x in found.items()} == {"y": (8, STEPS), "flat": (STEPS, 8)}
    assert original.step_axes == {"y": 1, "flat": 0}

    class Late(Running):
        """Answers of the last quarter are wrong."""

        def run(self, feed: Feed, /) -> dict[str, Array]:
            found = super().run(feed)
            shift = np.repeat([0.0, 1.0], [STEPS - STEPS // 4, STEPS // 4])
            return {"y": found["y"] + shift, "flat": found["flat"] + shift[:, np.newaxis]}

    late = Late(original.wiring, original.sessions)
    first, last, _ = figures_of(original, late, Samples((feed,), None, "one"))
    assert first.result == math.inf
    assert last.result < 0


def test_pieces_of_a_batch_are_not_all_in_memory_at_once() -> None:
    recording = np.zeros((2, 1_000_000), np.float32)
    stream = Stream({"x": Piece(1000)})
    tracemalloc.start()
    assert sum(piece["x"].shape == (2, 1000) for piece in cut(stream, {"x": recording}, "")) == 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two pieces of 8 kB, where all are 8 MB.
    assert peak < recording.nbytes / 10


def test_a_recording_shorter_than_a_piece_is_refused(folder: Path) -> None:
    sound = np.zeros((1, NEW - 1), np.float32)
    with pytest.raises(DataError, match=r"shorter than a piece: x of 23 \(a piece: 24\).*D003"):
        running(folder).run({"x": sound, "gain": ONE})


def test_a_state_of_unknown_shape_is_refused(folder: Path) -> None:
    found = running(folder)
    session = found.sessions["net"]
    session.inputs = tuple(
        replace(spec, shape=("a", "b", STATE)) if spec.name == "state" else spec
        for spec in session.inputs
    )
    with pytest.raises(ModelError, match=r"2 sizes are free; fix all but the batch.*N003"):
        found.run({"x": recordings(1)[0], "gain": ONE})


def test_a_part_looks_at_states_as_they_are_carried(folder: Path) -> None:
    made = running(folder)
    feeds = tuple({"x": x, "gain": ONE} for x in recordings(4))
    samples = forced(made, Samples(feeds, np.zeros(4, np.int64), "four"))
    assert samples.labels is None
    found = recorded(made.wiring, made.sessions, samples, "net", 40)
    assert found.groups is not None
    counts = np.bincount(found.groups)
    assert len(counts) == 4
    assert (counts >= 9).all()
    assert all(feed["x"].shape == (1, PIECE) for feed in found.feeds)
    # The first of a recording is a step in its middle, the second its beginning.
    assert np.abs(found.feeds[0]["state"]).max() > 0
    assert not found.feeds[1]["state"].any()


def test_a_stream_gets_smaller_within_its_budget_and_its_recipe_makes_the_same(
    folder: Path, tmp_path: Path
) -> None:
    calibration = {"x": recordings(40), "gain": np.ones(40, np.float32)}
    found = optimize_pipeline(
        folder,
        calibration=calibration,
        budget=Budget(min_sqnr=25.0),
        passes=["quantize"],
        threads=1,
    )
    assert found.within_budget, found.problems
    assert found.bytes < 0.6 * found.original_bytes
    # Pieces of a recording follow from each other: they are no samples of their own.
    assert [metric.samples for metric in found.measurement.metrics] == [10]
    names = [figure.name for figure in found.figures]
    assert names[:2] == [f"dB in the {w} quarter of recordings" for w in ("first", "last")]
    assert all(figure.result > 20 for figure in found.figures[:2])
    written = {path.name: path for path in found.save(tmp_path)}
    again = optimize_pipeline(folder, calibration=calibration, recipe=written[RECIPE], threads=1)
    assert [path.read_bytes() for path in again.save(tmp_path / "again")] == [
        path.read_bytes() for path in written.values()
    ]
    # On recordings that nobody has looked at, by the folder that was written.
    power = noise = 0.0
    for sound in recordings(20, seed=77):
        wanted = by_hand(sound, 1.0)[0]
        given = running(tmp_path).run({"x": sound, "gain": ONE})["y"][:, 0]
        power += float(((wanted - wanted.mean()) ** 2).sum())
        noise += float(((wanted - given) ** 2).sum())
    assert 10 * np.log10(power / noise) > 20


@pytest.mark.public
def test_silero_is_run_as_its_package_runs_it(models: Path, tmp_path: Path) -> None:
    original = models / ".cache" / "silero_vad" / "model.onnx"
    if not original.exists():
        pytest.skip("run models/fetch.py first")
    text = (models / "vad_pipeline.toml").read_text()
    (tmp_path / "pipeline.toml").write_text(text.replace(".cache/silero_vad/", ""))
    (tmp_path / "model.onnx").symlink_to(original)
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, (1, 10 * 512 + 100)).astype(np.float32)
    rate = np.array(16000, np.int64)
    found = running(tmp_path).run({"input": sound, "sr": rate})["output"]
    session = ort.InferenceSession(original, providers=["CPUExecutionProvider"])
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    for step in range(10):
        new = sound[:, step * 512 : (step + 1) * 512]
        feed = {"input": np.concatenate([context, new], 1), "state": state, "sr": rate}
        answer, state = session.run(None, feed)
        context = new[:, -64:]
        assert np.allclose(found[step], answer[0], atol=1e-6)
