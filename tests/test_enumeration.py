"""Lists are cut in one way."""

import pytest

from onnxpress.enumeration import few


@pytest.mark.parametrize(
    ("items", "most", "said"),
    [
        ([], 3, ""),
        (["a"], 1, "a"),
        (["a", "b"], 1, "a and 1 more"),
        (["a", "b", "c"], 3, "a, b, c"),
        (range(2000), 2, "0, 1 and 1,998 more"),
    ],
)
def test_the_first_are_named_and_the_rest_counted(
    items: list[object], most: int, said: str
) -> None:
    assert few(items, most) == said
