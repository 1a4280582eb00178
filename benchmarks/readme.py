"""Write lines into a page, between a section's markers.

README.md holds what was measured on processors with 512-bit vectors; docs/measured-256.md, and so
on, what others do: their peaks, and what stands between a program and them, are not the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from summand.runtime import machine

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
WIDEST = 512  # bits of a vector


def vector_bits() -> int:
    """Bits of this processor's vectors."""
    return 8 * machine.target().vector_bytes


def page() -> Path:
    """Where what is measured on this processor is shown."""
    bits = vector_bits()
    return README if bits >= WIDEST else ROOT / "docs" / f"measured-{bits}.md"


def figure_place() -> Path:
    """Where this processor's figure of the off-road suite is, without its suffix."""
    bits = vector_bits()
    return ROOT / "docs" / ("offroad" if bits >= WIDEST else f"offroad-{bits}")


def measured(versions: Mapping[str, object], command: str) -> str:
    """On what, when and by what a table was measured."""
    return (
        f"Measured on {versions['processor']} ({vector_bits()}-bit vectors), {versions['threads']} "
        f"threads, {datetime.date.today():%Y-%m-%d}, by `{command}`"
    )


def replace(section: str, lines: list[str], where: Path = README) -> None:
    """Put lines between a section's markers; at the end of a page that has none."""
    begin, end = f"<!-- {section} begin -->", f"<!-- {section} end -->"
    text = where.read_text() if where.exists() else f"# Measured, {vector_bits()}-bit vectors\n"
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    head, rest = text.split(begin, 1)
    _, tail = rest.split(end, 1)
    where.write_text("\n".join([head + begin, *lines, end + tail]))
