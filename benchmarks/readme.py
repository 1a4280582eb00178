"""Write lines into README.md, between a section's markers."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def replace(section: str, lines: list[str]) -> None:
    """Put lines between a section's markers."""
    begin, end = f"<!-- {section} begin -->", f"<!-- {section} end -->"
    head, rest = README.read_text().split(begin, 1)
    _, tail = rest.split(end, 1)
    README.write_text("\n".join([head + begin, *lines, end + tail]))
