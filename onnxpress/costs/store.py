"""Tables on disk: a file a processor, version of onnxruntime and number of threads.

They lie in `~/.cache/onnxpress` (or `$XDG_CACHE_HOME/onnxpress`); `$ONNXPRESS_CACHE` names another
folder. A file that cannot be read, or is of another machine, is no error: it is told and not used,
and the next measurement takes its place. Files are written whole or not at all.
"""

import json
import logging
import os
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from onnxpress.costs.keys import CONTEXTS
from onnxpress.costs.table import CostTable, Machine, ModelTime, Row
from onnxpress.errors import OutputError
from onnxpress.output_file import replace_file, rewriting
from onnxpress.toml_places import home_expanded

__all__ = ["CACHE_VARIABLE", "NOT_OURS", "cache_folder", "load_table", "save_table", "table_path"]

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ONNXPRESS_CACHE"
NOT_OURS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What a file raises while it is read that holds something else than what we write."""
_FORMAT = 1
_MOST_ROWS, _MOST_MODELS = 10_000, 200
"""Of a file, so that it is read in some hundredths of a second; the oldest go."""
_MOST_BYTES = 50_000_000
"""A file of ours is never as large."""


def cache_folder() -> Path:
    """Where tables lie."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return home_expanded(own)
    return home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "onnxpress"


def table_path(machine: Machine) -> Path:
    """Of a machine's table."""
    text = json.dumps(asdict(machine), sort_keys=True)
    return cache_folder() / f"latency-{sha256(text.encode()).hexdigest()[:12]}.json"


def load_table(machine: Machine) -> CostTable:
    """The table of a machine; empty where there is none, with a note where it is not to be used."""
    path = table_path(machine)
    try:
        return _read(machine, path)
    except FileNotFoundError:
        return CostTable(machine)
    except OSError as error:
        why = error.strerror or str(error)
    except NOT_OURS as error:
        why = str(error) or type(error).__name__
    note = (
        f"the table of latencies {path} is not used: {why}; what is measured next takes its place, "
        f"and {CACHE_VARIABLE} names another folder [W021]"
    )
    logger.info("%s", note)
    return CostTable(machine, note=note)


def save_table(table: CostTable) -> None:
    """Write a table, together with what others have written since; a folder closed to us is told.

    Args:
        table: it takes what others wrote.
    """
    path = table_path(table.machine)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rewriting(path):
            text = _together(load_table(table.machine), table)
            with replace_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    except (OSError, OutputError) as error:
        logger.info("latencies are not kept: %s", error)


def _together(known: CostTable, new: CostTable) -> str:
    """Two tables as JSON, as many rows as a file may hold."""
    rows = list({**known.rows, **new.rows}.values())
    models = {**known.models, **new.models}
    told = {
        "format": _FORMAT,
        "machine": asdict(new.machine),
        "rows": [_written(row) for row in rows[-_MOST_ROWS:]],
        "models": {key: asdict(models[key]) for key in list(models)[-_MOST_MODELS:]},
    }
    return json.dumps(told, separators=(",", ":"))


def _written(row: Row) -> list[Any]:
    """As JSON, in the order of `Row`'s attributes."""
    return list(asdict(row).values())


def _read(machine: Machine, path: Path) -> CostTable:
    """What a file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: something else than what `save_table` writes for the machine; likewise the
            others of `NOT_OURS`.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it is over {_MOST_BYTES / 1e6:.0f} MB")
    told = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        raise ValueError("it is of another form")
    if told.get("machine") != asdict(machine):
        raise ValueError("it is of another machine or version of onnxruntime")
    rows = {}
    for operator, contexts, sizes, multiply_adds, nbytes, microseconds, integer in told["rows"]:
        row = Row(
            str(operator),
            tuple(map(str, contexts)),
            str(sizes),
            int(multiply_adds),
            int(nbytes),
            float(microseconds),
            bool(integer),
        )
        sound = 0 <= row.microseconds < float("inf") and min(row.multiply_adds, row.nbytes) >= 0
        if len(row.contexts) != CONTEXTS or not sound:
            raise ValueError(f"a row of {row.operator} is no measurement")
        rows[row.key] = row
    models = {}
    for key, entry in told["models"].items():
        inputs = {str(name): tuple(map(int, shape)) for name, shape in entry["inputs"].items()}
        model = ModelTime(float(entry["microseconds"]), float(entry["nodes"]), inputs)
        if not (0 < model.microseconds < float("inf") and 0 < model.nodes < float("inf")):
            raise ValueError("the time of a model is no measurement")
        models[str(key)] = model
    return CostTable(machine, rows, models)
