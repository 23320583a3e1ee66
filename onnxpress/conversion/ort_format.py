"""Write the `.ort` form, which onnxruntime's mobile and minimal builds read.

The conversion is onnxruntime's own. Beside the model lies the list of operators it needs, from
which a minimal build is made (`--include_ops_by_config`).
"""

import contextlib
import io
import logging
import shutil
import warnings
from pathlib import Path

import onnxruntime as ort

from onnxpress.errors import OutputError, brief
from onnxpress.output_file import FileSet
from onnxpress.targets import Target
from onnxpress.temporary import temporary_folder

__all__ = ["ort_paths", "write_ort"]

_WARNING, _ERROR = 2, 3
"""onnxruntime's severities; warnings are its default."""


def write_ort(
    path: Path, target: Target, *, final: Path | None = None, files: FileSet | None = None
) -> list[Path]:
    """Write `.ort` and `.required_operators.config` beside a model file.

    A target whose provider is shown the Q/DQ pairs gets the graph with the basic optimizations
    and the rest saved for run time; the CPU provider's own gets all that can be done before.

    Args:
        path: the `.onnx` file.
        target: where the model will run.
        final: beside which model to write, instead of `path`.
        files: written together with others; `None`: at once.

    Raises:
        OutputError: onnxruntime cannot convert the model.
    """
    if files is None:
        with FileSet() as alone:
            return write_ort(path, target, final=final, files=alone)
    from onnxruntime.tools import convert_onnx_models_to_ort as tool  # noqa: PLC0415 - seldom

    # It tells on the log that it wrote the list of operators.
    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    fixed = target.partitioning == "all" and len(target.members) == 1
    style = tool.OptimizationStyle.Fixed if fixed else tool.OptimizationStyle.Runtime
    written = []
    with temporary_folder() as folder:
        source = Path(folder, path.name)
        shutil.copyfile(path, source)
        for data in path.parent.glob(f"{path.name}.*.data"):
            shutil.copyfile(data, Path(folder, data.name))
        said = io.StringIO()
        # The tool opens sessions of its own, which tell of every initializer they drop.
        ort.set_default_logger_severity(_ERROR)
        try:
            with contextlib.redirect_stdout(said), warnings.catch_warnings():
                # onnxruntime 1.32 leaves the closing of files to the garbage collector.
                warnings.simplefilter("ignore", ResourceWarning)
                tool.convert_onnx_models_to_ort(source, Path(folder), [style])
        except Exception as error:
            # onnxruntime raises bare C++ exceptions of many types.
            raise OutputError(
                f"{path}: onnxruntime cannot convert it to .ort: {brief(error)} [O007]"
            ) from error
        finally:
            ort.set_default_logger_severity(_WARNING)
        for made, place in zip((".ort", ".config"), ort_paths(final or path), strict=True):
            (found,) = sorted(Path(folder).glob(f"*{made}"))
            with files.stage(place) as temporary:
                shutil.copyfile(found, temporary)
            written.append(place)
    return written


def ort_paths(model_path: Path) -> tuple[Path, Path]:
    """Where the `.ort` form of a model file lies, and the list of operators."""
    return model_path.with_suffix(".ort"), model_path.with_suffix(".required_operators.config")
