"""Commands on a model of several GB: wall time, peak memory, address space; a Markdown table.

    python benchmarks/large_models.py MODEL [--commands inspect simplify ...] [--onnxpress COMMAND]
    python benchmarks/large_models.py MODEL --calibration 64 --commands quantize ...

MODEL is one that `large_decoder.py` has written; with --calibration the commands but `inspect` are
given so many drawn sequences of 128 words, and a quarter as many others to judge on. Each command
is a process tree of its own; memory is the sum of what its processes hold at once, looked at 50
times a second, with pages of mapped files counted. "Above the libraries" is without what `onnxpress
inspect` takes for a model of a few kB. Outputs go to a temporary folder beside MODEL and are
removed. A command that takes over --most-gb or --most-s is ended, and its row says so.
"""

import argparse
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from large_decoder import SMALL, write_decoder, write_samples

COMMANDS = {
    "inspect": "inspect MODEL",
    "simplify": "simplify MODEL -o OUT",
    "pack": "pack MODEL -o OUT",
    "quantize": "quantize MODEL --form weight_only -o OUT",
    "prune": "prune MODEL --ratio 0.8 -o OUT",
    "factorize": "factorize MODEL --ratio 0.8 -o OUT",
}
_INTERVAL_S = 0.02
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: of wall time.
        processor: seconds that all its processes computed, in all threads.
        resident: most bytes of all its processes at once.
        address: most bytes of address space of one of them.
        temporary: most bytes in the temporary folder.
        outcome: exit status, or why it was ended.
    """

    seconds: float
    processor: float
    resident: int
    address: int
    temporary: int
    outcome: str


def taken(command: list[str], folder: Path, most_bytes: float, most_s: float) -> Taken:
    """Run a command with `folder` for its temporary files, and watch it."""
    folder.mkdir(exist_ok=True)
    peak = address = temporary = 0
    outcome, start = "", time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | {"TMPDIR": str(folder)},
            start_new_session=True,
        ) as process,
    ):
        while process.poll() is None:
            held = [_memory(number) for number in _tree(process.pid)]
            peak = max(peak, sum(one for one, _ in held))
            address = max([address, *(one for _, one in held)])
            temporary = max(temporary, _bytes_in(folder))
            seconds = time.monotonic() - start
            if peak > most_bytes or seconds > most_s:
                outcome = "ended: memory" if peak > most_bytes else "ended: time"
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(_INTERVAL_S)
        seconds = time.monotonic() - start
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    if process.returncode and not outcome:
        outcome = f"status {process.returncode}"
        print(f"{shlex.join(command)}: {outcome}: {' '.join(words[-3:])}", file=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, processor, peak, address, temporary, outcome or "status 0")


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for number in found:
        for children in Path(f"/proc/{number}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def _memory(number: int) -> tuple[int, int]:
    """Resident bytes and address space of a process that may have ended."""
    try:
        pages = Path(f"/proc/{number}/statm").read_text().split()
    except OSError:
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[1]) * size, int(pages[0]) * size


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--onnxpress", default="onnxpress", help="with options, as one word")
    parser.add_argument("--options", default="", help="added to every command but inspect")
    parser.add_argument("--calibration", type=int, default=0, help="sequences; 0: no data")
    parser.add_argument("--most-gb", type=float, default=11.0)
    parser.add_argument("--most-s", type=float, default=600.0)
    given = parser.parse_args()
    program = shlex.split(given.onnxpress)
    options = shlex.split(given.options)
    limits = (given.most_gb * 1e9, given.most_s)
    heads = ("command", "wall s", "processor s", "peak MB", "above the libraries MB")
    heads += ("address space GB", "temporary GB", "output GB", "outcome")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    with tempfile.TemporaryDirectory(dir=given.model.parent) as name:
        folder = Path(name)
        small = write_decoder(folder / "small", SMALL)
        libraries = taken([*program, "inspect", str(small)], folder / "t", *limits).resident
        if given.calibration:
            for seed, what in enumerate(("calibration", "evaluation")):
                number = given.calibration // 4**seed
                data = write_samples(given.model, folder / f"{what}.npz", number, seed=seed)
                options += [f"--{what}", str(data)]
        for command in given.commands:
            output = folder / "out"
            output.mkdir()
            words = COMMANDS[command].split()
            words += options if command != "inspect" else []
            places = {"MODEL": str(given.model), "OUT": str(output / "out.onnx")}
            found = taken(
                [*program, *(places.get(word, word) for word in words)], folder / "t", *limits
            )
            print(
                f"| {command} | {found.seconds:.1f} | {found.processor:.1f} "
                f"| {found.resident / _MB:,.0f} "
                f"| {(found.resident - libraries) / _MB:,.0f} | {found.address / 1e9:.1f} "
                f"| {found.temporary / 1e9:.2f} | {_bytes_in(output) / 1e9:.2f} "
                f"| {found.outcome} |",
                flush=True,
            )
            for path in output.iterdir():
                path.unlink()
            output.rmdir()
            shutil.rmtree(folder / "t", ignore_errors=True)


if __name__ == "__main__":
    _main()
