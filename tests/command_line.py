"""How tests run the command line."""

from click.testing import CliRunner, Result

from onnxpress.cli import cli
from onnxpress.cli.exit_status import FAULT


def run(*arguments: object) -> Result:
    """Run the command line; what it calls a fault of its own is raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exit_code == FAULT and result.exception is not None:
        raise result.exception.__context__ or result.exception
    return result


def message(result: Result) -> str:
    """What a user reads, and no traceback."""
    assert "Traceback" not in result.output
    return result.output
