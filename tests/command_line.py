"""How tests run the command line."""

from click.testing import CliRunner, Result

from onnxpress.cli import cli
from onnxpress.errors import OnnxpressError


def run(*arguments: object) -> Result:
    """Run the command line as `main` does."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(result.exception, OnnxpressError):
        result.exit_code = 2
    return result


def message(result: Result) -> str:
    """What a user reads, and no traceback."""
    assert "Traceback" not in result.output
    if isinstance(result.exception, OnnxpressError):
        return str(result.exception)
    return result.output
