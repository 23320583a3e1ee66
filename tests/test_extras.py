"""`onnxpress doctor` says what is missing and how it comes."""

import pytest

from onnxpress import doctor


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"pillow"}, "yes"),
        (set(), "no: pip install 'onnxpress[images]' (pillow missing)"),
    ],
)
def test_reader_that_is_missing_is_named_with_its_extra(installed: set[str], said: str) -> None:
    assert doctor._extra("images", ["pillow"], installed) == said


def test_every_extra_that_reads_samples_is_looked_for() -> None:
    assert doctor.examine()["readers"].keys() == {"pictures", "texts", "recordings"}
