"""The generator of `benchmarks/large_decoder.py`, small, and what was opened of a model."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest

from onnxpress import model_file
from onnxpress.runtime import Session

__all__ = ["small_decoder", "without_sessions_of"]


def _generator() -> ModuleType:
    name = "large_decoder"
    if name not in sys.modules:
        place = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def small_decoder(folder: Path, *, float16: bool = False, **shapes: int) -> Path:
    """The decoder of the benchmark with its cache and its external data, in half a megabyte."""
    generator = _generator()
    small = generator.SMALL
    fields = {name: getattr(small, name) for name in generator.Shapes.__slots__}
    path = generator.write_decoder(folder, generator.Shapes(**fields | shapes), float16=float16)
    assert isinstance(path, Path)
    return path


@contextmanager
def without_sessions_of(path: Path, patch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Within it, no session may hold a tenth of a model's weights; yields bytes of those opened."""
    most = model_file.weight_bytes(model_file.load(path)) / 10
    opened: list[int] = []
    usual = Session.__init__

    def init(self: Session, model: ir.Model | Path, **options: object) -> None:
        assert isinstance(model, ir.Model), f"a session of the file {model}"
        opened.append(model_file.weight_bytes(model))
        assert opened[-1] < most, "a session of the whole"
        usual(self, model, **options)  # type: ignore[arg-type] # handed on

    with patch.context() as own:
        own.setattr(Session, "__init__", init)
        # The weights of a small sibling are small.
        own.setattr("onnxpress.runtime.session._LARGE_BYTES", 1024)
        own.setattr("onnxpress.spill._LEAST_BYTES", 1024)
        yield opened
