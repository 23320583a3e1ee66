"""The command line: parse, call, print. Nothing heavy is imported before a command runs."""

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import onnxpress
from onnxpress import registry
from onnxpress.errors import OnnxpressError, UsageError

__all__ = ["main"]

FAILED, BAD_INPUT = 1, 2

EXISTING = click.Path(path_type=Path)


class _Group(click.Group):
    """Our commands and, after them, one command for each installed pass."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *registry.names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in registry.names():
            return _pass_command(cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = registry.nearest(args[0], self.list_commands(ctx))
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [
            (name, command.get_short_help_str(60))
            for name, command in sorted(self.commands.items())
        ]
        passes = [(name, registry.describe(name)) for name in registry.names()]
        for title, rows in (("Commands", own), ("One pass alone", passes)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(onnxpress.__version__, prog_name="onnxpress")
def cli() -> None:
    """Make an ONNX model smaller and faster, and prove what it cost.

    Start with: onnxpress optimize model.onnx --calibration samples.npz
    """


def _data_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "--calibration",
            metavar="DATA",
            help="Samples the passes may look at, no labels needed: a .npz with an array per "
            "input, a folder of ONNX test data sets, or module:function.",
        ),
        click.option(
            "--evaluation",
            metavar="DATA",
            help="Held-out samples the budget is judged on, with __labels__ where there are any. "
            "Without it, a third of the calibration samples.",
        ),
        click.option(
            "--max-drop",
            type=float,
            metavar="PERCENT",
            help="Points of the task metric that may be lost. Default 1 where there is a metric.",
        ),
        click.option(
            "--min-sqnr",
            type=float,
            metavar="DB",
            help="How close the worst output must stay. Default 20 where there is no metric.",
        ),
        click.option(
            "--metric",
            default="auto",
            show_default=True,
            metavar="NAME",
            help="auto, accuracy, agreement, none, or module:function.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _output_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "-o",
            "--output",
            type=EXISTING,
            metavar="FILE",
            help="Where to write the model. Default: MODEL with .opt.onnx.",
        ),
        click.option("--report", type=EXISTING, metavar="FILE.html", help="Write an HTML report."),
        click.option(
            "--json",
            "json_path",
            metavar="FILE",
            help="Write the report as JSON; - for standard output, and nothing else there.",
        ),
        click.option(
            "--external-data",
            is_flag=True,
            help="Put the weights into a file of their own, as is done above 2 GB.",
        ),
        click.option(
            "--goal",
            type=click.Choice(["balanced", "latency", "size"]),
            default="balanced",
            show_default=True,
            help="size accepts a slower model; the others never do.",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            default=["cpu"],
            show_default=True,
            help="See `onnxpress targets`. Several: one model good for all.",
        ),
        click.option(
            "--per-target",
            is_flag=True,
            help="One model for each target instead: FILE.TARGET.onnx.",
        ),
        click.option(
            "--fix-shape",
            "fix_shapes",
            multiple=True,
            metavar="NAME=1x3x224x224",
            help="Fix an input's shape, or with DIM=4 a symbolic dimension, before anything else.",
        ),
        click.option(
            "--float16",
            type=click.Choice(["no", "keep-io", "all"]),
            default="no",
            show_default=True,
            help="Half precision instead of integers; all: inputs and outputs too.",
        ),
        click.option(
            "--opset",
            type=click.IntRange(min=1),
            default=None,
            help="Convert to this opset. Without: down to the newest the target knows.",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of every choice."),
        click.option(
            "--time-limit",
            type=float,
            metavar="S",
            help="Seconds after which the search takes the best it has.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _provider_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "--ep",
            "ep",
            multiple=True,
            metavar="NAME",
            help="Run the result on this execution provider too, in a process of its own; may "
            "be repeated; `all` for every one. See `onnxpress doctor`.",
        ),
        click.option(
            "--require-ep",
            multiple=True,
            metavar="NAME",
            help="Fail unless this provider really ran it (or its emulator).",
        ),
        click.option(
            "--ep-config",
            type=EXISTING,
            metavar="FILE",
            help="Where the providers are. Default: onnxpress.toml here, else "
            "~/.config/onnxpress/config.toml.",
        ),
        click.option(
            "--ep-time-limit",
            type=float,
            default=300.0,
            show_default=True,
            metavar="S",
            help="Seconds for each provider.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _providers(options: dict[str, Any]) -> Any:
    """The provider options, taken out of a command's options."""
    from onnxpress.providers import ProviderOptions  # noqa: PLC0415

    return ProviderOptions(
        asked=options.pop("ep"),
        required=options.pop("require_ep"),
        config=options.pop("ep_config"),
        time_limit=options.pop("ep_time_limit"),
    )


