"""Commands that documents show are taken by the command line as it is."""

import re
import shlex
from pathlib import Path

import click
import pytest

from onnxpress.cli.commands import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    if "onnxpress " in page.read_text(encoding="utf-8")
)

_WRITTEN_ON_THE_PAGE = {"minifloat"}
"""The pass that docs/authors.md makes."""
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(onnxpress [^`]+)`")
_COMMAND = re.compile(r"(?:^|&& )(?:\S*/)?onnxpress (.*?)(?= && |$)")
_LEFT_OUT = re.compile(r"\s*(…|\.\.\.)\s*")


def commands(text: str) -> list[str]:
    """What stands behind `onnxpress`, in blocks of the shell and within lines."""
    lines = [
        line.partition("  #")[0]
        for block in _BLOCK.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [" ".join(inline.split()) for inline in _INLINE.findall(text.replace("\n", " "))]
    return [found for line in lines for found in _COMMAND.findall(line)]


def refused(arguments: str) -> str | None:
    """Why the command line does not take this; `None` where it does."""
    words = shlex.split(_LEFT_OUT.sub(" ", arguments))
    if not words or "|" in words or words[0].startswith("-") or not words[0].islower():
        return None
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None and command is cli:
            return None if words[0] in _WRITTEN_ON_THE_PAGE else f"{words[0]}: no such command"
        if found is None:
            break
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    try:
        values, _, order = command.make_parser(context).parse_args(words)
        for parameter in order:
            given = values.get(parameter.name)
            if isinstance(parameter.type, click.Choice) and given is not None:
                for one in given if isinstance(given, list) else [given]:
                    parameter.type.convert(one, parameter, context)
    except click.UsageError as error:
        return f"{arguments}: {error.format_message()}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_documented_commands_are_taken(page: Path) -> None:
    problems = [refused(command) for command in commands(page.read_text(encoding="utf-8"))]
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```sh\nonnxpress optimise m.onnx\n```", "no such command"),
        ("so `onnxpress optimize m.onnx --calibraton x` it is", "No such option"),
        ("```sh\nonnxpress optimize m.onnx \\\n    --goal fast\n```", "'fast' is not one of"),
    ],
)
def test_what_is_not_taken_is_found(text: str, reason: str) -> None:
    (found,) = [refused(command) for command in commands(text)]
    assert found is not None
    assert reason in found


def test_commands_are_found_in_blocks_and_lines() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(commands(text)) > 20
