"""Random words come from the tables that they are looked up in."""

import pytest
from weights_anywhere import model_of

from onnxpress.data import random_samples, rows_looked_up
from onnxpress.runtime import Session


def test_made_up_words_come_from_the_whole_table() -> None:
    model = model_of(
        "int64[b, s] ids, int64[b, s] kinds, int64[b, s] mask",
        "float[b, s, 8] y",
        """a = Gather (table, ids)
        u = Cast <to = 6> (kinds)
        b = Gather (small, u)
        m = Cast <to = 1> (mask)
        c = Add (a, b)
        n = ReduceSum (m)
        y = Mul (c, n)""",
        table=(48, 8),
        small=(3, 8),
    )
    assert rows_looked_up(model) == {"ids": 48, "kinds": 3}
    feeds = random_samples(Session(model), 4, 0, model).feeds
    assert max(feed["ids"].max() for feed in feeds) > 30
    assert {int(v) for feed in feeds for v in feed["kinds"].ravel()} == {0, 1, 2}
    assert max(feed["mask"].max() for feed in feeds) == 1


def test_words_that_the_model_does_not_take_are_not_made_up() -> None:
    model = model_of(
        "int64[4] ids",
        "float[4, 8] y",
        "a = Gather (table, ids)\n i = Neg (ids)\n b = Gather (other, i)\n y = Add (a, b)",
        table=(48, 8),
        other=(2, 8),
    )
    feeds = random_samples(Session(model), 4, 0, model).feeds
    assert max(feed["ids"].max() for feed in feeds) <= 1


MASKED = """k = Constant <value_ints = [1]> ()
    r = Shape (x)
    t = Constant <value_ints = [1]> ()
    e = Gather (r, t)
    c = Squeeze (e)
    z = Constant <value_int = 0> ()
    o = Constant <value_int = 1> ()
    p = Range (z, c, o)
    l = Unsqueeze (lens, k)
    i = Less (p, l)
    f = Cast <to = 1> (i)
    y = Mul (x, f)"""


def test_lengths_leave_something_of_what_they_are_of() -> None:
    """With 0 or 1 of 64 numbers there was nothing to compare: constant features, "identical"."""
    model = model_of("float[b, s] x, int64[b] lens", "float[b, s] y", MASKED)
    feeds = random_samples(Session(model), 8, 0, model).feeds
    longest = feeds[0]["x"].shape[1]
    lengths = {int(feed["lens"][0]) for feed in feeds}
    assert len(lengths) > 1
    assert longest / 2 <= min(lengths)
    assert max(lengths) <= longest


def test_lengths_that_the_model_does_not_take_are_not_made_up() -> None:
    model = model_of(
        "float[b, s] x, int64[b] lens",
        "float[b] y",
        "a = Gather (table, lens)\n r = ReduceSum <keepdims = 0> (x)\n y = Mul (a, r)",
        table=(2,),
    )
    for known in (None, model):
        feeds = random_samples(Session(model), 4, 0, known).feeds
        assert max(int(feed["lens"][0]) for feed in feeds) <= 1


@pytest.mark.parametrize(
    ("name", "is_length"),
    [("seq_length", True), ("xlen", True), ("lens_1", True), ("silence", False), ("talent", False)],
)
def test_only_the_word_itself_is_taken_for_a_length(name: str, *, is_length: bool) -> None:
    model = model_of(
        f"float[b, s] x, int64[b] {name}",
        "float[b, s] y",
        f"""c = Cast <to = 1> ({name})
        k = Constant <value_ints = [1]> ()
        u = Unsqueeze (c, k)
        y = Mul (x, u)""",
    )
    feeds = random_samples(Session(model), 4, 0, model).feeds
    most = max(int(feed[name][0]) for feed in feeds)
    assert (most > 1) is is_length