def _run_options(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        help="onnxruntime's threads; 0: all cores.",
    )(function)
    return click.option(
        "--debug", is_flag=True, help="Show tracebacks, and what is done in detail."
    )(function)


@cli.command()
@click.argument("model", type=EXISTING)
@_data_options
@_output_options
@click.option("--passes", metavar="A,B,C", help="Only these passes; see `onnxpress passes`.")
@click.option(
    "--recipe", type=EXISTING, metavar="FILE.toml", help="Repeat these decisions, without a search."
)
@_provider_options
@_run_options
def optimize(model: Path, *, passes: str | None, recipe: Path | None, **options: Any) -> None:
    """Give back the smallest and fastest model that still agrees with MODEL."""
    names = None if passes is None else [name.strip() for name in passes.split(",") if name.strip()]
    if names is not None and not names:
        raise UsageError("--passes names none; see `onnxpress passes`")
    with _errors(debug=options.pop("debug")):
        _optimize(model, passes=names, recipe=recipe, providers=_providers(options), **options)


def _optimize(
    model: Path,
    *,
    output: Path | None,
    report: Path | None,
    json_path: str | None,
    external_data: bool,
    targets: tuple[str, ...],
    per_target: bool,
    opset: int | None,
    **options: Any,
) -> None:
    if per_target:
        base = output or model.with_suffix(".opt.onnx")
        done = [
            _optimize_one(
                model,
                output=base.with_suffix(f".{name}{base.suffix}"),
                report=report and report.with_suffix(f".{name}{report.suffix}"),
                json_path=_beside(json_path, name),
                external_data=external_data,
                target=name,
                opset=opset or 0,
                **options,
            )
            for name in dict.fromkeys(targets)
        ]
    else:
        one = _optimize_one(
            model,
            output=output or model.with_suffix(".opt.onnx"),
            report=report,
            json_path=json_path,
            external_data=external_data,
            target=targets,
            opset=opset or 0,
            **options,
        )
        done = [one]
    if not all(done):
        sys.exit(FAILED)


def _beside(json_path: str | None, name: str) -> str | None:
    if json_path == "-":
        raise UsageError("--per-target writes several reports: give --json a file name")
    if json_path is None:
        return None
    path = Path(json_path)
    return str(path.with_suffix(f".{name}{path.suffix}"))


def _optimize_one(
    model: Path,
    *,
    output: Path,
    report: Path | None,
    json_path: str | None,
    external_data: bool,
    **options: Any,
) -> bool:
    """Optimize, write and print; whether the model is within the budget."""
    from onnxpress.targets import load_target  # noqa: PLC0415

    aim = options["target"]
    target = load_target(aim if isinstance(aim, str) else "+".join(aim))
    if external_data and not target.external_data:
        raise UsageError(
            f"--external-data: {target.name} does not read weights in a file of their own"
        )
    from onnxpress import model_file  # noqa: PLC0415 - imports onnx
    from onnxpress.pipeline import optimize  # noqa: PLC0415 - imports onnxruntime
    from onnxpress.report import require_html, write_html  # noqa: PLC0415
    from onnxpress.report.console import print_result  # noqa: PLC0415

    if not model.exists():
        model_file.load(model)
    model_file.check_output(output, source=model)
    if report is not None:
        require_html()
        model_file.check_output(report)
    if json_path not in (None, "-"):
        model_file.check_output(Path(str(json_path)))
    with _progress() as progress:
        result = optimize(model, progress=progress, **options)
    document = result.report
    written = [str(path) for path in result.save(output, external_data=external_data)]
    if report is not None:
        write_html(document, report)
        written.append(str(report))
    if json_path is not None:
        _write_json(document, json_path)
        written += [json_path] if json_path != "-" else []
    if json_path != "-":
        print_result(document, written=written, console=_console())
    return result.within_budget


def _pass_command(name: str) -> click.Command:
    """A pass alone, its options read from its settings."""

    def run(model: Path, **options: Any) -> None:
        with _errors(debug=options.pop("debug")):
            settings = {s.name: options.pop(s.name) for s in registry.settings(registry.load(name))}
            _optimize(model, passes=[registry.create(name, settings)], recipe=None, **options)

    function = _data_options(_output_options(_run_options(run)))
    for setting in reversed(registry.settings(registry.load(name))):
        option = f"--{setting.name.replace('_', '-')}"
        if setting.type is bool:
            option += f"/--no-{option[2:]}"
        function = click.option(
            option,
            setting.name,
            type=setting.type,
            default=setting.default,
            show_default=True,
            help=setting.help,
        )(function)
    function = click.argument("model", type=EXISTING)(function)
    return click.command(name, help=f"{registry.describe(name)}.")(function)


