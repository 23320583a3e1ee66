"""Files of many types, found on the machine, for magika."""

import json
import sys
import zipfile
from pathlib import Path

import fetch
import numpy as np

from samples import Samples

PARTS = ("calibration", "evaluation")


def magika(cache: Path) -> tuple[Samples, Samples]:
    """First and last bytes of files of many types, as the package prepares them."""
    config, by_extension = _known(cache)
    files = _found(by_extension, most=24)
    order = np.random.default_rng(5).permutation(len(files))[:384]
    rows = [_prepared(files[index][0].read_bytes(), config) for index in order]
    truth = np.asarray([files[index][1] for index in order], np.int64)
    x = np.asarray(rows, np.int32)
    return {"bytes": x[:128]}, {"bytes": x[128:], "__labels__": truth[128:]}


def magika_fresh(cache: Path) -> Samples:
    """Up to 1,024 other files, none with the bytes of another or of the first two sets."""
    config, by_extension = _known(cache)
    seen: set[bytes] = set()
    for part in PARTS:
        with np.load(cache / "magika" / f"{part}.npz") as made:
            seen.update(row.tobytes() for row in made["bytes"])
    files = _found(by_extension, most=96)
    rows, truth = [], []
    for index in np.random.default_rng(105).permutation(len(files)):
        path, label = files[index]
        row = np.asarray(_prepared(path.read_bytes(), config), np.int32)
        if row.tobytes() not in seen and len(rows) < 1024:
            seen.add(row.tobytes())
            rows.append(row)
            truth.append(label)
    return {"bytes": np.stack(rows), "__labels__": np.asarray(truth, np.int64)}


def _known(cache: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The model's settings, and the class of each file extension that the package knows."""
    model = fetch.MODELS["magika"]
    with zipfile.ZipFile(fetch.download(model.package, model.version, cache)) as archive:
        config = json.loads(archive.read("magika/models/standard_v3_3/config.min.json"))
        known = json.loads(archive.read("magika/config/content_types_kb.min.json"))
    labels = config["target_labels_space"]
    by_extension = {
        extension: labels.index(label)
        for label, entry in reversed(known.items())
        if label in labels
        for extension in entry["extensions"]
    }
    return config, by_extension


def _found(by_extension: dict[str, int], most: int) -> list[tuple[Path, int]]:
    """Installed files with their classes, at most `most` of an extension."""
    found: dict[str, list[Path]] = {}
    roots = [Path(sys.prefix), Path("/usr/share"), Path("/usr/lib/python3")]
    for root in roots:
        for path in sorted(root.rglob("*.*")):
            extension = path.suffix[1:].lower()
            usable = extension in by_extension and not path.is_symlink() and path.is_file()
            if usable and len(found.setdefault(extension, [])) < most and path.stat().st_size > 64:
                found[extension].append(path)
    return [(path, by_extension[kind]) for kind in sorted(found) for path in found[kind]]


def _prepared(content: bytes, config: dict[str, int]) -> list[int]:
    begin, end = config["beg_size"], config["end_size"]
    pad = config["padding_token"]
    block = config["block_size"]
    head = list(content[:block].lstrip()[:begin])
    tail = list(content[-block:].rstrip()[-end:])
    return head + [pad] * (begin - len(head)) + [pad] * (end - len(tail)) + tail
