"""Lines with and without secrets, as credsweeper hands them to its network."""

import string
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from samples import Samples
from samples.text import glosses

NAMES = ("password", "api_key", "token", "secret", "auth", "passwd", "client_secret", "key", "salt")
FORMS = (
    '{name} = "{value}"',
    "{name}: {value}",
    "export {name}={value}",
    '"{name}": "{value}",',
    'connect(user, {name}="{value}")',
    "<{name}>{value}</{name}>",
    "# set {name} to {value} first",
)
INPUTS = ("line_input", "variable_input", "value_input", "feature_input")
ENDINGS = (".py", ".yaml", ".json", ".sh", ".conf", ".xml")


def secrets(cache: Path) -> tuple[Samples, Samples]:
    """128 and 256 candidates, in invented settings and in installed Python files."""
    del cache
    rng = np.random.default_rng(23)
    made = _candidates(rng, iter(glosses()[60000:]), slice(0, None, 2), 384)
    order = rng.permutation(len(made["feature_input"]))
    parts = [{name: x[part] for name, x in made.items()} for part in (order[:128], order[128:])]
    return parts[0], parts[1]


def secrets_fresh(cache: Path) -> Samples:
    """Up to 1,024 in other settings and other files."""
    del cache
    rng = np.random.default_rng(123)
    return _candidates(rng, iter(glosses()[66000:]), slice(1, None, 2), 1024)


def _candidates(
    rng: np.random.Generator, lines: Iterator[str], which: slice, count: int
) -> Samples:
    """What the package's scanner asks its network about; half of it in files that are installed."""
    installed = sorted(Path(sys.prefix).rglob("*.py"))[which]
    order = rng.permutation(len(installed))[:1000]
    with tempfile.TemporaryDirectory() as folder:
        invented = [
            _settings(Path(folder) / f"settings{number}{ENDINGS[number % 6]}", rng, lines)
            for number in range(count // 3)
        ]
        asked = [_asked(invented), _asked([installed[place] for place in order.tolist()])]
    drawn = [rng.permutation(len(made["line_input"]))[: count // 2] for made in asked]
    return {
        name: np.concatenate([made[name][part] for made, part in zip(asked, drawn, strict=True)])
        for name in asked[0]
    }


def _asked(paths: Sequence[Path]) -> Samples:
    """The network's inputs, recorded while the package scans files."""
    # Both are needed for this model only.
    from credsweeper.app import CredSweeper  # noqa: PLC0415
    from credsweeper.file_handler.files_provider import FilesProvider  # noqa: PLC0415
    from credsweeper.ml_model.ml_validator import MlValidator  # noqa: PLC0415

    fed: dict[str, list[np.ndarray]] = {}

    def recorded(_: object, *inputs: np.ndarray) -> np.ndarray:
        for name, x in zip(INPUTS, inputs, strict=True):
            fed.setdefault(name, []).append(x.astype(np.float32))
        return np.zeros((len(inputs[0]), 1), np.float32)

    MlValidator._call_model = recorded  # noqa: SLF001 - the package has no public way to its inputs
    CredSweeper(stdout=False).run(FilesProvider([str(path) for path in paths]))
    return {name: np.concatenate(batches) for name, batches in fed.items()}


def _settings(path: Path, rng: np.random.Generator, lines: Iterator[str]) -> Path:
    """A file of twelve settings: random characters, words, or a placeholder for a value."""
    letters = np.array(list(string.ascii_letters + string.digits + "+/=_-"))
    written = []
    for _ in range(12):
        words = next(lines).split()
        random = "".join(rng.choice(letters, int(rng.integers(8, 48))))
        value = rng.choice([random, random, "".join(words[:3]), words[0], "${SECRET}", "changeme1"])
        written += [
            " ".join(words),
            str(rng.choice(FORMS)).format(name=rng.choice(NAMES), value=value),
        ]
    path.write_text("\n".join(written), encoding="utf-8")
    return path
