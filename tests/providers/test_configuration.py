"""Provider options and the configuration file: what means nothing is refused by name."""

from pathlib import Path

import pytest
from command_line import message, run

pytestmark = pytest.mark.usefixtures("no_configuration")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ep.abacus]\npython = 'x'\n", "there is no such provider"),
        ("[ep.qnn]\npyhton = 'x'\n", "unknown key 'pyhton'"),
        ("[ep.qnn]\npython = 3\n", "python is 3"),
        ("[ep.qnn]\noptions = { soc_model = 57 }\n", "expected text"),
        ("[ep]\nqnn = 'x'\n", "expected a table"),
        ("ep = 1\n", "expected tables"),
        ("[ep.qnn\n", "cannot be read as TOML"),
    ],
)
def test_broken_configuration_is_named(
    tmp_path: Path, linear_model: Path, text: str, said: str
) -> None:
    config = tmp_path / "ep.toml"
    config.write_text(text, encoding="utf-8")
    result = run(
        *("validate", linear_model, "--reference", linear_model),
        *("--ep", "cpu", "--ep-config", config),
    )
    assert result.exit_code == 2
    assert "ep.toml" in message(result)
    assert said in message(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ep", "abacus"), "there is no execution provider 'abacus'"),
        (("--ep", "cpu", "--ep-time-limit", "0"), "time limit is 0"),
        (("--ep", "cpu", "--ep-config", "absent.toml"), "absent.toml: there is no such file"),
    ],
)
def test_provider_options_that_mean_nothing_are_refused_before_any_work(
    tmp_path: Path, linear_model: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run("optimize", linear_model, "-o", tmp_path / "out.onnx", *arguments)
    assert result.exit_code == 2
    assert said in message(result)
    assert not (tmp_path / "out.onnx").exists()
