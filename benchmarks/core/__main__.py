"""python -m benchmarks.core [--only KEY,…] [--json FILE] [--rounds N] [--readme]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.readme import README, page
from benchmarks.versions import versions

from . import readme
from .measure import BARS, Row, measure


def table(rows: list[Row]) -> Table:
    """The result as a table for the terminal."""
    out = Table(title="benchmarks.core")
    for heading in ("key", "value", "bar", "met", "median", "spread", "limit", "peers"):
        out.add_column(heading, justify="left" if heading in ("key", "peers") else "right")
    for row in rows:
        peers = ", ".join(f"{k} {v['median_ms']:.2f} ms" for k, v in row.peers.items())
        out.add_row(
            row.key,
            f"{row.value:.3g} {row.unit}",
            f"{'≥' if row.at_least else '≤'} {row.bar:g}",
            ("yes" if row.met else "no") + ("†" if row.disturbed else ""),
            f"{row.median_ms:.3f} ms",
            f"{row.spread:.0%}",
            row.limit_text,
            peers,
        )
    return out


def main() -> int:
    """Run the benchmark; exit status 0 also where a bar is missed (the table says so)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description=__doc__)
    parser.add_argument("--only", help="comma-separated keys", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readme", action="store_true", help="write the table into its page")
    options = parser.parse_args()
    keys = [k for k in options.only.split(",") if k] or list(BARS)
    unknown = [k for k in keys if k not in BARS]
    if unknown:
        parser.error(f"no such key: {', '.join(unknown)} (known: {', '.join(BARS)})")
    console = Console(width=160)
    rows = []
    for key in keys:
        console.print(f"[dim]{key} …[/dim]")
        rows.append(measure(key, options.rounds))
    console.print(table(rows))
    record = {"machine": versions(), "rows": {row.key: row.record() for row in rows}}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    if options.readme:
        readme.write(rows, versions())
        if page() == README:
            readme.example()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
