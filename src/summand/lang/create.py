"""Arrays from nothing: full, zeros, ones, arange-like positions, the Kronecker delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from summand.errors import ArgumentError, DimError
from summand.lang.array import Array, Dim, Number, apply, array
from summand.lang.data import to_dtype
from summand.lang.describe import message, source_row
from summand.lang.elementwise import expand, scalar_type
from summand.lang.graph import constant
from summand.lang.location import here

Shape = Mapping[Dim, int] | Sequence[Dim]


def shape(sizes: Shape) -> dict[str, int]:
    """Keys to sizes, in order: `{n: 64, d: 8}`, or dims that have sizes of their own."""
    pairs = sizes.items() if isinstance(sizes, Mapping) else [(d, None) for d in sizes]
    out: dict[str, int] = {}
    for dim, given in pairs:
        if not isinstance(dim, Dim):
            what = f"{dim!r} is not a dim"
            raise ArgumentError(message(what, source_row(here()), "Write {n: 64, d: 8}."))
        size = dim.size if given is None else int(given)
        if size is None:
            what = f"nothing gives {dim.name} a size"
            advice = f"Write {{{dim.name}: 64}}."
            raise DimError(message(what, source_row(here()), advice))
        if size < 0 or (dim.size is not None and dim.size != size):
            what = f"{dim.name} cannot have size {size}"
            raise DimError(message(what, [(dim.name, dim.loc), *source_row(here())], ""))
        out[dim.key] = size
    return out


def full(sizes: Shape, value: Number, dtype: object = None) -> Array:
    """`value` everywhere: `sm.full({i: 3, j: 4}, 0.5)`."""
    found = scalar_type(value) if dtype is None else to_dtype(dtype)
    return Array(expand(constant(value, found), shape(sizes)))


def zeros(sizes: Shape, dtype: object = "f32") -> Array:
    """Zeros: `sm.zeros({i: 3, j: 4})`."""
    return full(sizes, 0, dtype)


def ones(sizes: Shape, dtype: object = "f32") -> Array:
    """Ones: `sm.ones({i: 3, j: 4})`."""
    return full(sizes, 1, dtype)


def zeros_like(a: Array) -> Array:
    """Zeros of the same dims and type."""
    return full_like(a, 0)


def ones_like(a: Array) -> Array:
    """Ones of the same dims and type."""
    return full_like(a, 1)


def full_like(a: Array, value: Number) -> Array:
    """`value` everywhere, with a's dims and type."""
    sized = a.sized("full_like")
    return Array(expand(constant(value, sized.dtype), sized.type.sizes))


def linspace(start: float, stop: float, over: Dim, dtype: object = "f32") -> Array:
    """Evenly spaced numbers along a dim with a size of its own, both ends included."""
    (size,) = shape((over,)).values()
    return array(np.linspace(start, stop, size), over, dtype=dtype)


def eq(a: Array | Number, b: Array | Number) -> Array:
    """Elementwise equality; of two dims, the Kronecker delta (true where i = j)."""
    return apply("eq", a, b)


def ne(a: Array | Number, b: Array | Number) -> Array:
    """Elementwise inequality, of dims too."""
    return apply("ne", a, b)
