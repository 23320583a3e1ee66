"""The command line: parse, call, print. Each command is a module, imported when it is asked for."""

from onnxpress.cli.commands import cli, main

__all__ = ["cli", "main"]
