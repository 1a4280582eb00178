"""python -m benchmarks.offroad [--rows 1,5c,23] [--passes fwd,grad] [--peers torch,compile,jax]
[--perturb SEED] [--json FILE] [--rounds N] [--readme].

Rows off the road and the control rows against the installed peers; docs/offroad.md says how.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from benchmarks.harness import copy_bandwidth, fma_peak
from benchmarks.readme import figure_place
from benchmarks.versions import versions

from . import compile_times, figure, report
from .measure import Limits, Measured, measure
from .peer import PACKAGES, PEERS, Job, PeerProcess
from .row import PASSES
from .rows import every_row


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, names checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offroad", description=__doc__)
    parser.add_argument("--rows", default="", help="comma-separated keys; all where left out")
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--peers", default=",".join(PEERS), help='"" for none')
    parser.add_argument("--perturb", type=int, metavar="SEED", help="nearby sizes, other orders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds for a peer's call")
    parser.add_argument("--no-compile-times", action="store_true", help="leave out fresh processes")
    parser.add_argument("--readme", action="store_true", help="write table and figure")
    given = parser.parse_args(arguments)
    for name, known in (("rows", every_row()), ("passes", PASSES), ("peers", PEERS)):
        asked = [k for k in getattr(given, name).split(",") if k]
        unknown = [k for k in asked if k not in known]
        if unknown:
            parser.error(f"--{name}: no {', '.join(unknown)} (known: {', '.join(known)})")
        setattr(given, name, asked or ([] if name == "peers" else list(known)))
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return given


def run(given: argparse.Namespace, limits: Limits, console: Console) -> Iterator[Measured]:
    """Measure row after row."""
    with ExitStack() as stack:
        peers = {}
        for name in given.peers:
            if find_spec(PACKAGES[name]):
                peers[name] = stack.enter_context(PeerProcess(name, given.patience))
            else:
                console.print(f"{name}: {PACKAGES[name]} is not installed; left out")
        for key in given.rows:
            case = Job(key, "fwd", given.perturb).case()
            cold, warm = {}, {}
            if not given.no_compile_times:
                cold, warm = compile_times.measure(key, given.perturb)
            for which in given.passes:
                job = Job(key, which, given.perturb)
                measured = measure(case, job, peers, limits, given.rounds)
                measured.compile_cold = cold.get(which, measured.compile_cold)
                measured.compile_warm = warm.get(which, measured.compile_warm)
                console.print(report.line(measured))
                yield measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit status 0 also where a bar is missed (the table says so)."""
    given = options(arguments)
    console = Console(width=160)
    limits = Limits(fma_peak(), copy_bandwidth())
    rows: list[Measured] = []
    try:
        for row in run(given, limits, console):
            rows.append(row)
    except KeyboardInterrupt:
        console.print("stopped; what was measured until now:")
    console.print(report.table(rows))
    console.print(report.summary(rows))
    machine = versions() | {"peak": limits.peak, "bandwidth": limits.bandwidth}
    record = {"machine": machine, "rows": [row.record() for row in rows]}
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        figure.draw(record["rows"], given.json.with_suffix(""))
    if given.readme:
        report.write(rows, machine)
        figure.draw(record["rows"], figure_place())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
