"""`onnxpress distill`: what is written, what is said, and the exit status."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from command_line import message, run
from students import coarse, pruned, saved

from onnxpress import model_file
from onnxpress.conversion import fix_shapes
from onnxpress.layers import find_layers
from onnxpress.own_files import STAMP
from onnxpress.runtime import Session

STEPS = ("--steps", 60, "--learning-rate", 0.02)
INTERRUPTED = """
import os, signal, sys
# As a terminal starts a process; background jobs of a shell ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnxpress.cli import main
from onnxpress.distillation import training

usual, steps = training._Run.step, 0

def interrupted(*arguments):
    global steps
    steps += 1
    if steps == 30:
        os.kill(os.getpid(), signal.SIGINT)
    usual(*arguments)

training._Run.step = interrupted
main()
"""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(pruned("fashion_mlp", 0.8), tmp_path_factory.mktemp("student") / "student.onnx")


@pytest.fixture
def arguments(models: Path, student: Path, tmp_path: Path) -> list[object]:
    """Of a run that gets better in a second."""
    evaluation = tmp_path / "evaluation.npz"
    with np.load(models / "fashion_evaluation.npz") as archive:
        np.savez(evaluation, **{name: archive[name][:300] for name in archive.files})
    return [
        *("distill", "--teacher", models / "fashion_mlp.onnx", "--student", student),
        *("--calibration", models / "fashion_calibration.npz", "--evaluation", evaluation),
        *("-o", tmp_path / "out.onnx", *STEPS),
    ]


def test_pruned_student_comes_nearer_and_keeps_its_zeros(
    arguments: list[object], student: Path, tmp_path: Path
) -> None:
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0
    document = json.loads(result.output)
    assert document["better"]
    assert document["after"]["worst_sqnr_db"] > document["before"]["worst_sqnr_db"] + 3
    assert document["training"]["loss_best"] < document["training"]["loss_before"] / 4
    before, after = (find_layers(model_file.load(f)) for f in (student, tmp_path / "out.onnx"))
    for was, now in zip(before, after, strict=True):
        assert not now.array[was.array == 0].any(), was.name
        assert (now.array != was.array).any(), was.name


def test_integers_of_few_levels_come_nearer_and_stay_integers(
    arguments: list[object], tmp_path: Path
) -> None:
    arguments[4] = saved(coarse("fashion_mlp", 7), tmp_path / "coarse.onnx")
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["after"]["worst_sqnr_db"] > document["before"]["worst_sqnr_db"] + 2
    assert document["warnings"][0].startswith("gradients go straight through rounding")
    assert document["gradients"] == []
    was, now = (
        model_file.load(tmp_path / name).graph.initializers for name in ("coarse.onnx", "out.onnx")
    )
    changed = [name for name in was if name.endswith("_int8")]
    assert changed
    for name in changed:
        before, after = was[name].const_value, now[name].const_value
        assert before is not None
        assert after is not None
        assert after.dtype == ir.DataType.INT8
        assert (after.numpy() != before.numpy()).any(), name


def test_interface_and_file_size_stay(
    arguments: list[object], student: Path, tmp_path: Path
) -> None:
    run(*arguments)
    was, now = Session(student), Session(tmp_path / "out.onnx")
    assert (was.inputs, was.output_names) == (now.inputs, now.output_names)
    # What says that we wrote it, and nothing else.
    stamp = 40
    assert (tmp_path / "out.onnx").stat().st_size <= student.stat().st_size + stamp


def test_same_seed_gives_the_same_bytes_and_another_seed_others(
    arguments: list[object], tmp_path: Path
) -> None:
    contents = []
    for seed in (0, 0, 1):
        run(*arguments, "--seed", seed, "--threads", 1)
        contents.append((tmp_path / "out.onnx").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_figures_are_printed_within_80_columns(arguments: list[object]) -> None:
    text = message(run(*arguments))
    assert "accuracy %" in text
    assert "followed logits: KL divergence of classes" in text
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("wrote"))


def test_student_that_is_no_worse_than_its_teacher_is_written_as_it_was(
    arguments: list[object], models: Path, tmp_path: Path
) -> None:
    arguments[4] = models / "fashion_mlp.onnx"
    result = run(*arguments)
    assert result.exit_code == 1
    assert "the student is written as it was" in " ".join(message(result).split())
    given, written = (
        model_file.load(f) for f in (models / "fashion_mlp.onnx", tmp_path / "out.onnx")
    )
    assert written.metadata_props.pop(STAMP)
    assert model_file.to_bytes(given) == model_file.to_bytes(written)


def test_budget_that_was_asked_for_and_is_not_met_is_status_1(arguments: list[object]) -> None:
    assert run(*arguments, "--min-sqnr", 60).exit_code == 1


def test_time_limit_ends_the_steps(arguments: list[object]) -> None:
    result = run(*arguments, "--steps", 100_000, "--time-limit", 1, "--json", "-")
    assert json.loads(result.output)["training"]["ended"] == "the time was up"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"--teacher": "fashion_absent.onnx"}, "there is no such file"),
        ({"--student": "renamed.onnx"}, "does not match its teacher"),
        ({"--student": "classes.onnx"}, "same classes"),
        ({"--calibration": "few.npz"}, "expected at least 8"),
        ({"-o": "student.onnx", "--student": "student.onnx"}, "is the input itself"),
        ({"--json": "out.onnx"}, "--json would overwrite"),
        ({"--temperature": "0"}, "is not in the range"),
    ],
)
def test_bad_input_is_status_2_and_says_what(
    arguments: list[object], tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    saved(pruned("fashion_mlp", 0.5), tmp_path / "student.onnx")
    saved(_renamed(pruned("fashion_mlp", 0.5)), tmp_path / "renamed.onnx")
    saved(_fewer_classes(pruned("fashion_mlp", 0.5)), tmp_path / "classes.onnx")
    np.savez(tmp_path / "few.npz", image=np.zeros((3, 1, 28, 28), np.float32))
    options = [*arguments, "--json", tmp_path / "found.json"]
    for name, value in change.items():
        options[options.index(name) + 1 if name in options else len(options) :] = (
            [tmp_path / value, *options[options.index(name) + 2 :]]
            if name in options
            else [name, value]
        )
    result = run(*options)
    assert result.exit_code == 2, message(result)
    assert reason in " ".join(message(result).split())
    assert not (tmp_path / "found.json").exists()


def test_interrupted_training_goes_on_from_its_state_to_the_same_bytes(
    arguments: list[object], tmp_path: Path
) -> None:
    options = [*arguments, "--threads", 1]
    assert run(*options).exit_code == 0
    whole = (tmp_path / "out.onnx").read_bytes()
    state = tmp_path / "training.state"
    words = [str(word) for word in [*options, "--state", state]]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert (tmp_path / "out.onnx").read_bytes() != whole
    result = run(*words, "--json", "-")
    assert json.loads(result.output)["training"]["steps"] == 60
    assert (tmp_path / "out.onnx").read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        (b"notes of mine", (), "is no state that onnxpress distill has written"),
        (None, ("--seed", 5), "is the state of another training"),
    ],
)
def test_state_that_is_wrong_is_status_2_and_stays(
    arguments: list[object],
    tmp_path: Path,
    content: bytes | None,
    more: tuple[object, ...],
    reason: str,
) -> None:
    state = tmp_path / "training.state"
    if content is None:
        run(*arguments, "--steps", 5, "--state", state)
    else:
        state.write_bytes(content)
    before = state.read_bytes()
    result = run(*arguments, "--steps", 5, "--state", state, *more)
    assert result.exit_code == 2, message(result)
    assert reason in " ".join(message(result).split())
    assert state.read_bytes() == before


def test_weights_drawn_anew_follow_the_teacher_and_the_seed(
    arguments: list[object], models: Path, tmp_path: Path
) -> None:
    found = []
    arguments[4] = models / "fashion_mlp.onnx"
    for seed in (1, 1, 2):
        result = run(*arguments, "--initialize", "--seed", seed, "--threads", 1, "--json", "-")
        document = json.loads(result.output)
        assert document["before"]["metrics"][0]["value"] < 50
        assert document["after"]["metrics"][0]["value"] > 60
        found.append((tmp_path / "out.onnx").read_bytes())
    assert found[0] == found[1] != found[2]


def _renamed(model: ir.Model) -> ir.Model:
    model.graph.outputs[0].name = "scores"
    return model


def _fewer_classes(model: ir.Model) -> ir.Model:
    """With 9 classes, and outputs of no declared size."""
    for value in model.graph.initializers.values():
        array = value.const_value.numpy() if value.const_value is not None else None
        if array is not None and array.shape[0] == 10:
            value.const_value = ir.Tensor(np.ascontiguousarray(array[:9]), name=value.name)
            value.shape = ir.Shape(array[:9].shape)
    model.graph.outputs[0].shape = ir.Shape(["batch", "classes"])
    return model


def test_ctrl_c_writes_the_best_so_far_with_status_130(
    arguments: list[object], tmp_path: Path
) -> None:
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, arguments), "--json", str(found)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "the best so far is judged and written" in done.stderr
    training = json.loads(found.read_text())["training"]
    assert (training["steps"], training["ended"]) == (30, "it was stopped")
    assert training["loss_best"] < training["loss_before"]
    assert Session(tmp_path / "out.onnx").output_names == ("logits",)


def test_without_calibration_it_says_what_is_missing(arguments: list[object]) -> None:
    place = arguments.index("--calibration")
    result = run(*arguments[:place], *arguments[place + 2 :])
    assert result.exit_code == 2
    assert "give --calibration DATA" in message(result)


def test_weights_before_an_operator_without_a_rule_are_named_with_it(
    models: Path, tmp_path: Path
) -> None:
    student = pruned("fashion_mlp", 0.8)
    node = next(node for node in student.graph if node.op_type == "Gemm")
    hidden = node.outputs[0]
    hardmax = ir.Node("", "Mod", [hidden, _initializer(student)], [ir.AttrInt64("fmod", 1)])
    hardmax.outputs[0].name = "wrapped"
    hidden.replace_all_uses_with(hardmax.outputs[0])
    hardmax.replace_input_with(0, hidden)
    student.graph.insert_after(node, hardmax)
    result = run(
        *("distill", "--teacher", models / "fashion_mlp.onnx", "--student"),
        saved(student, tmp_path / "student.onnx"),
        *("--calibration", models / "fashion_calibration.npz", "-o", tmp_path / "out.onnx"),
        *(*STEPS, "--json", "-"),
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert list(document["missing"].values()) == ["its operator has no rule"]
    assert set(document["left"]) == {"fc1.weight", "fc1.bias"}
    assert "fc2.weight" in document["trained"]


def _initializer(model: ir.Model) -> ir.Value:
    value = ir.Value(
        name="many",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([]),
        const_value=ir.Tensor(np.asarray(1e6, np.float32), name="many"),
    )
    model.graph.register_initializer(value)
    return value


def test_models_of_a_fixed_batch_are_trained_sample_by_sample(
    arguments: list[object], models: Path, tmp_path: Path
) -> None:
    teacher = model_file.load(models / "fashion_mlp.onnx")
    student = pruned("fashion_mlp", 0.8)
    for model, place, name in ((teacher, 2, "teacher"), (student, 4, "student")):
        fixed = fix_shapes(model, ["image=1x1x28x28"])
        arguments[place] = saved(fixed, tmp_path / f"{name}.onnx")
    result = run(*arguments, "--steps", 10, "--json", "-")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["training"]["loss_best"] < document["training"]["loss_before"]
    assert Session(tmp_path / "out.onnx").inputs[0].shape == (1, 1, 28, 28)


def test_report_is_a_page_of_the_document(arguments: list[object], tmp_path: Path) -> None:
    page, document = tmp_path / "page.html", tmp_path / "found.json"
    result = run(*arguments, "--report", page, "--json", document)
    assert result.exit_code == 0, result.output
    assert "page.html" in message(result)
    text = page.read_text(encoding="utf-8")
    found = json.loads(document.read_text(encoding="utf-8"))
    assert '<p class="verdict good">Better: ' in text
    assert "Loss over 60 steps" in text
    assert found["trained"][0] in text
    assert found["student"].endswith("student.onnx")


def test_report_overwrites_no_other_file(arguments: list[object], tmp_path: Path) -> None:
    for place in (tmp_path / "out.onnx", tmp_path / "evaluation.npz"):
        result = run(*arguments, "--report", place)
        assert result.exit_code == 2
        assert message(result).startswith("error[O0")
    letter = tmp_path / "letter.html"
    letter.write_text("Dear reader")
    assert message(run(*arguments, "--report", letter)).startswith("error[O004]: ")
