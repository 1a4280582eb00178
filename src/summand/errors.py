"""Every exception that Summand raises, and the way a message is laid out.

    DimError: sum over k, but k has two sizes          <- what failed
      x: f32{i=128, k=64}   model.py:12                <- the operands, each with its own line
      w: f32{k=32, j=10}    model.py:13
      sm.sum[k](x * w)      model.py:20                <- the user's own line
    Slice one operand, or rename its k: w[k: k2].      <- what to do next

What a user did wrong is a SummandError; a fault of the compiler is an InternalError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SummandError(Exception):
    """Base of all errors that a user's program can cause."""


class DimError(SummandError, ValueError):
    """Dims or their sizes do not fit: two sizes for one dim, an unknown dim, ambiguous extents."""


class IndexRangeError(SummandError, IndexError):
    """An index leaves its dim's range, found while tracing or while running."""


class DTypeError(SummandError, TypeError):
    """An operation has no rule for these element types."""


class ArgumentError(SummandError, TypeError):
    """An argument is not what the function takes (not an array, not a dim, a wrong structure)."""


class TraceError(SummandError, TypeError):
    """A traced array was used where a concrete value is needed: `bool()`, `float()`, iteration."""


class RecurrenceError(SummandError, ValueError):
    """A recurrence reads a position that is not strictly earlier, or none at all."""


class DerivativeError(SummandError, TypeError):
    """A derivative that does not exist: of an integer, or of `while_loop` in reverse."""


class OutOfMemoryError(SummandError, MemoryError):
    """A value would not fit in memory; raised before anything is allocated."""


class MissingExtra(SummandError, ImportError):
    """An optional package is needed; the message says what to install."""


class DeviceError(SummandError, NotImplementedError):
    """Numbers that lie where no program reads them: on another device, or nowhere."""


class InternalError(Exception):
    """A fault of the compiler, never of the user. Names the pass and prints the program."""


@dataclass(frozen=True, slots=True)
class Loc:
    """A line of the user's program: file as shown, line number, and the line's text."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def layout(what: str, rows: Sequence[tuple[str, Loc | None]], advice: str) -> str:
    """Lay out a message: what failed, aligned rows with their source lines, what to do next."""
    width = max((len(left) for left, _ in rows), default=0)
    lines = [what]
    for left, loc in rows:
        lines.append(f"  {left.ljust(width)}   {loc}" if loc else f"  {left}")
    if advice:
        lines.append(advice)
    return "\n".join(lines)
