"""Our frontier beside the peers' models: which point does a peer's model dominate?

    python benchmarks/frontier_peers.py NAME ... [--folder DIR]

`onnxpress optimize --frontier` by default on the calibration and evaluation samples; its models are
judged on fresh samples by the judge that the peers' cells are from (`benchmarks/peers.json`, so
`benchmarks/peers.py` comes first). A point is dominated where a peer's model is as small, keeps as
many dB in its worst slice, loses no more of the metric and is as fast (quartiles overlap or are
better), and is better in size or dB by a hundredth at least. Writes the page and a chart.
"""

import argparse
import datetime as dt
import json
import math
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from peer_cells import CONFIGURATIONS, Judge
from peer_environments import HERE
from peer_tables import draw_points, point
from peers import CELLS, RESULTS
from press import paths

OURS = "onnxpress frontier"


def frontier(name: str, folder: Path, judge: Judge) -> list[dict[str, Any]]:
    """Our points, from the smallest on, as they are judged on fresh samples; kept in the folder."""
    out = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = out / "judged.json"
    if kept.exists():
        found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    model, calibration, evaluation = paths(name)
    samples = ["--calibration", calibration, "--evaluation", evaluation]
    command = ["onnxpress", "optimize", model, *samples, "--frontier", out, "--force"]
    subprocess.run([str(part) for part in command], check=False, stdout=subprocess.DEVNULL)
    made = json.loads((out / "frontier.json").read_text(encoding="utf-8"))["models"]
    found = [{"file": one["file"]} | judge.figures(out / one["file"]) for one in made]
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def kept_db(cell: dict[str, Any]) -> float:
    """Of the worst slice; infinite where the outputs are the same."""
    return math.inf if cell["identical"] or cell["worst_db"] is None else float(cell["worst_db"])


def dominates(peer: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether a peer's model is as good in all and better in size or dB."""
    at_least = (
        peer["bytes"] <= own["bytes"]
        and kept_db(peer) >= kept_db(own)
        and (own["lost"] is None or peer["lost"] <= own["lost"])
        and ("clock" not in peer or peer["speed_high"] >= own["speed_low"])
    )
    smaller = peer["bytes"] < 0.99 * own["bytes"]
    return at_least and (smaller or kept_db(peer) > kept_db(own) * 1.01)


def section(name: str, own: list[dict[str, Any]], peers: dict[str, dict[str, Any]]) -> list[str]:
    """A model's points, and who dominates them."""
    levels = [kept_db(cell) for cell in own]
    monotone = levels == sorted(levels)
    lines = [f"## {name}", ""]
    first = own[0]
    lines += [
        f"{first['samples']:,} fresh samples; {len(peers)} models of peers.",
        f"From small to large the dB {'rise' if monotone else 'do not rise'} at every point.",
        "",
        (
            "| point | times smaller | worst dB | lost, points (at most) | times as fast | budget "
            "| dominated by |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in own:
        lost = "–" if cell["lost"] is None else f"{cell['lost']:.2f} ({cell['lost_at_most']:.2f})"
        level = "the same" if math.isinf(kept_db(cell)) else f"{kept_db(cell):.1f}"
        speed = f"{cell['speed']:.2f} ({cell['speed_low']:.2f} to {cell['speed_high']:.2f})"
        over = ", ".join(one for one, peer in peers.items() if dominates(peer, cell)) or "none"
        lines.append(
            f"| {cell['file']} | {cell['original_bytes'] / cell['bytes']:.2f} | {level} | {lost} "
            f"| {speed} | {'held' if cell['within_budget'] else 'broken'} | {over} |"
        )
    return [*lines, ""]


def main() -> None:
    """One section a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--folder", type=Path, help="keep our models here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    cells = json.loads(CELLS.read_text(encoding="utf-8"))["cells"]
    today = dt.datetime.now(dt.UTC).date().isoformat()
    out = RESULTS / f"{today}-frontier-peers.md"
    lines = [
        f"# Our frontier beside the peers, {today}",
        "",
        f"`python benchmarks/frontier_peers.py {' '.join(options.names)}`, {platform.machine()}.",
        *(__doc__ or "").split("\n\n")[2].strip().splitlines(),
        "",
        f"![Frontiers and peers]({out.stem}.svg)",
        "",
    ]
    fields = {}
    for name in options.names:
        own = frontier(name, folder, Judge(name, None))
        others = [one.name for one in CONFIGURATIONS if not one.name.startswith("onnxpress")]
        found = {one: cells.get(f"{name}/{one}", {}) for one in others}
        peers = {one: cell for one, cell in found.items() if "bytes" in cell}
        lines += section(name, own, peers)
        points = [point(one, cell) for one, cell in peers.items()]
        fields[name] = [point(OURS, cell) for cell in own] + points
        draw_points(fields, out.with_suffix(".svg"))
        out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
        print(f"{name}: {len(own)} points", flush=True)


if __name__ == "__main__":
    if not (HERE / "peers.json").exists():
        raise SystemExit("python benchmarks/peers.py comes first: its cells are what is compared")
    main()