@cli.command()
@click.argument("model", type=EXISTING)
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def inspect(model: Path, *, json_path: str | None, debug: bool) -> None:
    """Show what is in MODEL, what could be pressed and what not, and why."""
    with _errors(debug=debug):
        from onnxpress.inspection import inspect_model  # noqa: PLC0415
        from onnxpress.report.console import print_table  # noqa: PLC0415

        found = inspect_model(model)
        if json_path is not None:
            _write_json(found, json_path)
            if json_path == "-":
                return
        console = _console()
        console.print(
            f"opset {found['opset']}, {found['bytes'] / 1e6:.2f} MB, {found['nodes']} nodes, "
            f"{found['layers']} layers with a constant weight"
        )
        rows = [
            (entry["name"], entry["operator"], str(entry["shape"]), f"{entry['bytes']:,}")
            for entry in found["largest"]
        ]
        print_table("largest layers", ("layer", "operator", "shape", "bytes"), rows, console)
        operators = ", ".join(f"{name} {count}" for name, count in found["operators"].items())
        console.print(f"operators: {operators}")
        for entry in found["passes"]:
            console.print(f"[bold]{entry['pass']}[/] {entry['sites']} sites without data")
            for reason, count in entry["reasons"].items():
                console.print(f"  {count} left: {reason}", markup=False)


@cli.command()
@click.argument("model", type=EXISTING)
@click.option("--reference", type=EXISTING, required=True, help="The original model.")
@_data_options
@_provider_options
@click.option("--seed", type=int, default=0, help="Of random inputs.")
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
@_run_options
def validate(
    model: Path,
    *,
    reference: Path,
    calibration: str | None,
    evaluation: str | None,
    max_drop: float | None,
    min_sqnr: float | None,
    metric: str,
    seed: int,
    json_path: str | None,
    threads: int,
    debug: bool,
    **options: Any,
) -> None:
    """Compare MODEL with its original: interface, fidelity, task, speed, and on providers."""
    with _errors(debug=debug):
        from onnxpress.judge import Budget  # noqa: PLC0415
        from onnxpress.report.console import print_validation  # noqa: PLC0415
        from onnxpress.report.document import validation_document  # noqa: PLC0415
        from onnxpress.validation import validate  # noqa: PLC0415

        with _progress() as progress:
            found = validate(
                model,
                reference,
                evaluation=evaluation or calibration,
                budget=Budget(max_drop, min_sqnr, metric),
                threads=threads,
                seed=seed,
                providers=_providers(options),
                progress=progress,
            )
        document = validation_document(found)
        if json_path is not None:
            _write_json(document, json_path)
        if json_path != "-":
            print_validation(document, _console())
        if not found.within_budget:
            sys.exit(FAILED)


@cli.command()
@click.argument("model", type=EXISTING)
@click.argument("others", type=EXISTING, nargs=-1)
@click.option("--data", metavar="DATA", help="Samples; the first is timed. Default: random.")
@_run_options
def bench(
    model: Path, *, others: tuple[Path, ...], data: str | None, threads: int, debug: bool
) -> None:
    """Time OTHERS against MODEL in interleaved rounds."""
    with _errors(debug=debug):
        from onnxpress.data import load_samples, random_samples  # noqa: PLC0415
        from onnxpress.model_file import load  # noqa: PLC0415
        from onnxpress.report.console import print_table  # noqa: PLC0415
        from onnxpress.runtime import Session, compare_latency  # noqa: PLC0415

        for path in (model, *others):
            load(path)
        first = Session(model, threads=threads, name=str(model))
        samples = random_samples(first, 1, 0) if data is None else load_samples(data, first.inputs)
        rows = []
        for other in others or (model,):
            session = Session(other, threads=threads, name=str(other))
            found = compare_latency(first, session, samples.feeds[0])
            rows.append(
                (
                    str(other),
                    f"{found.median_ms:.3g}",
                    f"{found.reference_ms:.3g}",
                    f"{found.speedup:.2f}",
                    f"{found.low:.2f} to {found.high:.2f}",
                )
            )
        headings = ("model", "ms", f"{model.name} ms", "speedup", "quartiles")
        print_table("latency", headings, rows, _console())


