"""The rows, one file each (more where they share a program); every module here has `ROWS`."""

from __future__ import annotations

import importlib
import pkgutil
import re

from ..row import Row


def every_row() -> dict[str, Row]:
    """All rows by key: off the road by number, then the control."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    rows = [row for module in modules for row in module.ROWS]
    return {row.key: row for row in sorted(rows, key=_place)}


def _place(row: Row) -> tuple[bool, int, str]:
    number = re.match(r"\d+", row.key)
    return row.control, int(number.group()) if number and not row.control else 0, row.key
