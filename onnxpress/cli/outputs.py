"""The files that an optimization writes: the model with its recipe, an HTML report, a JSON one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxpress import model_file
from onnxpress.cli.json_output import STANDARD_OUTPUT
from onnxpress.conversion import ort_paths
from onnxpress.errors import OutputError, UsageError
from onnxpress.output_file import check_output
from onnxpress.own_files import require_own_model, require_report
from onnxpress.report.html import require_html
from onnxpress.result import recipe_path, require_own_recipe
from onnxpress.targets import Target

__all__ = ["Outputs"]

_REPORTS = ("--report", "--json")
"""The others belong to the model beside them, and go with it."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write what.

    Attributes:
        model: the optimized model.
        report: an HTML report, or `None`.
        json: a file, `-` for standard output, or `None`.
        external_data: put the weights into a file of their own.
        force: replace files that are no earlier results of ours.
    """

    model: Path
    report: Path | None
    json: str | None
    external_data: bool
    force: bool

    def of_target(self, name: str) -> "Outputs":
        """The same for one target of several: its name goes before the suffix.

        Raises:
            UsageError: several JSON documents would go to standard output.
        """
        if self.json == STANDARD_OUTPUT:
            raise UsageError("--per-target writes several reports: give --json a file name [U008]")
        return Outputs(
            _named(self.model, name),
            self.report and _named(self.report, name),
            self.json and str(_named(Path(self.json), name)),
            self.external_data,
            self.force,
        )

    def check(
        self,
        source: Path,
        target: Target,
        read: Mapping[str, object],
        taken: dict[Path, str],
    ) -> None:
        """Refuse what cannot be written, before any work.

        Args:
            source: the model that is optimized.
            target: what it is for.
            read: other files that are only read, or `None`, by the option that names them.
            taken: files of other sets by what they are; ours are added.

        Raises:
            OutputError: a folder is missing, or a file that is read or is not ours would be
                overwritten.
            ModelError: the source is no ONNX model.
            UsageError: the target does not read external data, or the report needs a package.
        """
        self.require_target(target)
        check_output(self.model, source=source)
        taken.setdefault(source.resolve(), "the input")
        for option, file in read.items():
            if file is not None:
                taken.setdefault(Path(str(file)).resolve(), option)
        if any(path.exists() for _, path in self._files(target)):
            for file in model_file.files_of(source)[1:]:
                taken.setdefault(file.resolve(), "weights of the input")
        for what, path in self._files(target):
            check_output(path)
            place = path.resolve()
            if place in taken:
                kind = "the same file of another target" if taken[place] == what else taken[place]
                raise OutputError(
                    f"{path}: {what} would overwrite {kind}; give it a file of its own [O001]"
                )
            taken[place] = what
        require_own_recipe(self.model)
        if not self.force:
            require_own_model(self.model)
            for what, path in self._files(target):
                if what in _REPORTS:
                    require_report(path)

    def require_target(self, target: Target) -> None:
        """Refuse external data for a target that does not read it.

        Raises:
            UsageError: it does not.
        """
        if self.external_data and not target.external_data:
            raise UsageError(
                f"--external-data: {target.name} does not read weights in a file of "
                "their own [U008]"
            )

    def written(self, target: Target) -> list[Path]:
        """All files that will be there, in order."""
        return [path for _, path in self._files(target)]

    def _files(self, target: Target) -> Iterator[tuple[str, Path]]:
        """All that is written, by what it is."""
        yield "the model", self.model
        yield "the recipe", recipe_path(self.model)
        if target.file_forms[0] == "ort":
            form, operators = ort_paths(self.model)
            yield "the .ort form", form
            yield "the list of operators", operators
        if self.report is not None:
            require_html()
            yield "--report", self.report
        if self.json not in (None, STANDARD_OUTPUT):
            yield "--json", Path(str(self.json))


def _named(path: Path, target: str) -> Path:
    return path.with_suffix(f".{Path(target).stem}{path.suffix}")
