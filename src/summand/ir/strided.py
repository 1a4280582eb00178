"""Arrays with gaps, reversed or repeated axes: read where they lie, without a copy.

    param a f32{i=3, j=4}, array with strides (-16, 2)
    ->
    param flat f32{flat=39}, the memory from the least address to the greatest
    a = reindex flat {flat: 32 - 16*i + 2*j}

Arrays that are dense in some order of their axes need nothing of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import Program, Type

Order = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flat:
    """How an array lies in `length` elements; `start` is where its first one is. In elements."""

    length: int
    start: int
    strides: tuple[int, ...]

    def form(self, dims: Sequence[str]) -> Form:
        """The place of an element, its position along each axis named by `dims`."""
        return Form.make(zip(dims, self.strides, strict=True), self.start)


def lying(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], Flat | None]:
    """The axes from the outermost in memory to the innermost (those of one element last), and how
    the array lies where it is not dense in that order. Strides are in elements."""
    axes = sorted(range(len(shape)), key=lambda k: (shape[k] == 1, -strides[k], k))
    step, dense = 1, True
    for axis in reversed(axes):
        dense = dense and (shape[axis] == 1 or strides[axis] == step)
        step *= shape[axis]
    if dense or step == 0:
        return tuple(axes), None
    # an axis of one element has no stride that matters
    moves = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    steps = [(n - 1) * s for n, s in zip(shape, moves, strict=True)]
    start = -sum(s for s in steps if s < 0)
    return tuple(axes), Flat(start + sum(s for s in steps if s > 0) + 1, start, moves)


def flat(array: np.ndarray) -> Flat | None:
    """How an array lies in memory; None where it is dense in some order, or has to be copied
    (no whole number of elements apart, or in another byte order)."""
    size = array.itemsize
    if not array.dtype.isnative or any(s % size for s in array.strides):
        return None
    return lying(array.shape, [s // size for s in array.strides])[1]


def in_memory(array: np.ndarray) -> tuple[int, ...]:
    """The axes from the outermost in memory to the innermost; those of one element are last."""
    return lying(array.shape, array.strides)[0]


def view(array: np.ndarray, lies: Flat) -> np.ndarray:
    """The memory that an array lies in, as a dense one."""
    forward = array[tuple(slice(None, None, -1 if s < 0 else None) for s in array.strides)]
    return as_strided(forward, (lies.length,), (array.itemsize,), writeable=False)


def views(arrays: Sequence[np.ndarray], lying: Sequence[Flat | None]) -> list[np.ndarray]:
    """The arrays that a program with flat parameters takes."""
    return [a if f is None else view(a, f) for a, f in zip(arrays, lying, strict=True)]


def read_in_place(
    program: Program, orders: Sequence[Order], lying: Sequence[Flat | None]
) -> tuple[Program, tuple[Order, ...]]:
    """The program with a flat parameter for each array that lies flat, and all orders."""
    if not any(lying):
        return program, tuple(orders)
    names = Names(program)
    b = Builder()
    values = []
    taken: list[Order] = []
    for param, order, lies in zip(program.params, orders, lying, strict=True):
        if lies is None:
            values.append(b.param(param.type))
            taken.append(tuple(order))
            continue
        dim, sizes = names.fresh("flat"), param.type.sizes
        whole = b.param(Type.of(param.type.dtype, {dim: lies.length}))
        read = b.reindex(whole, {dim: lies.form(order)}, sizes)
        values.append(b.expand(read, sizes))
        taken.append((dim,))
    return b.finish(b.inline(program, values)), tuple(taken)
