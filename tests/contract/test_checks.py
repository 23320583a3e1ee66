"""Each check fails for a pass that breaks just what it asks for."""

import pytest
from bad_passes import (
    Curt,
    Draws,
    InventsBytes,
    InventsMultiplyAdds,
    LossyLossless,
    Optimistic,
    Overflows,
    Remembers,
    Rounds,
    Silent,
    WeakestFirst,
    ZeroesInPropose,
)

from onnxpress.contract import Pass
from onnxpress.testing import CHECKS, Cell, checks_of

MODEL = "mlp_opset17"


def failing(pass_: Pass) -> set[str]:
    """Names of the checks that a pass fails."""
    found = set()
    for check in checks_of(pass_, (MODEL,)):
        try:
            check()
        except AssertionError:
            found.add(check.name)
    return found


def test_a_pass_that_keeps_the_contract_fails_no_check() -> None:
    assert failing(Rounds()) == set()


@pytest.mark.parametrize(
    ("pass_", "check"),
    [
        (InventsBytes(), "saves_the_bytes_it_promises"),
        (InventsMultiplyAdds(), "saves_the_multiply_adds_it_promises"),
        (WeakestFirst(), "offers_the_strongest_first"),
        (Silent(), "answers_for_every_layer"),
        (Curt(), "gives_readable_reasons"),
        (LossyLossless(), "loses_nothing_where_it_says_so"),
        (Optimistic(), "errs_as_it_predicts"),
        (Draws(), "proposes_the_same_again"),
        (Overflows(), "stays_finite"),
        (Remembers(), "rewrites_to_the_same_bytes"),
        (ZeroesInPropose(), "proposes_without_changing_the_model"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_check_fails_for_a_pass_that_breaks_it(pass_: Pass, check: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[check](Cell(pass_, MODEL))


def test_a_pass_that_offers_nothing_has_to_be_declared_empty() -> None:
    silent = next(c for c in checks_of(Curt(), (MODEL,)) if c.name == "offers_something")
    with pytest.raises(AssertionError, match="nothing is offered"):
        silent()
    reason = {MODEL: "it offers nothing anywhere"}
    declared = {c.name: c for c in checks_of(Curt(), (MODEL,), reason)}
    declared["offers_something"]()
    wrong = {c.name: c for c in checks_of(Rounds(), (MODEL,), reason)}
    with pytest.raises(AssertionError, match="but it is not"):
        wrong["offers_something"]()
