"""Every block of code in the documents is run, or read by what reads its kind.

Python blocks run on a committed model; blocks of TOML go through the readers of recipes, targets,
samples and configurations; commands of the shell are looked up (`cli/test_documented_commands.py`
has ours). A block that no test knows fails the first test here.
"""

import importlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import test_authors
from test_action import ACTION, yaml

import onnxpress
from onnxpress import registry
from onnxpress.data import Reader, load_samples
from onnxpress.data.described import check_preparation
from onnxpress.providers.config import read_config
from onnxpress.recipe import Recipe
from onnxpress.runtime import InputSpec, Session
from onnxpress.targets.reader import parse_target

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "models" / "README.md", *(ROOT / "docs").glob("*.md")])
PLUGIN = ROOT / "tests" / "plugin"
MODEL = ROOT / "models" / "fashion_mobile.onnx"
IMAGES = ROOT / "models" / "fashion_calibration.npz"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


class Block(NamedTuple):
    """A block of a page, where it begins, and what it holds."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(name, text.count("\n", 0, found.start()) + 2, *found.groups())
        for found in _BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(language: str, *pages: str) -> list[Block]:
    return [one for one in BLOCKS if one.language == language and (not pages or one.page in pages)]


PYTHON_PAGES = ("README.md", "docs/api.md", "docs/data.md", "docs/latency.md", "docs/python.md")
TARGETS = of("toml", "docs/targets.md")
SAMPLES = [one for one in of("toml", "docs/data.md") if "[preprocessing" not in one.text]
PREPARATIONS = [one for one in of("toml", "docs/data.md") if "[preprocessing" in one.text]
SELECTIONS = of("toml", "docs/passes.md")
PROVIDERS = of("toml", "docs/providers.md")
AUTHORS = [one for one in of("python", "docs/authors.md") if "import minifloat" in one.text]
AUTHORS += [one for one in of("python", "docs/authors.md") if "from minifloat" in one.text]


def test_a_test_knows_every_block() -> None:
    quoted = [quote for file in ("pyproject.toml", "minifloat.py") for quote in _quoted(file)]
    known = {
        *of("sh"),
        *of("yaml", "docs/check.md"),
        *of("text"),
        *of("python", *PYTHON_PAGES, "CONTRIBUTING.md"),
        *of("toml", "CONTRIBUTING.md"),
        *(TARGETS + SAMPLES + PREPARATIONS + SELECTIONS + PROVIDERS + AUTHORS),
        *(one for one in of("toml", "docs/authors.md") if "[build-system]" not in one.text),
        *(one for one in BLOCKS if one.page == "docs/authors.md" and one.text in quoted),
    }
    assert [str(one) for one in BLOCKS if one not in known] == []


def _quoted(file: str) -> list[str]:
    """What `test_authors.py` compares with the plugin, whose own tests run it."""
    return test_authors.quotes(file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the pages speak of: model.onnx and samples.npz."""
    shutil.copy(MODEL, tmp_path / "model.onnx")
    with np.load(IMAGES) as images:
        np.savez(tmp_path / "samples.npz", image=images["image"][:64])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search of a page's `onnxpress.optimize` ends after two seconds."""
    monkeypatch.setattr(onnxpress, "optimize", partial(onnxpress.optimize, time_limit=2))


