"""The few greatest of many, one after the other.

    top_k %0 i q   ->   recur over q:  the greatest element that comes after the one before it

Each step looks at all elements once, so k of n cost k·n comparisons; ranks (see `expand`) cost n².
The order is that of `TopK`: descending, ties to the lower position, NaN last.
"""

from __future__ import annotations

import math

from summand.dtypes import DType, i32
from summand.ir.builder import Builder
from summand.ir.nodes import MAX, MIN, Program, Read, Recur, Type, Var, identity_of

_STEP = 6  # one step of the selection costs about as much as this many comparisons of ranks


def is_selection(count: int, size: int) -> bool:
    """True where selecting `count` of `size` one after the other is cheaper than ranking all."""
    return 0 < count * _STEP < size


def select(build: Builder, arg: Var, dim: str, out: str, count: int) -> tuple[Var, Var]:
    """Values and positions (i32) of the `count` greatest along `dim`, along the new dim `out`."""
    dtype = arg.type.dtype
    rest = Type(dtype, tuple(x for x in arg.type.dims if x[0] != dim))
    first = build.expand(build.constant(identity_of(MIN, (dtype,))[0], dtype), rest.sizes)
    nowhere = build.expand(build.constant(-1, i32), rest.sizes)
    op = Recur(
        (out,),
        (True,),
        (count,),
        (Read(0, (1,)), Read(1, (1,))),
        (first, nowhere),
        (arg,),
        _step(arg.type, rest, dim),
    )
    values = Type.of(dtype, {**rest.sizes, out: count})
    found = build.emit(op, [values, values.with_dtype(i32)])
    return found[0], found[1]


def _step(whole: Type, rest: Type, dim: str) -> Program:
    """The value and position before it, all elements  ->  the next value and position."""
    b = Builder()
    value, place = b.param(rest), b.param(rest.with_dtype(i32))
    every = b.param(whole)
    b.param(Type(i32))
    size = whole.sizes[dim]
    at = b.iota(dim, size)
    none = b.constant(size, i32)
    later = b.map("gt", at, place)
    tie = b.map("and", b.map("eq", every, value), later)
    after = b.map("or", b.map("lt", every, value), tie)
    least = b.constant(identity_of(MAX, (whole.dtype,))[0], whole.dtype)
    (best,) = b.reduce(MAX, [dim], b.map("where", after, every, least))
    here = b.map("and", after, b.map("eq", every, best))
    (position,) = b.reduce(MIN, [dim], b.map("where", here, at, none))
    if not whole.dtype.is_float:
        return b.finish([best, position])
    there = b.map("lt", position, none)
    best = b.map("where", there, best, _nan(b, whole.dtype))
    plain = b.map("eq", value, value)
    left = b.map("and", b.map("isnan", every), b.map("or", plain, later))
    (of_nan,) = b.reduce(MIN, [dim], b.map("where", left, at, none))
    return b.finish([best, b.map("where", there, position, of_nan)])


def _nan(b: Builder, dtype: DType) -> Var:
    return b.constant(math.nan, dtype)
