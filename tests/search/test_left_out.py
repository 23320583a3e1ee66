"""Why a site was left out of the choice that holds: the budget, the clock, or its kernels."""

import pytest
from fakes import candidate, site

from onnxpress.contract import Decision
from onnxpress.search.stage import _restored


@pytest.mark.parametrize(
    ("hurried", "same_kernels", "code"),
    [(False, False, "[L008]"), (True, False, "[L010]"), (True, True, "[L016]")],
)
def test_reason_is_the_one_that_was(*, hurried: bool, same_kernels: bool, code: str) -> None:
    taken, left = site("a", candidate(0.1, keeps_kernels=True)), site("b", candidate(3.0))
    decisions = [Decision("a", taken.candidates[0])]
    ((_, skip),) = _restored([taken, left], decisions, hurried=hurried, same_kernels=same_kernels)
    assert skip.site == "b"
    assert skip.reason.endswith(code)
    assert "e+" not in skip.reason


def test_stored_form_that_the_budget_did_not_bear_is_not_laid_on_the_kernels() -> None:
    left = site("b", candidate(0.2, keeps_kernels=True))
    ((_, skip),) = _restored([left], [], hurried=False, same_kernels=True)
    assert skip.reason == (
        "taken back: the budget held only without it; it would add 20% of noise to its output "
        "[L008]"
    )
