"""Give temporary buffers their places in one arena, reusing bytes of what is dead.

    a: live 0..2, 4 KB;  b: live 1..3, 4 KB;  c: live 3..5, 4 KB   ->   a at 0, b at 4096, c at 0

Largest first, each at the lowest free offset; so the arena's size is known before anything runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from summand.errors import Loc, OutOfMemoryError, layout

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Life:
    """A buffer of so many bytes, used by steps `first` … `last` of a program."""

    first: int
    last: int
    nbytes: int


def arena_offsets(lives: Mapping[str, Life]) -> tuple[dict[str, int], int]:
    """Byte offsets of buffers, and the bytes of the whole arena."""
    placed: list[tuple[int, int, Life]] = []
    offsets: dict[str, int] = {}
    end = 0
    for name, life in sorted(lives.items(), key=lambda kv: (-kv[1].nbytes, kv[1].first, kv[0])):
        size = -(-max(life.nbytes, 1) // ALIGN) * ALIGN
        at = 0
        for start, stop, other in placed:
            if other.last < life.first or life.last < other.first:
                continue
            if start < at + size and at < stop:
                at = stop
        offsets[name] = at
        placed.append((at, at + size, life))
        placed.sort(key=lambda p: (p[0], p[1]))
        end = max(end, at + size)
    return offsets, end


def peak_bytes(sizes: Mapping[str, int], arena: int) -> int:
    """Bytes of everything that exists at once: parameters, results, constants and the arena."""
    return sum(sizes.values()) + arena


def memory_limit() -> int:
    """Bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 62


def check_fits(what: str, nbytes: int, loc: Loc | None, limit: int) -> None:
    """Refuse a value that could never be held."""
    if nbytes <= limit:
        return
    rows = [(f"{what}   {human(nbytes)}", loc), (f"memory of this machine   {human(limit)}", None)]
    message = layout(
        "a value does not fit in memory", rows, "Reduce its dims, or compute it in pieces."
    )
    raise OutOfMemoryError(message)


def human(nbytes: int) -> str:
    """Bytes in the unit that reads best."""
    size = float(nbytes)
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if size < 1024 or unit == "TB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
