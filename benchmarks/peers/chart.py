"""How much smaller, and what the worst slice keeps, a field a model.

python chart.py OUT.svg < POINTS.json
"""

import json
import sys

import matplotlib as mpl

mpl.use("svg")
# Text stays text, and the same points give the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "onnxpress", "font.size": 8})
import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what draws

OURS = "#c2410c"
FRONTIER = "onnxpress frontier"
"""Its points are joined by a line."""
COLUMNS = 3
MOST_DB = 80.0
"""What is nearer, or the same, stands at the top."""


def main() -> None:
    """Filled where the budget held, hollow where it was broken."""
    fields = json.load(sys.stdin)
    rows = -(-len(fields) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(10, 3.2 * rows), squeeze=False, layout="constrained"
    )
    names = sorted({point["what"] for points in fields.values() for point in points})
    peers = [name for name in names if not name.startswith("onnxpress")]
    colours = dict(zip(peers, plt.get_cmap("tab20").colors, strict=False))
    marks = dict(zip([n for n in names if n not in peers], "*PX", strict=False))
    for place, (model, points) in zip(axes.flat, fields.items(), strict=False):
        for point in points:
            colour = colours.get(point["what"], OURS)
            place.scatter(
                point["size"],
                MOST_DB if point["kept_db"] is None else min(point["kept_db"], MOST_DB),
                marker=marks.get(point["what"], "o"),
                s=90 if point["what"] in marks else 36,
                facecolors=colour if point["held"] else "none",
                edgecolors=colour,
                label=point["what"],
            )
        line = [point for point in points if point["what"] == FRONTIER]
        levels = [MOST_DB if p["kept_db"] is None else min(p["kept_db"], MOST_DB) for p in line]
        place.plot([point["size"] for point in line], levels, color=OURS, linewidth=1)
        place.set(title=model, xscale="log", ylim=(-8, MOST_DB + 5))
        place.axvline(1, color="0.7", linewidth=0.8, zorder=0)
        place.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        place.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        place.set_xticks([1, 2, 4, 8, 16, 32])
    for place in axes.flat[len(fields) :]:
        place.set_axis_off()
    figure.supxlabel("times smaller")
    figure.supylabel("dB kept by the worst slice")
    handles = {}
    for place in axes.flat:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    shown = sorted(handles, key=lambda label: (label in peers, label))
    figure.legend(
        [handles[label] for label in shown],
        shown,
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
