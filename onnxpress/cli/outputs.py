"""The files that an optimization writes: the model with its recipe, an HTML report, a JSON one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxpress import model_file
from onnxpress.cli.json_output import STANDARD_OUTPUT
from onnxpress.errors import OutputError, UsageError
from onnxpress.report import require_html
from onnxpress.result import recipe_path
from onnxpress.targets import Target

__all__ = ["Outputs"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write what.

    Attributes:
        model: the optimized model.
        report: an HTML report, or `None`.
        json: a file, `-` for standard output, or `None`.
        external_data: put the weights into a file of their own.
    """

    model: Path
    report: Path | None
    json: str | None
    external_data: bool

    def of_target(self, name: str) -> "Outputs":
        """The same for one target of several: its name goes before the suffix.

        Raises:
            UsageError: several JSON documents would go to standard output.
        """
        if self.json == STANDARD_OUTPUT:
            raise UsageError("--per-target writes several reports: give --json a file name")
        return Outputs(
            _named(self.model, name),
            self.report and _named(self.report, name),
            self.json and str(_named(Path(self.json), name)),
            self.external_data,
        )

    def check(self, source: Path, target: Target, read: Mapping[str, object]) -> None:
        """Refuse what cannot be written, before any work.

        Args:
            source: the model that is optimized.
            target: what it is for.
            read: other files that are only read, or `None`, by the option that names them.

        Raises:
            OutputError: a folder is missing, or a file that is read would be overwritten.
            UsageError: the target does not read external data, or the report needs a package.
        """
        if self.external_data and not target.external_data:
            raise UsageError(
                f"--external-data: {target.name} does not read weights in a file of their own"
            )
        model_file.check_output(self.model, source=source)
        files = {"the model": self.model, "the recipe": recipe_path(self.model)}
        if self.report is not None:
            require_html()
            files["--report"] = self.report
        if self.json not in (None, STANDARD_OUTPUT):
            files["--json"] = Path(str(self.json))
        taken: dict[Path, str] = {source.resolve(): "the input"}
        for option, file in read.items():
            if file is not None:
                taken.setdefault(Path(str(file)).resolve(), option)
        for what, path in files.items():
            model_file.check_output(path)
            other = taken.setdefault(path.resolve(), what)
            if other != what:
                raise OutputError(
                    f"{path}: {what} would overwrite {other}; give it a file of its own"
                )


def _named(path: Path, target: str) -> Path:
    return path.with_suffix(f".{Path(target).stem}{path.suffix}")
