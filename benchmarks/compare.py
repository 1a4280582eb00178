"""python -m benchmarks.compare TREE [--rows 1,5c] [--passes fwd,grad] [--perturb SEED]
[--json FILE].

This tree against another one: `git worktree add ../before HEAD~10`, then this command with
`../before`. Both run the rows of `benchmarks.offroad`, each tree in a process of its own, and take
turns: machines change their speed from minute to minute, and two runs of the benchmark, one after
the other, say more about that than about a change. Rows whose loops are the same in both show what
is left of that noise.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .offroad.row import PASSES
from .offroad.rows import every_row
from .processes import Process, ProcessError

ROUNDS = 6
BUDGET = 0.08  # seconds of a turn
PAUSE = 0.01  # seconds, in which the other tree's threads fall asleep
PATIENCE = 120.0  # seconds for a row to be compiled and run
NOTABLE = 0.07  # change of the median that is marked

TREES = ("before", "now")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("tree", type=Path, help="the root of another checkout")
    parser.add_argument("--rows", default=",".join(every_row()), help="comma-separated keys")
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--perturb", type=int, metavar="SEED", help="nearby sizes, other orders")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if not (given.tree / "src" / "summand").is_dir():
        parser.error(f"{given.tree}: no checkout of Summand")
    return given


def measure(given: argparse.Namespace) -> list[dict[str, object]]:
    """A record for each row and pass."""
    here = Path(__file__).resolve()
    server = str(here.with_name("tree_server.py"))
    records: list[dict[str, object]] = []
    with ExitStack() as stack:
        processes = [
            stack.enter_context(Process(name, (server, str(tree.resolve())), PATIENCE))
            for name, tree in zip(TREES, (given.tree, here.parents[1]))
        ]
        for row in given.rows.split(","):
            for which in given.passes.split(","):
                asked = {"row": row, "which": which, "seed": given.perturb}
                try:
                    before, now = (p.ready(asked)["loops"] for p in processes)
                    same = bool(now) and before == now
                    record = _record(row, which, same, _in_turns(processes))
                except ProcessError as failure:
                    record = {"row": row, "pass": which, "failed": str(failure)}
                records.append(record)
                print(shown(record), flush=True)
    return records


def _in_turns(processes: Sequence[Process]) -> list[list[float]]:
    seconds: list[list[float]] = [[] for _ in processes]
    for number in range(ROUNDS):
        order = list(enumerate(processes))
        for k, process in order if number % 2 else reversed(order):
            time.sleep(PAUSE)
            seconds[k] += process.runs(BUDGET)
    return seconds


def _record(row: str, which: str, same: bool, seconds: list[list[float]]) -> dict[str, object]:
    record: dict[str, object] = {"row": row, "pass": which, "same_loops": same}
    for name, found in zip(TREES, seconds, strict=True):
        record[name] = {"median": statistics.median(found), "min": min(found)}
    medians, least = ([f(found) for found in seconds] for f in (statistics.median, min))
    record["speedup"] = medians[0] / medians[1]
    record["speedup_min"] = least[0] / least[1]
    return record


def shown(record: dict[str, object]) -> str:
    """A record as a line."""
    head = f"{record['row']:>20} {record['pass']:<5}"
    if "failed" in record:
        return f"{head} failed: {record['failed']}"
    times = [f"{1e3 * record[t]['median']:9.3f} ({1e3 * record[t]['min']:.3f})" for t in TREES]  # type: ignore[index]
    change = float(record["speedup"])  # type: ignore[arg-type]
    mark = "" if abs(math.log(change)) < NOTABLE else "  faster" if change > 1 else "  SLOWER"
    loops = "  same loops" if record["same_loops"] else ""
    both = f"{change:.2f}x (min {record['speedup_min']:.2f}x)"
    return f"{head} {' -> '.join(times)} ms  {both}{mark}{loops}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and write what was found."""
    given = options(arguments)
    records = measure(given)
    done = [math.log(r["speedup"]) for r in records if "speedup" in r]  # type: ignore[arg-type]
    if done:
        print(f"geometric mean {math.exp(statistics.fmean(done)):.3f}x over {len(done)}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(records, indent=1))
    return 1 if any("failed" in r for r in records) else 0


if __name__ == "__main__":
    raise SystemExit(main())
