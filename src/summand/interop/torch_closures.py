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
from dataclasses import dataclass, replace
from types import CodeType
from typing import cast

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Source:
    """A way to a tensor: from the cell of a number, the global of a name, else from a fixed value;
    then by attributes."""

    value: object = None
    cell: int = -1
    name: str = ""
    path: tuple[str, ...] = ()

    def current(self, function: Callable[..., object]) -> Tensor:
        """The tensor that is there now."""
        found = self.value
        if self.cell >= 0:
            found = (function.__closure__ or ())[self.cell].cell_contents
        elif self.name:
            found = function.__globals__[self.name]
        for attribute in self.path:
            found = getattr(found, attribute)
        return cast("Tensor", found)


def source_of(
    function: Callable[..., object], constants: Sequence[object], tensor: Tensor
) -> Source:
    """The way to a tensor that the function used."""
    for root, value in _roots(function, constants):
        if value is tensor:
            return root
        if isinstance(value, torch.nn.Module):
            for name, member in (*value.named_parameters(), *value.named_buffers()):
                if member is tensor:
                    return replace(root, path=tuple(name.split(".")))
    return Source(tensor)


def _roots(
    function: Callable[..., object], constants: Sequence[object]
) -> Iterator[tuple[Source, object]]:
    for number, cell in enumerate(getattr(function, "__closure__", None) or ()):
        try:
            yield Source(cell=number), cell.cell_contents
        except ValueError:  # a name that has no value yet
            continue
    code = getattr(function, "__code__", None)
    names = _names(code) if isinstance(code, CodeType) else ()
    for name in dict.fromkeys(names):
        if name in function.__globals__:
            yield Source(name=name), function.__globals__[name]
    for value in constants:
        yield Source(value), value


def _names(code: CodeType) -> Iterator[str]:
    """The global names that a function and those inside it read."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