@cli.command()
def passes() -> None:
    """List the installed passes."""
    from onnxpress.report.console import print_table  # noqa: PLC0415

    rows = [(name, registry.describe(name)) for name in registry.names()]
    print_table("passes", ("name", "what it does"), rows, _console())


@cli.group(invoke_without_command=True)
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
@click.pass_context
def targets(ctx: click.Context, *, json_path: str | None) -> None:
    """List the targets; `show` explains one, `check` asks its rules about a model."""
    if ctx.invoked_subcommand is not None:
        return
    with _errors(debug=False):
        from onnxpress.report.targets import print_targets, target_document  # noqa: PLC0415
        from onnxpress.targets import load_target, target_names  # noqa: PLC0415

        found = [load_target(name) for name in target_names()]
        if json_path is not None:
            _write_json({target.name: target_document(target) for target in found}, json_path)
        if json_path != "-":
            print_targets(found, _console())


@targets.command()
@click.argument("name")
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
def show(name: str, *, json_path: str | None) -> None:
    """Explain the target NAME, or the common ground of several: NAME+NAME."""
    with _errors(debug=False):
        from onnxpress.report.targets import print_target, target_document  # noqa: PLC0415
        from onnxpress.targets import load_target  # noqa: PLC0415

        target = load_target(name)
        if json_path is not None:
            _write_json(target_document(target), json_path)
        if json_path != "-":
            print_target(target, _console())


@targets.command()
@click.argument("model", type=EXISTING)
@click.option(
    "--target", "names", multiple=True, required=True, help="Whose rules; may be repeated."
)
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def check(model: Path, *, names: tuple[str, ...], json_path: str | None, debug: bool) -> None:
    """Ask the rules of targets which nodes of MODEL they would take; nothing is run."""
    with _errors(debug=debug):
        from onnxpress.model_file import load  # noqa: PLC0415
        from onnxpress.report.targets import print_static, static_document  # noqa: PLC0415
        from onnxpress.targets import load_target  # noqa: PLC0415
        from onnxpress.targets.static_rules import static_report  # noqa: PLC0415

        loaded = load(model)
        members = [member for name in names for member in load_target(name).members]
        reports = [static_report(loaded, load_target(member)) for member in dict.fromkeys(members)]
        if json_path is not None:
            _write_json({report.target: static_document(report) for report in reports}, json_path)
        if json_path != "-":
            for report in reports:
                print_static(report, _console())


@cli.command()
@click.option("--run", is_flag=True, help="Run a small model on every provider that is there.")
@click.option(
    "--install",
    multiple=True,
    metavar="NAME",
    help="Make this provider's environment in .venv-ep first and note it in onnxpress.toml; "
    "`all` for every one that can be.",
)
@click.option("--ep-config", type=EXISTING, metavar="FILE", help="Where the providers are.")
@click.option("--json", "json_path", metavar="FILE", help="As JSON; - for standard output.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def doctor(
    *,
    run: bool,
    install: tuple[str, ...],
    ep_config: Path | None,
    json_path: str | None,
    debug: bool,
) -> None:
    """Show versions, the processor, and what this machine can run or emulate."""
    with _errors(debug=debug):
        from onnxpress.doctor import examine  # noqa: PLC0415
        from onnxpress.installer import install as made  # noqa: PLC0415
        from onnxpress.report.console import print_doctor  # noqa: PLC0415

        for name, outcome in made(install):
            click.echo(f"{name}: {outcome}", err=True)
        with _progress() as progress:
            found = examine(ep_config, run=run, progress=progress)
        if json_path is not None:
            _write_json(found, json_path)
        if json_path != "-":
            print_doctor(found, _console())
        if found["problems"]:
            sys.exit(FAILED)


def _console() -> Any:
    from onnxpress.report.console import console_for  # noqa: PLC0415 - imports rich

    return console_for()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A status line while a person watches; silence otherwise."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(escape(text))


def _write_json(document: Mapping[str, Any], path: str) -> None:
    text = json.dumps(document, indent=2, allow_nan=False)
    if path == "-":
        click.echo(text)
        return
    from onnxpress.model_file import replace_file  # noqa: PLC0415

    with replace_file(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _errors(*, debug: bool) -> Iterator[None]:
    """Turn what a user can mend into one message and exit status 2."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.CRITICAL,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if debug:
        yield
        return
    try:
        yield
    except OnnxpressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)


def main() -> None:
    """Run the command line."""
    try:
        cli.main(standalone_mode=True)
    except OnnxpressError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
