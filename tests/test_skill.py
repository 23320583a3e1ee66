"""`SKILL.md`: every command and option it names exists, and so do codes, keys and verdicts."""

import json
import re
from pathlib import Path

import click
import pytest

from onnxpress import registry
from onnxpress.cli.commands import cli
from onnxpress.codes import explained
from onnxpress.judge import Budget
from onnxpress.judge.verdict import Verdict

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SKILL.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")
LINES = [code for code in CODE.findall(TEXT) if code.startswith("onnxpress ")]
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_CODE_OF_MESSAGE = re.compile(r"\b[A-Z]\d{3}\b")


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line calls, through groups, and the words behind it."""
    context, found = click.Context(cli), cli
    while isinstance(found, click.Group):
        if not words or words[0].startswith("-"):
            break
        inner = found.get_command(context, words[0])
        if inner is None:
            break
        found, words = inner, words[1:]  # type: ignore[assignment]
    return found, words


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    } | {"--help"}


def test_front_matter_has_a_name_and_says_when_it_is_of_use() -> None:
    _, front, _ = TEXT.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert fields.keys() == {"name", "description"}
    assert fields["name"] == "onnxpress"
    assert "Use when" in fields["description"]
    assert len(fields["description"]) <= 1024


@pytest.mark.parametrize("line", LINES)
def test_a_command_exists_with_its_options(line: str) -> None:
    command, rest = command_of(line.split()[1:])
    assert command is not cli, f"{line}: there is no such command"
    unknown = set(_OPTION.findall(line)) - options_of(command)
    assert not unknown, f"{line}: {command.name} has no {', '.join(sorted(unknown))}"
    arguments = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    assert len([word for word in rest if not word.startswith("-")]) >= len(arguments)


def test_every_option_alone_is_one_of_a_command() -> None:
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in cli.list_commands(context)]
    known = {option for one in commands if one is not None for option in options_of(one)}
    assert set(_OPTION.findall(TEXT)) <= known | {"--target"}


def test_commands_and_passes_are_all_named() -> None:
    named = {line.split()[1] for line in LINES} | set(CODE.findall(TEXT))
    # A page for a person, completion aside: an assistant does not open it.
    assert {*cli.list_commands(click.Context(cli)), *registry.names()} - named <= {"view"}


def test_codes_verdicts_and_budgets_are_those_of_the_tool() -> None:
    assert set(_CODE_OF_MESSAGE.findall(TEXT)) <= set(explained())
    for verdict in Verdict:
        assert f"`{verdict}`" in TEXT
    assert Budget().max_drop is None, "the defaults below are the judge's"
    assert "Defaults: 1 point; 20 dB." in TEXT


def test_keys_are_those_of_the_schema() -> None:
    schema = json.loads((ROOT / "onnxpress" / "report" / "schema.json").read_text())
    table = TEXT.partition("| key | what it is |")[2].partition("\n\n")[0]
    keys = {key for row in table.splitlines()[2:] for key in CODE.findall(row.split("|")[1])}
    assert keys
    assert keys <= schema["properties"].keys()
