"""The JSON document holds what the page shows, is described by its schema, and stays bounded."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import onnx_ir as ir
import pytest
from made_reports import HOSTILE, chain, large_document, rich_result
from made_results import make_result

from onnxpress.recipe import CalibrationSource
from onnxpress.report.document import FORMAT, document
from onnxpress.report.layer_rows import Origins
from onnxpress.result import Result


def strict(schema: Any) -> Any:
    """The schema with every object closed: a key that it does not describe is an error."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed["additionalProperties"] = False
    return closed


@pytest.fixture(scope="module")
def schema() -> Any:
    text = files("onnxpress.report").joinpath("schema.json").read_text(encoding="utf-8")
    return json.loads(text)


@pytest.mark.parametrize("found", [make_result(), rich_result(), rich_result(HOSTILE)])
def test_schema_describes_every_key(schema: Any, found: Result) -> None:
    validate = fastjsonschema.compile(strict(schema))
    validate(json.loads(json.dumps(document(found, ["onnxpress", "optimize"]), allow_nan=False)))


def test_schema_refuses_an_undescribed_key(schema: Any) -> None:
    validate = fastjsonschema.compile(strict(schema))
    with pytest.raises(fastjsonschema.JsonSchemaException, match="more"):
        validate({**document(make_result()), "more": 1})


def test_format_is_the_one_of_the_schema(schema: Any) -> None:
    assert schema["properties"]["format"]["const"] == FORMAT == document(make_result())["format"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("left out: time was over before it began [L010]", "give more time, as --time-limit 80: "),
        ("nothing would be saved [L023]", ""),
    ],
)
def test_next_step_is_more_time_where_that_was_over(reason: str, said: str) -> None:
    found = make_result()
    told = CalibrationSource("photos", "0", held_out=True)
    hurried = replace(
        found,
        stages=tuple(replace(stage, note=reason) for stage in found.stages[:1]),
        recipe=replace(found.recipe, calibration=told),
        seconds=20.0,
    )
    assert document(hurried)["next"].startswith(said)
    assert bool(document(hurried)["next"]) == bool(said)


def test_command_is_quoted_for_a_shell() -> None:
    command = ["onnxpress", "optimize", "a model.onnx"]
    assert document(make_result(), command)["command"] == "onnxpress optimize 'a model.onnx'"


def test_layer_has_its_bytes_forms_and_reasons() -> None:
    first, _, third = document(rich_result())["layers"]
    assert (first["bytes_before"], first["bytes_after"]) == (8 * 8 * 4, 8 * 8 + 8 * 4)
    assert first["forms"] == ["logits pair"]
    assert first["predicted_error"] == pytest.approx(0.01)
    assert first["multiply_add_share"] == pytest.approx(1 / 3)
    assert third["forms"] == []
    assert third["predicted_error"] is None
    assert third["left"] == ["logits: too small, says logits"]


def test_derived_names_belong_to_the_longest_weight() -> None:
    origins = Origins(chain(["w", "w_2", "v"]))
    found = {
        name: origins.of(name)
        for name in ("w", "w_scale", "w_2", "w_2_factor_1_quantized", "w_bias_shifted", "u_scale")
    }
    assert found == {
        "w": "w",
        "w_scale": "w",
        "w_2": "w_2",
        "w_2_factor_1_quantized": "w_2",
        "w_bias_shifted": None,
        "u_scale": None,
    }


def test_name_behind_another_constant_belongs_to_no_weight() -> None:
    model = chain(["w"])
    constant = ir.tensor(np.zeros(1, np.float32), name="w_gain")
    model.graph.register_initializer(ir.Value(name="w_gain", const_value=constant))
    assert Origins(model).of("w_gain_scale") is None


def test_histogram_counts_all_weights_and_knows_the_grid() -> None:
    found = document(rich_result())["histograms"]
    assert [one["layer"] for one in found] == ["first", "second"]
    assert sum(found[0]["counts"]) == 64
    assert len(found[0]["counts"]) == 32
    grid = found[0]["grid"]
    assert (grid["bits"], grid["steps"], grid["middle"]) == (8, 8, pytest.approx(0.3))


def test_spectrum_falls_from_one() -> None:
    found = document(rich_result())["spectra"]
    assert [(one["layer"], one["rank"], one["of"]) for one in found] == [
        ("first", 3, 8),
        ("second", 3, 8),
    ]
    assert found[0]["values"][0] == 1
    assert found[0]["values"] == sorted(found[0]["values"], reverse=True)


def test_spectrum_of_a_large_weight_is_not_taken() -> None:
    stages = rich_result().stages
    large = replace(stages[0], model=chain(["first", "second"], side=1500))
    found = document(replace(rich_result(), stages=(large, *stages[1:])))
    assert found["spectra"] == []
    assert sum(found["histograms"][0]["counts"]) > 1_000_000


@pytest.mark.slow
def test_ten_thousand_layers_take_little_room() -> None:
    found = large_document()
    assert len(found["layers"]) == 10_000
    assert len(found["histograms"]) == 8
    assert len(found["spectra"]) == 6
    layers = json.dumps({**found, "stages": [], "recipe": ""})
    assert len(layers) < 500 * 10_000


def test_picture_is_a_png_of_what_was_fed(tmp_path: Path) -> None:
    import base64  # noqa: PLC0415
    import io  # noqa: PLC0415

    image = pytest.importorskip("PIL.Image")
    fed = document(rich_result())["disagreements"][0]["fed"][0]
    kind, _, content = fed["picture"].partition(",")
    assert kind == "data:image/png;base64"
    with image.open(io.BytesIO(base64.b64decode(content))) as opened:
        pixels = np.asarray(opened)
    assert pixels.shape == (16, 16, 3)
    assert pixels[0, 0].tolist() == [0, 85, 170]
    assert pixels[-1, -1].tolist() == [85, 170, 255]
