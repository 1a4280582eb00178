"""Tensors that a decorated function closes over, and where to look them up at the next call.

    scale = torch.nn.Parameter(...)

    @smt.function(x=(n, k), out=(n, k))
    def scaled(x): return x * smt.array(scale, k)

The trace meets a tensor; the next call must use what the name `scale` stands for by then. So the
tensor is looked for where the function can have it from: its cells, its globals, the constants of
the call (`self`), and the parameters and buffers of modules among these. A tensor that is in none
of these places stays the one that was traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["cell", "global", "value"]


@dataclass(frozen=True, slots=True)
class Source:
    """A way to a tensor: from a cell, a global or a fixed value, then by attributes."""

    kind: Kind
    place: int | str
    value: object
    path: tuple[str, ...] = ()

    def current(self, function: Callable[..., object]) -> Tensor:
        """The tensor that is there now."""
        found: object = self.value
        if self.kind == "cell":
            found = function.__closure__[self.place].cell_contents
        elif self.kind == "global":
            found = function.__globals__[self.place]
        for name in self.path:
            found = getattr(found, name)
        return found


def source_of(function: Callable[..., object], constants: Sequence[object], tensor: Tensor) -> Source:
    """The way to a tensor that the function used."""
    for kind, place, value in _roots(function, constants):
        known = value if kind == "value" else None
        if value is tensor:
            return Source(kind, place, known)
        if isinstance(value, torch.nn.Module):
            for name, member in (*value.named_parameters(), *value.named_buffers()):
                if member is tensor:
                    return Source(kind, place, known, tuple(name.split(".")))
    return Source("value", 0, tensor)


def _roots(
    function: Callable[..., object], constants: Sequence[object]
) -> Iterator[tuple[Kind, int | str, object]]:
    for number, cell in enumerate(getattr(function, "__closure__", None) or ()):
        try:
            yield "cell", number, cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    code = getattr(function, "__code__", None)
    names = _names(code) if isinstance(code, CodeType) else ()
    for name in dict.fromkeys(names):
        if name in function.__globals__:
            yield "global", name, function.__globals__[name]
    for value in constants:
        yield "value", 0, value


def _names(code: CodeType) -> Iterator[str]:
    """The global names that a function and those inside it read."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
