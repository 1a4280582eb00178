"""Write what is measured and generated into the pages that show it, between their markers."""

from __future__ import annotations

import summand as sm
from benchmarks.readme import measured, page, replace

from .measure import Row
from .programs import caps_fwd


def example() -> None:
    """Show what the README's example compiles to: its kernels, without the module's head."""
    case = caps_fwd()
    text = sm.jit(case.function).inspect("loops", *case.arguments())
    kernels = text[text.index("\nkernel ") + 1 :].rstrip()
    replace("example", ["```", kernels, "```"])


def write(rows: list[Row], machine: dict[str, str]) -> None:
    """Replace what stands between the markers."""
    lines = [
        measured(machine, "python -m benchmarks.core --readme")
        + "; † where the machine was slowed by others all the time.",
        "",
        "| key | result | bar | met | median | best peer |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        best = min(row.peers.items(), key=lambda kv: kv[1]["median_ms"], default=None)
        peer = f"{best[0]} {best[1]['median_ms']:.2f} ms" if best else ""
        sign = "≥" if row.at_least else "≤"
        met = ("yes" if row.met else "no") + ("†" if row.disturbed else "")
        lines.append(
            f"| `{row.key}` | {row.value:.3g} {row.unit} | {sign} {row.bar:g} | {met} "
            f"| {row.median_ms:.3f} ms | {peer} |"
        )
    replace("benchmarks.core", lines, page())
