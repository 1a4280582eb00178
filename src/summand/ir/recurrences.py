"""Earlier values of a recurrence, read from outside of it.

read of h[t - 1] at every t   ->   where(t >= 1, h[t: t - 1] fill 0, init)
                                  or   h[t: t - 1] fill c     where init is the number c
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import Constant, Eqn, Map, Read, Recur, Reindex, Scalar, Table, Var


def in_range(b: Builder, op: Recur, shift: Sequence[int]) -> Var | None:
    """True at the positions p where p - shift exists; None where that is everywhere."""
    here: Var | None = None
    for dim, size, by in zip(op.over, op.sizes, shift, strict=True):
        if by == 0:
            continue
        place = b.iota(dim, size)
        bound = b.constant(by if by > 0 else size + by, place.type.dtype)
        test = b.map("ge" if by > 0 else "lt", place, bound)
        here = test if here is None else b.map("and", here, test)
    return here


def uniform(made: Mapping[Var, Eqn], var: Var) -> Scalar | None:
    """The number that a value is everywhere, where its equations say so."""
    while True:
        eqn = made.get(var)
        match eqn.op if eqn is not None else None:
            case Constant(value=value) if not isinstance(value, Table):
                return value
            case Map(fn="where", args=(_, first, second)) if first == second:
                var = first
            case Reindex(arg=arg, mode="trusted" | "clip"):
                var = arg
            case _:
                return None


def earlier(
    b: Builder, op: Recur, read: Read, state: Var, init: Var, known: Scalar | None = None
) -> Var:
    """What the body read at every position: the state shifted, or the initial value, which is the
    number `known` everywhere if that is given."""
    index = {d: Form.of(d) - v for d, v in zip(op.over, read.shift, strict=True) if v}
    sizes = dict(zip(op.over, op.sizes, strict=True))
    if known is not None:
        return b.reindex(state, index, sizes, "fill", known)
    shifted = b.reindex(state, index, sizes, "fill")
    here = in_range(b, op, read.shift)
    return shifted if here is None else b.map("where", here, shifted, init)
