"""A field of a target is declared once: type, meaning, how two meet, how it is shown."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from rich.console import Console

from onnxpress.errors import UsageError
from onnxpress.report.targets import print_target, target_document
from onnxpress.targets import OperatorRule, Target, intersect, load_target, target_names
from onnxpress.targets.meet import first, lowest
from onnxpress.targets.schema import Fact, build, derived, fact, facts, identity, read_table, rule

DOCUMENT = Path(__file__).parents[2] / "docs" / "targets.md"
SINGLE = [name for name in target_names() if len(load_target(name).members) == 1]
FACTS = [name for name, declared in facts(Target).items() if declared.sourced]


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """Stands for a target with few fields."""

    count: Annotated[int, Ge(1)] = dataclasses.field(metadata=fact("how many", lowest))
    kind: Literal["round", "flat"] = dataclasses.field(metadata=identity("which", first))
    twice: int = dataclasses.field(metadata=derived("of it", lambda values: 2 * values["count"]))
    sizes: tuple[int | float, ...] | None = dataclasses.field(
        default=None, metadata=rule("of each", str)
    )


def shown(target: Target) -> str:
    text = io.StringIO()
    print_target(target, Console(file=text, width=80))
    return text.getvalue()


@pytest.mark.parametrize("cls", [Target, OperatorRule])
def test_every_field_is_declared_with_a_meaning(cls: Any) -> None:
    declared = facts(cls)
    assert list(declared) == [field.name for field in dataclasses.fields(cls)]
    assert all(isinstance(found, Fact) and found.meaning for found in declared.values())


@pytest.mark.parametrize("name", list(facts(Target)))
def test_every_field_of_a_target_meets_or_follows_from_others(name: str) -> None:
    declared = facts(Target)[name]
    assert (declared.meet is None) != (declared.derive is None)


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_is_shown_by_some_target_with_its_source(name: str) -> None:
    for target in map(load_target, SINGLE):
        lines = shown(target).splitlines()
        if any(line.startswith(f"{name}: ") for line in lines):
            assert target.sources[name].split()[0] in shown(target)
            return
    pytest.fail(f"no target shows {name}")


@pytest.mark.parametrize("name", list(facts(OperatorRule)))
def test_every_field_of_a_rule_is_shown_and_in_the_document(name: str) -> None:
    given: dict[str, Any] = {"quantized": ("u8u8",)} if name == "per_channel_layouts" else {}
    values = {
        "attributes": {"mode": ("linear",)},
        "outputs": 1,
        "newest": 11,
        "quantized": (),
        "same_scale": True,
        "quantized_output": True,
        "ranks": (4,),
        "known": (1,),
        "constant": (1, 2),
    }
    given[name] = values.get(name, ("u8u8",))
    bare = dataclasses.replace(load_target("xnnpack"), operators={"Conv": OperatorRule()})
    ruled = dataclasses.replace(bare, operators={"Conv": OperatorRule(**given)})
    (line,) = set(shown(ruled).splitlines()) - {*shown(bare).splitlines(), "rules"}
    assert line.startswith("  Conv: ")
    assert name in target_document(ruled)["operators"]["Conv"]


@pytest.mark.parametrize("name", target_names())
def test_a_document_holds_every_field_and_is_json(name: str) -> None:
    document = json.loads(json.dumps(target_document(load_target(name))))
    assert list(document) == list(facts(Target))


def test_a_rule_in_float_only_is_told_from_one_that_says_nothing() -> None:
    rules = target_document(load_target("xnnpack"))["operators"]
    assert rules["Gemm"]["quantized"] == ()
    assert "quantized" not in target_document(load_target("nnapi"))["operators"]["Abs"]


@pytest.mark.parametrize("name", SINGLE)
def test_a_target_met_with_itself_claims_the_same(name: str) -> None:
    target = load_target(name)
    met = intersect([target, target])
    for claim in FACTS:
        assert getattr(met, claim) == getattr(target, claim), claim


def test_the_documentation_says_what_every_field_means() -> None:
    lines = DOCUMENT.read_text("utf-8").splitlines()
    for cls in (Target, OperatorRule):
        for name, declared in facts(cls).items():
            if name not in ("name", "members") and declared.derive is None:
                assert f"| `{name}` | {declared.meaning} |" in lines, name


def test_values_are_read_by_their_annotations() -> None:
    fields = ("count", "kind", "sizes")
    table = {"count": 2, "kind": "flat", "sizes": [1, 2.5]}
    values = read_table(Thing, table, "thing.toml", fields=fields, required=fields)
    assert values == {"count": 2, "kind": "flat", "sizes": (1, 2.5)}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"count": 0}, "thing.toml: count is 0; expected a whole number at least 1"),
        ({"count": True}, "thing.toml: count is True; expected a whole number at least 1"),
        ({"count": 1, "kind": "oval"}, "thing.toml: kind is 'oval'; expected one of round, flat"),
        (
            {"count": 1, "sizes": 1},
            "thing.toml: sizes is 1; expected a list, each a whole number or a number",
        ),
        (
            {"count": 1, "sizes": [1, "a"]},
            "thing.toml: sizes[1] is 'a'; expected a whole number or a number",
        ),
        ({"counts": 1}, "thing.toml: unknown field 'counts'; did you mean 'count'? (known: "),
        ({}, "thing.toml: field 'count' is missing; expected a whole number at least 1: how many"),
    ],
)
def test_a_value_that_is_not_as_declared_is_named(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_table(
            Thing, table, "thing.toml", fields=("count", "kind", "sizes"), required=("count",)
        )
    assert expected in str(caught.value)


def test_what_follows_from_other_fields_is_worked_out_anew() -> None:
    assert build(Thing, {"count": 3, "kind": "flat", "twice": 100}).twice == 6
