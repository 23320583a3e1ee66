"""Settings are declared once; constructor, recipe and command line refuse the same."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Interval
from bad_passes import Rounds

from onnxpress.contract import setting
from onnxpress.errors import UsageError
from onnxpress.passes.prune import Prune
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.ranges import RANGE_METHODS
from onnxpress.passes.sparsify import Sparsify
from onnxpress.settings import checked, settings_of


@dataclass(frozen=True)
class Everything(Rounds):
    """One setting of every kind."""

    name: ClassVar[str] = "everything"
    share: Annotated[float, Interval(gt=0, lt=1)] = setting(0.5, "A share of something.")
    count: Annotated[int, Ge(1)] | None = setting(None, "A number, or none.")
    form: Literal["one", "two"] = setting("one", "One of two forms.")
    names: tuple[str, ...] = setting((), "Names of some layers.")
    numbers: tuple[Annotated[int, Ge(0)], ...] = setting((), "Some numbers from zero.")
    shares: tuple[float, ...] = setting((), "Some shares.")
    flag: bool = setting(default=False, help="Whether to do it.")


def test_declarations_are_read_from_the_types() -> None:
    found = {s.name: s for s in settings_of(Everything)}
    assert (found["share"].kind, found["share"].bounds_text) == (float, "above 0, below 1")
    assert (found["count"].kind, found["count"].optional) == (int, True)
    assert found["form"].choices == ("one", "two")
    assert (found["names"].kind, found["names"].many) == (str, True)
    assert found["numbers"].bounds_text == "at least 0"
    assert found["flag"].kind is bool
    assert found["share"].help == "A share of something."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"share": 1.0}, "share is 1.0; expected a number above 0, below 1"),
        ({"share": 0.0}, "above 0"),
        ({"share": float("nan")}, "share is nan"),
        ({"share": "half"}, "share is 'half'; expected a number"),
        ({"share": True}, "share is True"),
        ({"count": 0}, "count is 0; expected a whole number at least 1"),
        ({"count": 1.5}, "count is 1.5"),
        ({"form": "three"}, "form is 'three'; expected one of one, two"),
        ({"names": "a,b"}, "names is 'a,b'; expected a list of text"),
        ({"names": ("a", 1)}, "names is"),
        ({"numbers": (1, -1)}, "at least 0"),
        ({"flag": 1}, "flag is 1; expected true or false"),
    ],
)
def test_constructor_refuses_what_does_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Everything(**wrong)
    assert message in str(caught.value)
    assert str(caught.value).startswith("everything: ")


def test_what_fits_is_taken() -> None:
    made = Everything(share=0.25, count=3, form="two", names=("a", "b,c"), numbers=(0, 7))
    assert made.names == ("a", "b,c")
    assert Everything(count=None).count is None


def test_a_recipe_writes_whole_numbers_for_shares_and_lists_for_tuples() -> None:
    read = checked(Sparsify, "sparsify", {"threshold": 1, "layers": ["a", "b"]})
    assert Sparsify(**read) == Sparsify(threshold=1.0, layers=("a", "b"))
    assert Everything(**checked(Everything, "everything", {"shares": [1, 0.5]})).shares == (
        1.0,
        0.5,
    )


def test_unknown_setting_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no setting 'ration'; did you mean 'ratio'"):
        checked(Prune, "prune", {"ration": 0.5})


def test_a_type_that_no_recipe_holds_is_a_fault_of_the_author() -> None:
    @dataclass(frozen=True)
    class Odd(Rounds):
        """A setting that is a dictionary."""

        table: dict[str, int] = setting(None, "No recipe can hold it.")  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="setting table"):
        settings_of(Odd)


def test_choices_are_those_that_the_code_knows() -> None:
    found = {s.name: s for s in settings_of(Quantize)}
    assert found["ranges"].choices == tuple(
        sorted(RANGE_METHODS, key=found["ranges"].choices.index)
    )
