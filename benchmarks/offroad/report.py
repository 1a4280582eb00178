"""What was measured, for people: a line as it comes, a table at the end, and the README's table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks.readme import figure_place, measured, page, replace

from .measure import Measured
from .row import PASSES, Pass

GOALS = {"fwd": 4.5, "grad": 7.0}  # geometric mean of the ratios off the road


def line(row: Measured) -> str:
    """One row and pass."""
    best = f"{row.ratio:.2f}× ({row.best[0]} {row.best[1] * 1e3:.2f} ms)" if row.best else "no peer"
    failed = "".join(f"; {name}: {why}" for name, why in row.failed.items())
    wrong = "" if row.right else f"; ERROR {row.error:.1e} over {row.case.row.tolerance:.0e}"
    return (
        f"{row.case.row.key:>4} {row.which:4} {row.ours.median * 1e3:9.3f} ms "
        f"{row.fraction:.2f} of bound, {best}{wrong}{failed}"
    )


def table(rows: Sequence[Measured]) -> Table:
    """All that was measured."""
    out = Table(title="benchmarks.offroad")
    headings = "row pass median min spread bound fraction ratio peers cold warm memory error"
    for heading in headings.split():
        out.add_column(heading, justify="left" if heading in ("row", "peers") else "right")
    for row in rows:
        peers = [f"{name} {t.median * 1e3:.2f}" for name, t in row.peers.items()]
        peers += [f"{name} failed" for name in row.failed]
        out.add_row(
            f"{row.case.row.key} {row.case.row.title}",
            row.which,
            f"{row.ours.median * 1e3:.3f}",
            f"{min(row.ours.seconds) * 1e3:.3f}",
            f"{row.ours.spread:.0%}" + ("†" if row.ours.disturbed else ""),
            f"{row.bound * 1e3:.3f}",
            f"{row.fraction:.2f}" + _mark(row.fraction >= row.case.row.fraction[_place(row)]),
            f"{row.ratio:.2f}" + _mark(not row.ratio < 1),
            ", ".join(peers),
            f"{row.compile_cold * 1e3:.0f}",
            f"{row.compile_warm * 1e3:.0f}",
            f"{row.peak_bytes / 1e6:.2f} MB",
            f"{row.error:.0e}" + _mark(row.right),
        )
    out.caption = "ms; * misses its bar; † the machine was slow in every turn"
    return out


def _place(row: Measured) -> int:
    return PASSES.index(row.which)


def _mark(met: bool) -> str:
    return "" if met else "*"


def geometric_mean(rows: Sequence[Measured], which: Pass) -> float:
    """Of the ratios off the road; NaN where there are none."""
    ratios = [r.ratio for r in rows if r.which == which and not r.case.row.control]
    logs = [math.log(r) for r in ratios if not math.isnan(r)]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def summary(rows: Sequence[Measured]) -> str:
    """The bars over all rows."""
    lines = []
    for which in PASSES:
        mean = geometric_mean(rows, which)
        if not math.isnan(mean):
            lines.append(f"{which}: geometric mean {mean:.2f} (goal {GOALS[which]})")
    for what, missed in missed_bars(rows).items():
        if missed:
            lines.append(f"{what}: {', '.join(missed)}")
    return "\n".join(lines)


def missed_bars(rows: Sequence[Measured]) -> dict[str, list[str]]:
    """Which rows miss which bar."""
    name = {id(r): f"{r.case.row.key} {r.which}" for r in rows}
    inputs = {id(r): sum(a.values.nbytes for a in r.case.inputs) for r in rows}
    cold: dict[str, float] = {}
    allowed = {r.case.row.key: r.case.row.cold for r in rows}
    for r in rows:
        cold[r.case.row.key] = cold.get(r.case.row.key, 0.0) + r.compile_cold
    return {
        "slower than a peer": [name[id(r)] for r in rows if r.ratio < 1],
        "below the fraction": [
            name[id(r)] for r in rows if r.fraction < r.case.row.fraction[_place(r)]
        ],
        "too much memory": [
            name[id(r)]
            for r in rows
            if r.case.row.lean and r.which == "fwd" and r.peak_bytes > 0.1 * inputs[id(r)]
        ],
        "cold compile too long": [key for key, s in cold.items() if s > allowed[key]],
        "wrong": [name[id(r)] for r in rows if not r.right],
    }


def write(rows: Sequence[Measured], machine: Mapping[str, object]) -> None:
    """The table of this processor's page: a line for each row, both passes."""
    peers = dict.fromkeys(name for r in rows for name in (*r.peers, *r.failed))
    lines = [
        measured(machine, f"python -m benchmarks.offroad --readme --peers {','.join(peers)}")
        + "; † where the machine was slowed by others.",
        "",
        "| row | forward, ms | of bound | × best peer | gradient, ms | of bound | × best peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    passes = {(r.case.row.key, r.which): r for r in rows}
    for key, title in dict.fromkeys((r.case.row.key, r.case.row.title) for r in rows):
        cells = [cell for which in PASSES for cell in _cells(passes.get((key, which)))]
        lines.append(f"| {key} {title} | {' | '.join(cells)} |")
    means = {which: geometric_mean(rows, which) for which in PASSES}
    lines += [
        "",
        "Geometric mean of the ratios off the road: "
        + ", ".join(f"{m:.2f} {w}" for w, m in means.items() if not math.isnan(m))
        + ".",
        "",
        f"![Each row against its best peer, and against its bound]({_picture()})",
    ]
    replace("benchmarks.offroad", lines, page())


def _picture() -> str:
    """The figure, from the page that shows it."""
    return figure_place().with_suffix(".svg").relative_to(page().parent).as_posix()


def _cells(row: Measured | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    dagger = "†" if row.ours.disturbed else ""
    ratio = f"{row.ratio:.2f} ({row.best[0]})" if row.best else ""
    return [f"{row.ours.median * 1e3:.2f}{dagger}", f"{row.fraction:.2f}", ratio]
