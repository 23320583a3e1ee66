"""The command of a pass alone: its settings are the options."""

from pathlib import Path
from typing import Any

import click

from onnxpress import registry
from onnxpress.cli.choice import Choice
from onnxpress.cli.optimization import optimize_and_write
from onnxpress.cli.options import (
    PATH,
    data_options,
    file_options,
    goal_options,
    selection_options,
    threads_option,
)
from onnxpress.cli.saying import saying_options
from onnxpress.errors import UsageError
from onnxpress.settings import Setting, settings_of

__all__ = ["command_of", "option_of"]


def command_of(name: str) -> click.Command:
    """The command of an installed pass.

    Raises:
        UsageError: no such pass is installed, or a setting has the name of an option of all passes.
    """
    settings = settings_of(registry.load(name))

    def run(model: Path, **options: Any) -> None:
        given = {setting.name: options.pop(setting.name) for setting in settings}
        chosen = {key: value for key, value in given.items() if value is not None}
        passes = [registry.create(name, chosen)]
        optimize_and_write(model, passes=passes, recipe=None, **options)

    for decorate in (
        threads_option,
        saying_options,
        selection_options,
        goal_options,
        file_options,
        data_options,
    ):
        run = decorate(run)
    command = click.command(name, help=f"{registry.describe(name)}.")(run)
    own = [option_of(setting) for setting in settings]
    shared = {parameter.name for parameter in command.params} | {"model", "help"}
    for option in own:
        if option.name in shared:
            raise UsageError(
                f"pass {name!r}: its setting {option.name!r} has the name of an option of every "
                "pass; its authors have to call it otherwise [U012]"
            )
    command.params[:0] = [click.Argument(["model"], type=PATH), *own]
    return command


def option_of(setting: Setting) -> click.Option:
    """The option of a setting; its value is checked by the pass."""
    flag = f"--{setting.name.replace('_', '-')}"
    bounds = f" ({setting.bounds_text})." if setting.bounds_text else ""
    if setting.kind is bool and not setting.many:
        flag += f"/--no-{flag[2:]}"
    return click.Option(
        [flag, setting.name],
        type=Choice(setting.choices) if setting.choices else setting.kind,
        default=setting.default,
        multiple=setting.many,
        show_default=setting.default not in (None, (), ""),
        help=setting.help.rstrip(".") + bounds if bounds else setting.help,
    )
