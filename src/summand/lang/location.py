"""Source locations: the user's own line, found from inside any function of this package.

model.py:20  y = sm.sum[k](x * w)      <- the innermost frame that is not Summand's
"""

from __future__ import annotations

import linecache
import os
import re
import sys
from types import FrameType

from summand.errors import Loc

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_inside: tuple[str, ...] = (_PACKAGE,)  # folders whose lines are not the user's
_CELL = re.compile(r"<ipython-input-(\d+)-")
_seen: dict[tuple[str, int], Loc] = {}  # one Loc for each line of the user's; owned by `here`


def pass_over(file: str) -> None:
    """Take no line of the package that this file is in for the user's: a framework that calls."""
    global _inside
    _inside = (*_inside, os.path.dirname(os.path.abspath(file)) + os.sep)


def here() -> Loc | None:
    """The innermost line outside this package (and those passed over); None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_inside):
        frame = frame.f_back
    if frame is None:
        return None
    key = (frame.f_code.co_filename, frame.f_lineno)
    loc = _seen.get(key)
    if loc is None:
        text = linecache.getline(key[0], key[1], frame.f_globals).strip()
        loc = _seen[key] = Loc(_shown(key[0]), key[1], text)
    return loc


def _shown(filename: str) -> str:
    """The file as messages show it: its name, or the cell's in a notebook."""
    cell = _CELL.match(filename)
    if cell:
        return f"In[{cell.group(1)}]"
    number = _cell_number(filename)
    return f"In[{number}]" if number is not None else os.path.basename(filename)


def _cell_number(filename: str) -> int | None:
    """The number of the notebook cell that was compiled under this file name."""
    main = sys.modules.get("__main__")
    shell = getattr(main, "get_ipython", None)
    compiler = getattr(shell(), "compile", None) if callable(shell) else None
    cells = getattr(compiler, "_filename_map", None)
    number = cells.get(filename) if isinstance(cells, dict) else None
    return number if isinstance(number, int) else None
