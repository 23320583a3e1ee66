"""Figures say what they mean: slower is not called faster, and how many samples there were."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import (
    decision,
    make_result,
    measurement,
    model_of,
    page,
    printed,
    printed_validation,
    stage,
    verdict,
)

from onnxpress.judge import Measurement, OutputFidelity
from onnxpress.report.columns import PROVIDER_COLUMNS, as_document, cells, shown
from onnxpress.report.document import document
from onnxpress.report.text import megabytes, size_in_words, speed_in_words, stage_summary


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("speedup", "said"),
    [
        (0.86, "0.86x the speed: slower"),
        (1.31, "1.31x faster"),
        (1.001, "about the same speed"),
        (0.996, "about the same speed"),
    ],
)
def test_slower_is_not_called_faster(speedup: float, said: str) -> None:
    assert speed_in_words(speedup) == said


@pytest.mark.parametrize(
    ("quartiles", "said"),
    [
        ((0.97, 1.28), "no clear difference: 1.22x"),
        ((1.01, 1.28), "1.22x faster"),
    ],
)
def test_difference_that_rounds_do_not_agree_on_is_none(
    quartiles: tuple[float, float], said: str
) -> None:
    assert speed_in_words(1.22, quartiles) == said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.9, "1.11x the size: larger"),
        (3.7, "3.70x smaller"),
        (0.999, "about the same size"),
    ],
)
def test_larger_is_not_called_smaller(ratio: float, said: str) -> None:
    assert size_in_words(ratio) == said


def test_slower_and_larger_result_says_so_everywhere(tmp_path: Path) -> None:
    found = make_result(speedup=0.86, ratio=0.9, providers=[])
    for text in (one_line(printed(found)), page(found, tmp_path)):
        assert "0.86x the speed: slower" in text
        assert "x the size: larger" in text
        assert "faster" not in text
        assert "smaller" not in text
    assert "0.86x the speed: slower" in one_line(printed_validation(found))


def test_every_row_of_figures_says_on_how_many_samples(tmp_path: Path) -> None:
    found = make_result()
    said = one_line(printed(found))
    assert "quartiles 1.26 to 1.36), 1 sample" in said
    assert "drop 0.85 (at most 1.27 with 95%), 2,000 samples" in said
    assert "output logits, 2,000 samples: images" in said
    assert "drop 1.60 (at most 3.62 with 95%), first 250 of 2,000 samples" in said
    assert "first 250 of 2,000 samples" in page(found, tmp_path)
    assert document(found)["validation"]["modes"]["exact"]["samples"] == 250


def test_provider_row_says_on_how_many_samples() -> None:
    row = as_document(PROVIDER_COLUMNS, verdict("cpu"))
    columns = shown(PROVIDER_COLUMNS, [row])
    texts = dict(zip([column.heading for column in columns], cells(columns, row), strict=True))
    assert texts == {
        "provider": "cpu",
        "verdict": "ran",
        "placed": "99%",
        "samples": "64",
        "SQNR": "24.5 dB",
        "SQNR to exact": "identical",
        "integer kernels": "12",
        "speed": "1.20x",
    }


def test_broken_output_is_not_called_identical() -> None:
    broken = OutputFidelity(-math.inf, 0.0, math.inf, 0.0)
    found = replace(measurement("y"), outputs={"y": broken})
    row = as_document(PROVIDER_COLUMNS, replace(verdict("cpu"), measurement=found))
    columns = shown(PROVIDER_COLUMNS, [row])
    assert row["identical"] is False
    assert "-inf dB" in cells(columns, row)


def test_integer_outputs_that_differ_are_not_called_identical() -> None:
    labels = OutputFidelity(math.nan, math.nan, math.nan, 0.75)
    found = replace(measurement("y"), outputs={"y": labels})
    row = as_document(PROVIDER_COLUMNS, replace(verdict("cpu"), measurement=found))
    assert row["identical"] is False
    assert "75.0% equal" in cells(PROVIDER_COLUMNS[:8], row)


def test_document_of_a_model_that_was_not_run_is_json_and_prints() -> None:
    nan = math.nan
    nothing = Measurement({}, (), 0, "nothing was run")
    found = make_result()
    assert found.validation is not None
    latency = replace(found.validation.latency, median_ms=nan, speedup=nan, low=nan, high=nan)
    validation = replace(found.validation, measurement=nothing, modes={}, latency=latency)
    found = replace(found, validation=validation)
    json.dumps(document(found), allow_nan=False)
    assert "latency" not in printed(found)


def test_metric_that_is_no_number_is_printed_as_unknown() -> None:
    nan = math.nan
    found = make_result()
    assert found.validation is not None
    usual = measurement("y")
    figure = replace(usual.metrics[0], value=nan, rows=np.zeros((0, 3)))
    broken = replace(usual, metrics=(figure,))
    found = replace(found, validation=replace(found.validation, measurement=broken))
    assert "drop ?, 2,000 samples" in one_line(printed(found))


def test_stage_line_says_the_size_before_and_after() -> None:
    before, after = model_of(500_000), model_of(125_000)
    stages = [stage("fold", before), stage("narrow", after, [decision("a"), decision("b")])]
    summary = stage_summary(document(make_result(stages=stages))["stages"][1])
    assert summary == "2 static, weights 2.00 MB to 0.50 MB"


def test_stage_line_claims_no_more_than_the_file_had() -> None:
    greedy = [decision("a", saved_bytes=200_000), decision("b", saved_bytes=200_000)]
    stages = [stage("narrow", model_of(10), greedy)]
    found = document(make_result(stages=stages, ratio=3.0))["stages"][0]
    assert found["saved_bytes"] is None
    assert stage_summary(found) == "2 static"


def test_passes_that_share_a_model_do_not_each_claim_its_shrinking() -> None:
    before, after = model_of(500_000), model_of(125_000)
    stages = [
        stage("fold", before),
        stage("first", after, [decision("a", saved_bytes=150_000)]),
        stage("second", after, [decision("b", saved_bytes=120_000)]),
    ]
    found = document(make_result(stages=stages, ratio=20.0))["stages"]
    assert stage_summary(found[1]) == "1 static, 0.15 MB less"
    assert stage_summary(found[2]) == "1 static, 0.12 MB less"


def test_stage_without_a_form_counts_sites() -> None:
    plain = decision("a", saved_bytes=0)
    plain = replace(plain, candidate=replace(plain.candidate, family="", zeroed_weights=1234))
    found = document(make_result(stages=[stage("zero", model_of(10), [plain], note="half")]))
    assert stage_summary(found["stages"][0]) == "1 site, 1,234 weights zeroed; half"


def test_stage_that_changed_nothing_says_why() -> None:
    found = document(make_result(stages=[stage("zero", model_of(10), note="no data")]))
    assert stage_summary(found["stages"][0]) == "changed nothing: no data"


def test_small_models_keep_their_digits() -> None:
    assert megabytes(3120) == "0.00312 MB"
    assert megabytes(3_120_000) == "3.12 MB"
