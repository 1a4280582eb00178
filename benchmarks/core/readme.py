"""Write the result table into README.md, between its two markers."""

from __future__ import annotations

from pathlib import Path

from .measure import Row

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- benchmarks.core begin -->", "<!-- benchmarks.core end -->"


def write(rows: list[Row], machine: dict[str, str]) -> None:
    """Replace what stands between the markers."""
    lines = [
        f"Measured on {machine['processor']}, 2 threads, by `python -m benchmarks.core --readme`.",
        "",
        "| key | result | bar | met | median | best peer |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        best = min(row.peers.items(), key=lambda kv: kv[1]["median_ms"], default=None)
        peer = f"{best[0]} {best[1]['median_ms']:.2f} ms" if best else ""
        sign = "≥" if row.at_least else "≤"
        met = "yes" if row.met else "no"
        lines.append(
            f"| `{row.key}` | {row.value:.3g} {row.unit} | {sign} {row.bar:g} | {met} "
            f"| {row.median_ms:.3f} ms | {peer} |"
        )
    text = README.read_text()
    head, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    README.write_text("\n".join([head + BEGIN, *lines, END + tail]))
