"""Monoids: the named ones, those of argmax and argmin, and a user's own.

    sm.Monoid(lambda a, b: a * b, 1)                                  a product
    sm.Monoid(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (1, 0)) affine maps, composed

`combine` is traced once for each tuple of element types into a program of scalars.
"""

from __future__ import annotations

from functools import lru_cache

from summand.dtypes import DType, bool_
from summand.ir.builder import Builder
from summand.ir.nodes import MIN, NAMED, Scalar, Type, Var, identity_of
from summand.ir.nodes import Monoid as MonoidNode


@lru_cache(maxsize=256)
def arg_extreme(name: str, dtype: DType, position_dtype: DType) -> MonoidNode:
    """(value, position) under max or min: ties go to the lower position, NaN wins as in NumPy."""
    b = Builder()
    value, position = Type(dtype), Type(position_dtype)
    va, pa, vb, pb = b.param(value), b.param(position), b.param(value), b.param(position)
    better = b.map("gt" if name == "max" else "lt", vb, va)
    equal = b.map("eq", va, vb)
    if dtype.is_float:
        nan_a, nan_b = b.map("isnan", va), b.map("isnan", vb)
        better = _or(b, better, _and(b, nan_b, b.map("not", nan_a)))
        equal = _or(b, equal, _and(b, nan_a, nan_b))
    take = _or(b, better, _and(b, equal, b.map("lt", pb, pa)))
    results = (b.map("where", take, vb, va), b.map("where", take, pb, pa))
    least: Scalar = identity_of(NAMED[name], (dtype,))[0]
    if dtype is bool_:
        least = name == "min"
    last = identity_of(MIN, (position_dtype,))[0]  # later than every other position
    return MonoidNode(
        f"arg{name}", (least, last), b.finish(results), commutative=True, idempotent=True
    )


def _or(b: Builder, x: Var, y: Var) -> Var:
    return b.map("or", x, y)


def _and(b: Builder, x: Var, y: Var) -> Var:
    return b.map("and", x, y)
