"""Checks on execution providers: each answer is the right one of five, and in time."""

import ast
import json
import runpy
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command_line import run
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization import quantize_dynamic

from onnxpress import model_file
from onnxpress.data import Samples, load_samples
from onnxpress.judge import Budget, Evaluator
from onnxpress.providers import (
    ProviderOptions,
    ProviderVerdict,
    Status,
    check_providers,
)
from onnxpress.providers.prepare import multiply_adds, write_model
from onnxpress.runtime import Session, executed_operators

pytestmark = pytest.mark.usefixtures("no_configuration")
WORKER = Path(__file__).parents[2] / "onnxpress" / "providers" / "worker.py"


def interpreter(path: Path, body: str) -> Path:
    """A script that stands for a provider's interpreter; it is called with worker and job."""
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return path


# The real worker, on the CPU whatever the job says; `change` may then rewrite its report.
FALSE_PROVIDER = """
import json, pathlib, runpy, sys
job_path = pathlib.Path(sys.argv[2])
job = json.loads(job_path.read_text())
wanted = job["execution_provider"]
job.update(execution_provider="CPUExecutionProvider", plugin="", options={})
job_path.write_text(json.dumps(job))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
report_path = job_path.with_name("report.json")
report = json.loads(report_path.read_text())
CHANGE
report_path.write_text(json.dumps(report))
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ir.Model, Evaluator]:
    """x[batch, 8, 12, 12] → Conv → Relu → Conv → y, and an evaluator with 4 samples."""
    path = tmp_path / "convs.onnx"
    onnx.save(convolutions(), path)
    session = Session(path)
    rng = np.random.default_rng(1)
    samples = load_samples(
        {"x": rng.standard_normal((4, 8, 12, 12)).astype(np.float32)}, session.inputs
    )
    return model_file.load(path), Evaluator(session, samples, Budget())


def convolutions(groups: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (16, 8 // groups, 3, 3)), ("w2", (4, 16, 1, 1)))
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "w1"], ["a"], group=groups, strides=[3, 3], pads=[1, 1, 1, 1]),
        make("Relu", ["a"], ["b"], name="relu"),
        make("Conv", ["b", "w2"], ["y"], name="last"),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "convs",
        [value("x", onnx.TensorProto.FLOAT, ["batch", 8, 12, 12])],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 4, 4, 4])],
        weights,
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    )


def check(
    pair: tuple[ir.Model, Evaluator], *names: str, config: Path | None = None, limit: float = 60.0
) -> dict[str, ProviderVerdict]:
    model, evaluator = pair
    options = ProviderOptions(names, config=config, time_limit=limit)
    return {
        verdict.provider: verdict for verdict in check_providers(options, model, model, evaluator)
    }


def configured(path: Path, name: str, script: Path) -> Path:
    config = path / "ep.toml"
    config.write_text(f'[ep.{name}]\npython = "{script}"\n', encoding="utf-8")
    return config


def test_crash_hang_and_absence_are_verdicts_and_the_others_finish(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    crash = interpreter(tmp_path / "crash", "import os, signal\nos.kill(os.getpid(), 11)\n")
    hang = interpreter(tmp_path / "hang", "import time\ntime.sleep(600)\n")
    config = tmp_path / "ep.toml"
    config.write_text(
        f'[ep.openvino]\npython = "{crash}"\n[ep.qnn]\npython = "{hang}"\n'
        f'[ep.webgpu]\npython = "{tmp_path}/nowhere/python"\n',
        encoding="utf-8",
    )
    found = check(pair, "openvino", "qnn", "webgpu", "cpu", config=config, limit=8)
    assert found["openvino"].status is Status.FAILED
    assert "SIGSEGV" in found["openvino"].detail
    assert found["qnn"].status is Status.FAILED
    assert "no answer within 8 s" in found["qnn"].detail
    assert found["qnn"].seconds < 12
    assert found["webgpu"].status is Status.ABSENT
    assert "onnxpress doctor --install webgpu" in found["webgpu"].detail
    assert found["cpu"].status is Status.RAN


def _runs(state: Path) -> bool:
    try:
        return ") Z " not in state.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_left_by_a_worker_is_ended_with_it(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    note = tmp_path / "child"
    body = (
        "import pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))\ntime.sleep(600)\n"
    )
    config = configured(tmp_path, "openvino", interpreter(tmp_path / "parent", body))
    check(pair, "openvino", config=config, limit=3)
    state = Path(f"/proc/{note.read_text()}/stat")
    # A signal that is sent takes effect when the process is scheduled next.
    give_up = time.monotonic() + 30
    while _runs(state) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not _runs(state)


def test_an_interpreter_without_the_provider_is_absent_with_the_way_to_get_it(
    pair: tuple[ir.Model, Evaluator],
) -> None:
    verdict = check(pair, "qnn")["qnn"]
    assert verdict.status is Status.ABSENT
    assert "no onnxruntime_qnn" in verdict.detail
    assert "onnxpress doctor --install qnn" in verdict.detail


def test_a_provider_that_leaves_all_nodes_to_the_cpu_has_failed(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    script = interpreter(tmp_path / "python", FALSE_PROVIDER.replace("CHANGE", ""))
    verdict = check(pair, "openvino", config=configured(tmp_path, "openvino", script))["openvino"]
    assert verdict.status is Status.FAILED
    assert "took none of the 3 nodes" in verdict.detail
    assert verdict.placement is not None
    assert verdict.placement.left == {"Conv": 2, "Relu": 1}


def test_wrong_outputs_fail_whatever_was_placed(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    change = (
        'report["placement"] = {wanted: report["placement"]["CPUExecutionProvider"]}\n'
        'path = job_path.with_name("outputs.bin")\n'
        "path.write_bytes(bytes(path.stat().st_size))"
    )
    script = interpreter(tmp_path / "python", FALSE_PROVIDER.replace("CHANGE", change))
    verdict = check(pair, "openvino", config=configured(tmp_path, "openvino", script))["openvino"]
    assert verdict.status is Status.FAILED
    assert "dB; the budget is 20" in verdict.detail


def test_a_provider_that_ran_the_model_before_time_was_up_keeps_its_verdict(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    change = 'del report["status"], report["times"]\nreport["stage"] = "timing"'
    body = FALSE_PROVIDER.replace("CHANGE", change) + "import time\ntime.sleep(600)\n"
    config = configured(tmp_path, "cpu", interpreter(tmp_path / "python", body))
    verdict = check(pair, "cpu", config=config, limit=8)["cpu"]
    assert verdict.status is Status.RAN
    assert verdict.latency is None
    assert "the time limit ended it while timing" in verdict.warnings


def test_a_processor_with_dot_products_is_no_proof_for_one_without(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    change = 'report["saturates"] = False'
    script = interpreter(tmp_path / "python", FALSE_PROVIDER.replace("CHANGE", change))
    verdict = check(pair, "cpu-avx2", config=configured(tmp_path, "cpu-avx2", script))["cpu-avx2"]
    assert verdict.status is Status.FAILED
    assert "fused 8-bit dot products" in verdict.detail


def test_the_cpu_takes_all_and_agrees_with_a_session_in_this_process(
    pair: tuple[ir.Model, Evaluator],
) -> None:
    found = check(pair, "cpu", "ort")
    for verdict in found.values():
        assert verdict.status is Status.RAN
        assert verdict.placement is not None
        assert verdict.placement.multiply_add_share == 1
        assert verdict.measurement is not None
        assert verdict.measurement.samples == 4
        assert verdict.measurement.worst_sqnr_db > 100  # the order of sums, and no more
        assert verdict.latency is not None


def test_integer_kernels_are_those_of_a_session_in_this_process(
    tmp_path: Path, linear_model: Path
) -> None:
    quantized = tmp_path / "q.onnx"
    quantize_dynamic(linear_model, quantized)
    document = tmp_path / "found.json"
    result = run(
        *("validate", quantized, "--reference", linear_model),
        *("--ep", "cpu", "--json", document),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(document.read_text())["providers"][0]
    assert found["integer_kernels"] == executed_operators(quantized, integer_only=True)
    assert found["integer_kernels"]
    assert "100%" in result.output


def test_required_provider_that_cannot_run_here_fails_the_command(
    tmp_path: Path, pair: tuple[ir.Model, Evaluator]
) -> None:
    path = tmp_path / "convs.onnx"
    result = run("validate", path, "--reference", path, "--require-ep", "nnapi")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "required provider nnapi did not run the model: static" in said


def test_optimize_ends_on_the_providers_and_reports_them_everywhere(
    tmp_path: Path, models: Path, small_data: tuple[Path, Path]
) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    result = run(
        *("optimize", models / "fashion_mlp.onnx", "-o", tmp_path / "out.onnx"),
        *("--calibration", small_data[0], "--evaluation", small_data[1], "--passes", "simplify"),
        *("--ep", "cpu", "--require-ep", "cuda", "--report", page, "--json", document),
    )
    found = json.loads(document.read_text())["validation"]["providers"]
    assert [verdict["provider"] for verdict in found] == ["cpu", "cuda"]
    if found[1]["counts"]:
        pytest.skip("this machine has CUDA")
    assert result.exit_code == 1
    assert "required provider cuda did not run" in " ".join(result.output.split())
    assert "Execution providers" in page.read_text()


def test_a_library_of_a_provider_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    find = runpy.run_path(str(WORKER))["_missing_library"]
    assert find(tmp_path, "TensorrtExecutionProvider") == ""
    library = tmp_path / "libonnxruntime_providers_tensorrt.so"
    library.write_bytes(b"no library")
    found = find(tmp_path, "TensorrtExecutionProvider")
    assert found.startswith("its library cannot be loaded: ")
    assert library.name in found
    assert find(tmp_path, "CUDAExecutionProvider") == ""


def test_worker_needs_nothing_but_numpy_and_onnxruntime() -> None:
    tree = ast.parse(WORKER.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


@given(groups=st.sampled_from([1, 2, 4, 8]), batch=st.integers(1, 3))
def test_multiply_adds_are_counted_for_the_shapes_that_ran(
    tmp_path_factory: pytest.TempPathFactory, groups: int, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("count")
    path = folder / "named.onnx"
    write_model(ir.from_proto(convolutions(groups)), path)
    counts = multiply_adds(path, {"x": np.zeros((batch, 8, 12, 12), np.float32)})
    outputs = batch * 16 * 4 * 4
    assert counts == {
        "Conv_1": outputs * (8 // groups) * 9,
        "last": batch * 4 * 4 * 4 * 16,
    }


def test_every_node_gets_a_name_and_keeps_its_own(tmp_path: Path) -> None:
    model = convolutions(1)
    model.graph.node[1].name = "Conv_1"
    write_model(ir.from_proto(model), tmp_path / "named.onnx")
    names = [node.name for node in onnx.load(tmp_path / "named.onnx").graph.node]
    assert names == ["Conv_2", "Conv_1", "last"]


def test_static_verdicts_never_count(pair: tuple[ir.Model, Evaluator]) -> None:
    found = check(pair, "xnnpack", "nnapi", "coreml")
    assert {verdict.status for verdict in found.values()} == {Status.STATIC}
    assert not any(verdict.counts for verdict in found.values())
    assert all(verdict.placement is not None for verdict in found.values())


def test_string_inputs_are_refused_and_not_sent_as_addresses(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [value("x", onnx.TensorProto.STRING, [1])],
        [value("y", onnx.TensorProto.STRING, [1])],
    )
    path = tmp_path / "text.onnx"
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    session = Session(path)
    samples = Samples(({"x": np.array(["word"], dtype=object)},), None, "a test")
    model = model_file.load(path)
    verdict = check((model, Evaluator(session, samples, Budget())), "cpu")["cpu"]
    assert verdict.status is Status.FAILED
    assert "input x" in verdict.detail
