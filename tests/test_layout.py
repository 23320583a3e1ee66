"""The repository's own traps: the link, the double import, the entry points, light imports."""

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_passes_folder_and_package_are_the_same() -> None:
    assert (ROOT / "onnxpress" / "passes").resolve() == (ROOT / "passes").resolve()


def test_no_module_is_loaded_twice() -> None:
    assert "passes" not in sys.modules


@pytest.mark.parametrize("group", ["onnxpress.passes", "onnxpress.data"])
def test_entry_points_are_those_of_pyproject(group: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"][group]
    installed = {
        entry.name: entry.value
        for entry in importlib.metadata.entry_points(group=group)
        if entry.value.startswith("onnxpress.")
    }
    assert installed == declared, "install again: entry points are read at install"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import onnxpress", ("onnxruntime", "onnxscript", "onnx_ir", "onnx", "numpy")),
        (
            "from onnxpress.cli import cli; cli.main(['--help'], standalone_mode=False)",
            ("onnxruntime", "onnxscript", "onnx_ir", "onnx", "numpy"),
        ),
        ("import onnxpress; onnxpress.load", ("onnxruntime", "onnxscript")),
        ("import onnxpress; onnxpress.optimize", ("onnxscript", "jinja2", "matplotlib")),
    ],
)
def test_nothing_heavy_is_imported_early(code: str, absent: tuple[str, ...]) -> None:
    probe = f"{code}\nimport sys\nprint('loaded:', *(m for m in {absent!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for file in sorted((ROOT / "passes").rglob("*.py")):
        assert f"onnxpress/passes/{file.relative_to(ROOT / 'passes')}" in names
    names_of_reports = (
        "report.html.j2",
        "page.css",
        "page.js",
        "schema.json",
        "pipeline.schema.json",
    )
    reports = tuple(f"report/{name}" for name in names_of_reports)
    for wanted in ("targets/cpu.toml", *reports, "py.typed", "pipeline.py"):
        assert f"onnxpress/{wanted}" in names
