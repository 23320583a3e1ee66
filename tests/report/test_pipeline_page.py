"""A pipeline's document is described by its schema, and its page shows the whole and each part."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest
from browser import chromium, opened
from command_line import message, run
from decoders import prompts, write_encoder, write_head
from made_reports import HOSTILE

from onnxpress.report.pipeline import write_pipeline

FAULTS = Path(__file__).with_name("accessibility.js")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose second head nothing judges, so that it is left."""
    made = tmp_path_factory.mktemp("pages")
    write_encoder(made / "encoder.onnx")
    for name in ("head", "last"):
        write_head(made / f"{name}.onnx")
    names = ("encoder", "head", "last")
    parts = (f"[[part]]\nname = '{name}'\nmodel = '{name}.onnx'\n" for name in names)
    (made / "pipeline.toml").write_text("".join(parts))
    np.savez(made / "samples.npz", input_ids=prompts(40))
    return made


def optimize(folder: Path, *options: object) -> Any:
    return run("optimize", folder, "--calibration", folder / "samples.npz", "--passes", "quantize",
               "--threads", "1", "-o", folder / "out", *options)  # fmt: skip


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    done = optimize(folder, "--report", folder / "page.html", "--json", folder / "report.json")
    assert done.exit_code == 0, done.output
    assert "page.html" in done.output
    return dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))


def validator() -> Any:
    """The schema with that of a single model in the place where it is referred to."""
    folder = files("onnxpress.report")
    whole, single = (
        json.loads(folder.joinpath(name).read_text(encoding="utf-8"))
        for name in ("pipeline.schema.json", "schema.json")
    )
    whole["definitions"] = single.pop("definitions")
    whole["definitions"]["single"] = single
    text = json.dumps(whole).replace('"schema.json"', '"#/definitions/single"')
    return fastjsonschema.compile(json.loads(text))


def test_schema_describes_every_key(found: dict[str, Any]) -> None:
    validator()(found)
    with pytest.raises(fastjsonschema.JsonSchemaException, match="more"):
        validator()({**found, "more": 1})


def test_a_part_that_was_left_has_no_report_of_its_own(found: dict[str, Any]) -> None:
    reports = {part["name"]: part["report"] for part in found["parts"]}
    assert reports["encoder"]["within_budget"]
    assert reports["head"] is None
    assert sum(part["bytes"] for part in found["parts"]) >= found["size"]["bytes"]


def test_the_page_shows_the_whole_and_each_part(folder: Path, found: dict[str, Any]) -> None:
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "Within the budget" in text
    for part in found["parts"]:
        shown = f"Part <bdi>{part['name']}</bdi>" in text
        assert shown is part["optimized"], part["name"]
        assert text.count(part["name"]) > 1
    optimized = [part for part in found["parts"] if part["optimized"]]
    # One of the whole, and one of each part with a report.
    assert text.count('<p class="verdict good">Within the budget: ') == 1 + len(optimized)
    assert "[[part]]" in text
    assert "pipeline.recipe" not in text
    assert found["command"] in text.replace("&#39;", "'")


def test_the_same_document_gives_the_same_page(
    folder: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    write_pipeline(found, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (folder / "page.html").read_bytes()


def test_a_broken_budget_is_the_first_thing_said(found: dict[str, Any], tmp_path: Path) -> None:
    broken = {**found, "within_budget": False, "problems": ["the budget does not hold: so it is"]}
    write_pipeline(broken, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<p class="verdict bad">Not met: the budget does not hold: so it is.</p>' in text


def test_a_page_that_would_replace_what_is_read_is_refused(folder: Path) -> None:
    for name in ("samples.npz", "encoder.onnx"):
        done = optimize(folder, "--report", folder / name, "--force")
        assert done.exit_code == 2
        assert "--report would overwrite an input or another output" in message(done)


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_the_page_asks_for_nothing_and_keeps_nobody_out(
    found: dict[str, Any], tmp_path: Path
) -> None:
    browser = chromium()
    assert browser is not None
    with opened(browser) as page:
        for name in ("part", *HOSTILE):
            parts = [
                {**part, "name": f"{place}{name}"} for place, part in enumerate(found["parts"])
            ]
            write_pipeline({**found, "pipeline": name, "parts": parts}, tmp_path / "page.html")
            for width, dark in ((1440, False), (390, True)):
                page.size(width, dark=dark)
                page.open(tmp_path / "page.html")
                page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
                assert page.said == []
                assert page.run(FAULTS.read_text(encoding="utf-8")) == []
                assert page.run("document.documentElement.scrollWidth") <= width
        assert [one for one in page.requested if not one.startswith("file:")] == []
