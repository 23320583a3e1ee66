"""Targets: every file is read and proven, tables are intersected, mistakes are named."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.errors import UsageError
from onnxpress.targets import LAYOUTS, intersect, load_target, target_names
from onnxpress.targets.reader import parse_target

SINGLE = [name for name in target_names() if name != "mobile"]
FOLDER = Path(__file__).parents[2] / "onnxpress" / "targets"


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.toml").read_text("utf-8")


def test_every_target_of_the_issue_has_a_file() -> None:
    wanted = "cpu cpu-arm64 cuda tensorrt openvino qnn xnnpack nnapi coreml webgpu web mobile"
    assert sorted(wanted.split()) == target_names()


@pytest.mark.parametrize("name", SINGLE)
def test_operators_of_a_target_exist_in_onnx(name: str) -> None:
    attributes: dict[str, set[str]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        attributes.setdefault(schema.name, set()).update(schema.attributes)
    target = load_target(name)
    assert set(target.operators) <= set(attributes)
    # Of onnxruntime's own operators one is a form to offer, not a node to expect.
    assert target.quantized_operators - {"DynamicQuantizeLSTM"} <= set(attributes)
    for operator, rule in target.operators.items():
        assert set(rule.attributes) <= attributes[operator], operator


@pytest.mark.parametrize("name", SINGLE)
def test_no_operator_is_preferred_in_integers_that_is_taken_in_float_only(name: str) -> None:
    target = load_target(name)
    for operator in target.quantized_operators:
        assert (
            not target.takes(operator)
            or target.takes_quantized(operator)
            or operator.startswith("DynamicQuantize")
        )


def test_a_processor_without_dot_products_gets_seven_bits() -> None:
    assert parse_target("cpu", text_of("cpu"), frozenset({"avx2"})).weight_bits == 7
    assert parse_target("cpu", text_of("cpu"), frozenset({"avx_vnni"})).weight_bits == 8


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("blocked_layout = true", "blocked = true", "unknown field 'blocked'"),
        ("blocked_layout = true\n", "", "field 'blocked_layout' is missing"),
        (
            "rank_quantum = 16",
            "rank_quantum = 'many'",
            "rank_quantum is 'many'; expected a whole number",
        ),
        (
            "rank_quantum = 16",
            "rank_quantum = true",
            "rank_quantum is True; expected a whole number",
        ),
        (
            "rank_quantum = 16",
            "rank_quantum = 0",
            "rank_quantum is 0; expected a whole number at least 1",
        ),
        (
            'layouts = ["u8u8", "s8s8"]',
            'layouts = ["u8s9"]',
            "layouts[0] is 'u8s9'; expected one of",
        ),
        (
            'per_channel_layouts = ["s8s8"]',
            'per_channel_layouts = ["u8s8"]',
            "per_channel_layouts names layouts that",
        ),
        (
            'partitioning = "kernels"',
            'partitioning = "some"',
            "partitioning is 'some'; expected one of all, kernels, compiled",
        ),
        ('partitioning = "kernels"', 'partitioning = "all"', "expected none where all are taken"),
        ("maximum_opset = 18", "maximum_opset = 9", "minimum_opset is above maximum_opset"),
        ('types = ["float"]', "types = [1]", "types[0] is 1; expected text"),
        ('float16 = "by source', '_float16 = "by source', "[sources] says nothing of 'float16'"),
        ("[sources]", "[sources]\nfloat = 'x'", "names 'float', which is no field; did you mean"),
        ("ranks = [4]", "rank = [4]", "unknown field 'operators.Conv.rank'; did you mean 'ranks'?"),
        ("newest = 11", "newest = [11]", "operators.Conv.newest is [11]; expected a whole number"),
        (
            "plain_operators = []",
            "plain_operators = [1]",
            "plain_operators is [1]; expected a list",
        ),
        ("[sources]", "[unless_processor_has]\n[sources]", "unless_processor_has needs any_of"),
        (
            "[sources]",
            "[unless_processor_has]\nany_of = ['x']\nweight_bits = 9\n[sources]",
            "unless_processor_has.weight_bits is 9; expected one of 7, 8",
        ),
        ("[operators.Gemm]", "[operators.Gemm", "is not TOML"),
        ('quantized_operators = ["Conv"', 'quantized_operators = ["Gemm"', "takes in float"),
    ],
)
def test_a_mistake_in_a_file_is_named(old: str, new: str, expected: str) -> None:
    text = text_of("xnnpack")
    assert old in text
    with pytest.raises(UsageError, match=r"xnnpack\.toml") as caught:
        parse_target("xnnpack", text.replace(old, new, 1), frozenset())
    assert expected in str(caught.value)


def test_targets_that_exclude_each_other_are_named_with_the_field() -> None:
    with pytest.raises(UsageError, match=r"'tensorrt' and 'nnapi'.*layouts is s8s8.*--per-target"):
        load_target("tensorrt+nnapi")


def test_the_ground_of_one_target_is_itself() -> None:
    assert intersect([load_target("qnn")]) == load_target("qnn")
    assert load_target("qnn+qnn") == load_target("qnn")


def test_the_phones_share_unsigned_layouts_and_convolutions() -> None:
    mobile = load_target("mobile")
    assert mobile.layouts == ("u8u8",)
    assert not mobile.per_channel
    assert {"Conv", "Add"} <= mobile.quantized_operators
    # NNAPI pools over everything in float only, XNNPACK multiplies matrices in float only.
    assert not {"GlobalAveragePool", "Gemm", "MatMul"} & mobile.quantized_operators
    assert mobile.maximum_opset == 18
    assert mobile.static_shapes


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(SINGLE), min_size=1, max_size=4, unique=True), st.randoms())
def test_common_ground_does_not_depend_on_the_order(names: list[str], random: object) -> None:
    def ground(order: list[str]) -> tuple[object, ...] | None:
        try:
            found = load_target("+".join(order))
        except UsageError:
            return None
        return (
            set(found.layouts),
            found.quantized_operators,
            found.weight_bits,
            found.maximum_opset,
            set(found.file_forms),
            found.float16,
            found.channel_quantum,
        )

    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ground(names) == ground(shuffled)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(SINGLE), min_size=2, max_size=4, unique=True))
def test_common_ground_asks_no_more_than_any_member_gives(names: list[str]) -> None:
    try:
        ground = load_target("+".join(names))
    except UsageError:
        return
    for name in names:
        member = load_target(name)
        assert set(ground.layouts) <= set(member.layouts)
        assert ground.maximum_opset <= member.maximum_opset
        assert ground.weight_bits <= member.weight_bits
        for operator in ground.quantized_operators:
            assert operator in member.quantized_operators or not member.takes(operator)
    if ground.layouts:
        assert LAYOUTS[ground.layouts[0]].weight_type == ground.weight_type
