"""Every check on every pass and sample model, as parameters of one test."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pytest

from onnxpress.contract import Pass
from onnxpress.testing.cell import Cell
from onnxpress.testing.checks import CHECKS
from onnxpress.testing.models import SAMPLE_MODELS

__all__ = ["Check", "checks_of", "parametrize_with_checks"]

_OF_THE_CLASS = ("is_a_frozen_data_class", "explains_every_setting", "has_a_stage_and_a_name")
_VACUOUS = "offers_something"


@dataclass(frozen=True)
class Check:
    """One check, to be called.

    Attributes:
        name: of `CHECKS`.
        cell: the pass and the model.
        empty: why the pass has nothing to offer for the model; the check that it offers
            something then asks for the opposite.
    """

    name: str
    cell: Cell
    empty: str = ""

    def __call__(self) -> None:
        """Raise AssertionError where the pass breaks its contract."""
        if self.name == _VACUOUS and self.empty:
            assert not self.cell.offer.proposals, f"declared empty ({self.empty}), but it is not"
            return
        CHECKS[self.name](self.cell)

    def __str__(self) -> str:
        return f"{self.name}-{self.cell}"


@cache
def _cell(pass_: Pass, model_name: str) -> Cell:
    return Cell(pass_, model_name)


def checks_of(
    pass_: Pass,
    models: Collection[str] = tuple(SAMPLE_MODELS),
    empty: Mapping[str, str] | None = None,
) -> Iterator[Check]:
    """All checks of a pass.

    Args:
        pass_: with its settings.
        models: names of `SAMPLE_MODELS`.
        empty: names of models for which it has nothing to offer, with the reason.
    """
    declared = empty or {}
    unknown = set(declared) - set(SAMPLE_MODELS)
    assert not unknown, f"there are no sample models {sorted(unknown)}"
    for number, model in enumerate(models):
        for name in CHECKS:
            if name not in _OF_THE_CLASS or number == 0:
                yield Check(name, _cell(pass_, model), declared.get(model, ""))


def parametrize_with_checks(
    passes: Sequence[Pass],
    *,
    models: Collection[str] = tuple(SAMPLE_MODELS),
    empty: Mapping[str, Mapping[str, str]] | None = None,
    expected_failures: Mapping[tuple[str, str, str], str] | None = None,
) -> Callable[..., object]:
    """A pytest decorator: the test gets one check after the other and calls it.

    Args:
        passes: to check.
        models: names of `SAMPLE_MODELS`.
        empty: by name of the pass, then of the model: why it has nothing to offer there.
        expected_failures: by (check, pass, model): why the pass fails there; one that does not
            fail is an error.
    """
    declared, expected = empty or {}, expected_failures or {}
    parameters = []
    for pass_ in passes:
        for check in checks_of(pass_, models, declared.get(pass_.name)):
            reason = expected.get((check.name, pass_.name, check.cell.model_name))
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            parameters.append(pytest.param(check, id=str(check), marks=marks))
    return pytest.mark.parametrize("check", parameters)
