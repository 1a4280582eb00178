"""Dim keys: the string that stands for one `Dim` in the graph.

    sm.Dim("w", 2)  ->  "w#17.3.2"      name # serial . line that made it . size, where it has one

A key says all there is to know of its dim, so neither graph nodes nor index forms hold on to `Dim`
objects, and a library that makes private dims at every call leaks nothing.
"""

from __future__ import annotations

import itertools
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache

from summand.errors import Loc

_PATTERN = re.compile(r"(.+)#(\d+)\.(\d+)(?:\.(\d+))?")
_serials = itertools.count(1)
_lines: list[Loc | None] = []  # the lines that made dims; a key holds the position of its own
_line_number: dict[Loc | None, int] = {}


@dataclass(frozen=True, slots=True)
class DimInfo:
    """What a key says: the dim's name, its serial number, who made it, its own size if any."""

    name: str
    serial: int
    loc: Loc | None
    size: int | None


def new_key(name: str, loc: Loc | None, size: int | None = None) -> str:
    """A key like no other."""
    line = _line_number.get(loc)
    if line is None:
        line = _line_number[loc] = len(_lines)
        _lines.append(loc)
    tail = "" if size is None else f".{size}"
    return f"{name}#{next(_serials)}.{line}{tail}"


# ---- keys of other processes, where dims or arrays are unpickled

_process = uuid.uuid4().hex  # never part of a key, so names and programs do not depend on it
_foreign: dict[tuple[str, str], str] = {}


def pickled(key: str) -> tuple[str, str]:
    """A key as another process can take it."""
    return (_process, key)


def unpickled(process: str, key: str) -> str:
    """The key of this process for a pickled one: the same for the same dim, else a new one."""
    if process == _process:
        return key
    if (process, key) not in _foreign:
        name, rest = key.rsplit("#", 1)
        size = rest.split(".")[2:]
        _foreign[process, key] = new_key(name, None, int(size[0]) if size else None)
    return _foreign[process, key]


def is_key(text: str) -> bool:
    """True for what `new_key` made, False for a name that another stage invented."""
    return _PATTERN.fullmatch(text) is not None


@lru_cache(maxsize=1 << 14)
def info(key: str) -> DimInfo:
    """Read a key."""
    match = _PATTERN.fullmatch(key)
    if match is None:
        return DimInfo(key, 0, None, None)
    name, serial, line, size = match.groups()
    return DimInfo(name, int(serial), _lines[int(line)], None if size is None else int(size))


def by_name(key: str) -> tuple[str, int]:
    """A sort key that does not depend on how many dims were made before."""
    found = info(key)
    return (found.name, found.serial)


def fresh_like(name: str) -> str:
    """A new key for a dim that another stage invented, named as near as can be."""
    base = re.match(r"[^\W\d]\w*", name)
    return new_key(base.group(0) if base else "d", None)