def _names(folder: Path) -> dict[str, Any]:
    """What the text around the blocks speaks of: pictures in files, and batches with labels."""
    with np.load(IMAGES) as images:
        pictures = images["image"][:32]
    for index, picture in enumerate(pictures):
        np.save(folder / f"{index}.npy", picture)
    return {
        "onnxpress": onnxpress,
        "paths": sorted(folder.glob("*.npy")),
        "load": np.load,
        "loader": [(pictures[:16], np.arange(16) % 10), (pictures[16:], np.arange(16) % 10)],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("block", of("python", *PYTHON_PAGES), ids=str)
def test_a_python_block_runs(
    block: Block, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A last expression of a notebook's kind is no statement without effect here.
    exec(compile(block.text, str(block), "exec"), _names(folder))  # noqa: S102 - a page of ours
    if "result.save" in block.text:
        assert (folder / "model.opt.onnx").stat().st_size < MODEL.stat().st_size
        assert (folder / "model.opt.recipe.toml").exists()
    if "print(event" in block.text:
        assert capsys.readouterr().out.count("\n") > 3


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
@pytest.mark.usefixtures("folder")
def test_the_authors_page_runs_its_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    run: dict[str, Any] = {}
    for block in AUTHORS:
        exec(compile(block.text, str(block), "exec"), run)  # noqa: S102 - a page of ours
    assert run["result"].within_budget
    assert run["model"].graph is not None
    assert callable(run["test_contract"])


def test_the_reader_of_the_page_for_contributors_reads(folder: Path) -> None:
    (block,) = of("python", "CONTRIBUTING.md")
    (folder / "table.csv").write_text("0.5\n1.5\n", encoding="utf-8")

    def arrays_of(path: str) -> Mapping[str, Any]:
        return {"x": np.loadtxt(path, np.float32, ndmin=2)}

    run: dict[str, Any] = {"arrays_of": arrays_of}
    exec(compile(block.text, str(block), "exec"), run)  # noqa: S102 - a page of ours
    reader = run["READER"]
    assert isinstance(reader, Reader)
    assert reader.accepts("table.csv")
    samples = reader.read("table.csv", [InputSpec("x", "float32", (None, 1))])
    assert len(samples) == 2


def test_the_entry_point_for_a_reader_is_in_our_group() -> None:
    (block,) = of("toml", "CONTRIBUTING.md")
    own = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(tomllib.loads(block.text)["project"]["entry-points"]) <= set(
        own["project"]["entry-points"]
    )


@pytest.mark.parametrize("block", SAMPLES, ids=str)
def test_a_description_of_samples_is_read(block: Block, folder: Path) -> None:
    table = tomllib.loads(block.text)
    (kind,) = set(table) - {"constants"}
    place = folder / table[kind]["path"]
    place.mkdir()
    (folder / "said.toml").write_text(block.text, encoding="utf-8")
    inputs = {
        "images": [InputSpec("x", "float32", (None, 3, *table[kind].get("size", ())))],
        "sounds": [
            InputSpec("x", "float32", (None, 512)),
            InputSpec("state", "float32", (2, None, 128)),
            InputSpec("sr", "int64", ()),
        ],
    }[kind]
    FILES[kind](place)
    samples = load_samples(folder / "said.toml", inputs)
    assert samples.feeds[0].keys() == {one.name for one in inputs}


def _picture(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.effect_noise((700, 650), 40).convert("RGB").save(folder / "a.png")


def _recording(folder: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(folder / "a.wav", np.sin(np.arange(16000) / 20), 16000)


FILES: dict[str, Callable[[Path], None]] = {"images": _picture, "sounds": _recording}


@pytest.mark.parametrize("block", PREPARATIONS, ids=str)
def test_what_a_recipe_keeps_of_a_preparation_is_one(block: Block) -> None:
    check_preparation(tomllib.loads(block.text)["preprocessing"])


@pytest.mark.parametrize("block", SELECTIONS, ids=str)
def test_layers_of_a_recipe_are_read(block: Block) -> None:
    head = 'version = 2\ntarget = "cpu"\nseed = 0\n'
    recipe = Recipe.from_toml(head + block.text)
    assert sorted(one.pattern for one in recipe.selection.kept) == ["/head/*", "Gather"]


def test_the_recipe_of_the_authors_page_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    (block,) = [one for one in of("toml", "docs/authors.md") if "[[pass]]" in one.text]
    classes = {"minifloat": importlib.import_module("minifloat").Minifloat}
    (stage,) = Recipe.from_toml(block.text, classes=classes).stages
    assert stage.pass_ == classes["minifloat"](form="float8", layers=("fc1.weight",))


def test_the_configuration_of_the_authors_page_is_read(folder: Path) -> None:
    (block,) = [one for one in of("toml", "docs/authors.md") if "[passes]" in one.text]
    (folder / "onnxpress.toml").write_text(block.text, encoding="utf-8")
    with pytest.raises(onnxpress.errors.UsageError, match="minifloat"):
        registry.default_names()


@pytest.mark.parametrize("block", PROVIDERS, ids=str)
def test_places_of_providers_are_read(block: Block, folder: Path) -> None:
    place = folder / "onnxpress.toml"
    place.write_text(block.text, encoding="utf-8")
    assert dict(read_config(place)["openvino"].options) == {"device_type": "GPU"}


@pytest.mark.parametrize("block", TARGETS, ids=str)
def test_a_target_is_read(block: Block) -> None:
    text = block.text
    if "members" not in text:
        # Some fields of a file: put onto a target that is there.
        head = 'members = ["xnnpack"]\ndescription = "some"\n'
        text = f"{head}{text}\n{_sources(tomllib.loads(text))}"
    assert parse_target("./board.toml", text, frozenset()).members == ("./board.toml",)


def _sources(table: Mapping[str, Any]) -> str:
    fields = {name for name in table if name not in ("plain_operators", "unless_processor_has")}
    rows = [f'{name} = "ran: here"' for name in sorted({*fields, "operators", "weight_bits"})]
    return "\n".join(["[sources]", *rows])


def test_the_workflow_gives_the_action_inputs_that_it_has() -> None:
    workflow, hook = (yaml.safe_load(one.text) for one in of("yaml", "docs/check.md"))
    assert set(workflow[1]["with"]) <= set(ACTION["inputs"])
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {one["id"] for one in hook[0]["hooks"]} <= {one["id"] for one in offered}


@pytest.mark.parametrize("block", of("text"), ids=str)
def test_what_the_console_is_shown_to_say_is_in_the_code(block: Block) -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "onnxpress").rglob("*.py")
    )
    assert SAID[block.page] <= {word for word in SAID[block.page] if word in block.text}
    assert [word for word in SAID[block.page] if word not in sources] == []


SAID = {
    "docs/judge.md": {"detector head", "boxes beside scores"},
    "docs/latency.md": {"more with samples", "measured on this machine"},
    "docs/passes.md": {"layers that cost most fidelity", "keep it with --keep"},
}
"""Words that are the same in every run."""


def lines() -> list[tuple[str, str]]:
    """Commands of the shell, but ours: page, command."""
    return [
        (str(block), command.strip())
        for block in of("sh")
        for line in block.text.replace("\\\n", " ").splitlines()
        for command in re.split(r" && | \|\| ", line.partition("  #")[0])
        if command.strip() and not re.match(r"(\S*/)?onnxpress ", command.strip())
    ]


PROGRAMS = {
    "cd", "python3", "python", ".venv/bin/pip", ".venv-test/bin/pip", "pip",
    ".venv-test/bin/python", ".venv-test/bin/ruff", ".venv-test/bin/mypy",
    ".venv-test/bin/lint-imports", ".venv-test/bin/mkdocs", "pytest", "apt-get", "eval", "podman",
    "pipx", "uvx", "onnxpress",
}  # fmt: skip


@pytest.mark.parametrize(("place", "line"), lines())
def test_other_commands_are_of_programs_scripts_and_options_that_exist(
    place: str, line: str
) -> None:
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    assert words[0] in PROGRAMS, place
    if "-m" in words:
        module = words[words.index("-m") + 1]
        script = ROOT / "tests" / module.replace(".", "/")
        scripts = [
            path for path in (script.with_suffix(".py"), script / "__main__.py") if path.exists()
        ]
    else:
        scripts = [ROOT / word for word in words if word.endswith(".py")]
    for path in scripts:
        source = path.read_text(encoding="utf-8")
        assert [option for option in _OPTION.findall(line) if f'"{option}"' not in source] == []


def test_a_model_that_pages_speak_of_runs() -> None:
    assert Session(MODEL).inputs[0].name == "image"
