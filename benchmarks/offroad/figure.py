"""One figure: for every row the ratio to the best peer, and the fraction of the roofline.

draw(json.load(open("offroad.json"))["rows"], Path("offroad"))   ->   offroad.png, offroad.svg
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from .row import PASSES

COLOURS = {"fwd": "#1f5f8b", "grad": "#e07b39"}
NAMES = {"fwd": "forward", "grad": "forward + gradient"}

Record = Mapping[str, object]


def draw(rows: Sequence[Record], place: Path) -> None:
    """Write `place`.png and `place`.svg."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "offroad"  # the same file from the same numbers
    labels = list(dict.fromkeys(f"{r['row']}  {r['title']}" for r in rows))
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(10, 1.2 + 0.26 * len(labels)), width_ratios=(3, 2)
    )
    for offset, which in zip((-0.2, 0.2), PASSES):
        found = {f"{r['row']}  {r['title']}": r for r in rows if r["pass"] == which}
        at = [labels.index(label) + offset for label in found]
        style = {"height": 0.36, "color": COLOURS[which], "label": NAMES[which]}
        ratios = [r["ratio"] or 0.0 for r in found.values()]
        left.barh(at, [max(r - 1, -0.99) if r else 0.0 for r in ratios], left=1.0, **style)
        right.barh(at, [r["fraction"] for r in found.values()], **style)
    left.set_xscale("log")
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel("best peer's time / ours")
    left.set_yticks(range(len(labels)), labels, fontsize=8)
    left.invert_yaxis()
    right.set_xlim(0, 1.2)
    right.axvline(1, color="black", linewidth=0.8)
    right.set_xlabel("fraction of the row's bound")
    handles, names = right.get_legend_handles_labels()
    if handles:
        right.legend(handles, names, loc="lower right", fontsize=8)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    figure.tight_layout()
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place.with_suffix(".png"), dpi=150)
    figure.savefig(place.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
