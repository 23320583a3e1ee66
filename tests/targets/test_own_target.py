"""A target from a user's own file, by its path: alone, built on others, in a common ground."""

import shutil
from pathlib import Path

import onnx_ir as ir
import pytest
from command_line import message, run

import onnxpress
from onnxpress.errors import UsageError
from onnxpress.targets import OperatorRule, load_target
from onnxpress.targets.static_rules import static_report

BUILT_IN = Path(onnxpress.__file__).parent / "targets"

BOARD = """
members = ["{member}"]
description = "a board in the cellar"
{fields}
[sources]
maximum_opset = "measured"
weight_bits = "measured"
operators = "measured"
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def board(name: str = "board.toml", *, member: str = "cpu", fields: str = "") -> str:
    path = Path(name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(BOARD.format(member=member, fields=fields))
    return name


def test_a_whole_file_is_read_by_its_path() -> None:
    shutil.copyfile(BUILT_IN / "qnn.toml", "mine.toml")
    mine = load_target("./mine.toml")
    assert (mine.name, mine.members) == ("./mine.toml", ("./mine.toml",))
    assert mine.layouts == load_target("qnn").layouts
    assert mine.operators == load_target("qnn").operators


def test_a_file_that_builds_on_one_target_is_a_target_of_its_own() -> None:
    mine = load_target(board(fields="maximum_opset = 17"))
    cpu = load_target("cpu")
    assert mine.members == ("board.toml",)
    assert (mine.maximum_opset, mine.minimum_opset) == (17, cpu.minimum_opset)
    assert mine.sources["maximum_opset"] == "measured"
    assert mine.sources["layouts"] == cpu.sources["layouts"]


def test_what_follows_from_the_layouts_follows_from_those_of_the_file() -> None:
    fields = 'layouts = ["s8s8"]\nper_channel_layouts = []'
    path = Path(board(fields=fields))
    path.write_text(path.read_text() + 'layouts = "ran"\nper_channel_layouts = "ran"\n')
    mine = load_target("board.toml")
    assert (mine.activation_type, mine.weight_type, mine.per_channel) == ("int8", "int8", False)


def test_operators_of_a_file_are_put_beside_those_it_builds_on() -> None:
    fields = 'plain_operators = ["Erf"]\n[operators.Conv]\nranks = [3]\nquantized = ["u8u8"]'
    mine = load_target(board(member="nnapi", fields=fields))
    nnapi = load_target("nnapi")
    assert set(mine.operators) == {*nnapi.operators, "Erf"}
    assert mine.operators["Conv"] == OperatorRule(ranks=(3,), quantized=("u8u8",))


def test_rules_of_a_file_are_asked_about_a_model() -> None:
    rules = board(member="nnapi", fields='plain_operators = ["Erf"]')
    value = ir.val("x", ir.DataType.FLOAT, ir.Shape([1, 4]))
    node = ir.node("Erf", [value])
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 17})
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    model = ir.Model(graph, ir_version=9)
    assert static_report(model, load_target(rules)).taken == 1
    assert static_report(model, load_target("nnapi")).taken == 0


def test_members_of_a_file_are_paths_from_that_file() -> None:
    board("boards/old/base.toml", fields="weight_bits = 7")
    mine = board("boards/new.toml", member="old/base.toml", fields="maximum_opset = 17")
    assert load_target(mine).weight_bits == 7


@pytest.mark.parametrize("name", ["qnn+./board.toml", "./board.toml+qnn"])
def test_a_path_meets_a_built_in_target(name: str) -> None:
    board(fields="maximum_opset = 17")
    ground = load_target(name)
    assert ground.name == name
    assert set(ground.members) == {"./board.toml", "qnn"}
    assert ground.maximum_opset == 17
    assert all(load_target(member) for member in ground.members)


def test_a_path_with_a_plus_in_it_stands_alone() -> None:
    board("a+b.toml", fields="maximum_opset = 17")
    assert load_target("a+b.toml").members == ("a+b.toml",)


def test_an_unknown_name_suggests_the_nearest_and_says_that_paths_work() -> None:
    with pytest.raises(UsageError, match=r"'tensort'; did you mean 'tensorrt'\?.*\.toml works"):
        load_target("tensort")


def test_a_missing_file_is_named_with_the_target_that_may_be_meant() -> None:
    with pytest.raises(UsageError, match=r"no file \./qnm\.toml; did you mean 'qnn'\?"):
        load_target("cpu+./qnm.toml")


def test_a_member_that_does_not_exist_is_named_with_the_file_that_names_it() -> None:
    with pytest.raises(UsageError, match=r"board\.toml: members: there is no target 'cpuu'"):
        load_target(board(member="cpuu"))
    with pytest.raises(UsageError, match=r"board\.toml: members: there is no file other\.toml"):
        load_target(board(member="other.toml"))


def test_files_that_build_on_each_other_are_refused() -> None:
    board("boards/a.toml", member="../boards/b.toml")
    board("boards/b.toml", member="../boards/a.toml")
    with pytest.raises(UsageError, match="members leads back to itself: "):
        load_target("boards/a.toml")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("maximum_opset = 9", "minimum_opset is above maximum_opset: 13 and 9"),
        ("maximum_opsets = 9", "unknown field 'maximum_opsets'; did you mean 'maximum_opset'?"),
        ("rank_quantum = 8", "[sources] says nothing of 'rank_quantum'"),
        ("weight_bits = 9", "weight_bits is 9; expected one of 7, 8"),
        ("[operators.Conv]", "partitioning is all and operators names 1; expected none"),
        ("name = 'x'", "unknown field 'name'"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_path(fields: str, expected: str) -> None:
    board("boards/mine.toml", fields=fields)
    with pytest.raises(UsageError) as caught:
        load_target("boards/mine.toml")
    assert str(caught.value).startswith("boards/mine.toml: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("members", ["[]", "'cpu'", "[1]"])
def test_members_that_are_no_names_are_refused(members: str) -> None:
    Path("mine.toml").write_text(f"members = {members}\ndescription = ''\n[sources]\n")
    with pytest.raises(UsageError, match=r"mine\.toml: members is .*expected a list of names"):
        load_target("mine.toml")


def test_rules_of_a_common_ground_cannot_be_changed() -> None:
    path = Path(board(fields='plain_operators = ["Erf"]'))
    path.write_text(path.read_text().replace('["cpu"]', '["nnapi", "qnn"]'))
    with pytest.raises(UsageError, match="operators cannot be changed in the common ground of"):
        load_target("board.toml")


def test_a_file_that_is_no_text_or_no_file_is_refused() -> None:
    Path("binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"binary\.toml is not TOML: it is not text in UTF-8"):
        load_target("binary.toml")
    Path("folder.toml").mkdir()
    with pytest.raises(UsageError, match=r"folder\.toml cannot be read: Is a directory"):
        load_target("folder.toml")


def test_the_command_line_takes_a_path_and_the_recipe_keeps_it(models: Path) -> None:
    path = board(fields="maximum_opset = 17")
    explained = run("targets", "show", path)
    assert explained.exit_code == 0, explained.output
    assert "maximum_opset: 17\n    measured" in explained.output
    source = models / "fashion_mlp.onnx"
    pressed = run("simplify", source, "--target", path, "-o", "small.onnx")
    assert pressed.exit_code == 0, pressed.output
    (recipe,) = Path().glob("small*recipe*.toml")
    assert 'target = "board.toml"' in recipe.read_text()


def test_the_command_line_names_a_mistake_in_a_file() -> None:
    refused = run("targets", "show", board(fields="weight_bits = 9"))
    assert refused.exit_code == 2
    assert "board.toml: weight_bits is 9; expected one of 7, 8" in message(refused)
