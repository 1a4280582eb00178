"""A scatter that puts one element into each row is a comparison.

    reduce_at sum {} a{n} {k: %label{n}}   ->   where(k == %label, a, 0)      {n, k}

The gradient of a read by a computed place is such a scatter. As a map it is evaluated where it is
read, and no array of zeros is made. Needs a verified Program whose places have been checked.
Leaves scatters that fold dims, and other monoids.
"""

from __future__ import annotations

from summand.dtypes import i32
from summand.ir.nodes import SUM, Index, Mode, Program, ReduceAt, Var
from summand.ir.prims import POSITION
from summand.rewrite.rebuild import Rebuild, inside


def placed(program: Program) -> Program:
    """Rewrite every scatter of one element to a row, in sub-programs too."""
    new = Rebuild(program)
    for eqn in program.eqns:
        op = inside(eqn.op, placed)
        value = _compared(new, op, eqn.outs[0]) if isinstance(op, ReduceAt) else None
        if value is None:
            new.copy(eqn, op)
        else:
            new.bind(eqn.outs, [value])
    return new.done(program)


def _compared(new: Rebuild, op: ReduceAt, out: Var) -> Var | None:
    """The scatter as a map, or None where it stays."""
    sizes = out.type.sizes
    if op.dims or op.monoid != SUM or any(sizes[d] >= 2**31 - 1 for d, _ in op.index):
        return None
    here: Var | None = None
    for dim, index in op.index:
        place = _place(new, index, sizes, dim, op.mode)
        same = new.map("eq", new.iota(dim, sizes[dim]), place)
        here = same if here is None else new.map("and", here, same)
    if here is None:
        return None
    value = new.of(op.args[0])
    return new.map("where", here, value, new.constant(0, value.type.dtype))


def _place(new: Rebuild, index: Index, sizes: dict[str, int], dim: str, mode: Mode) -> Var:
    """An index in 32 bits; where it may leave the dim, at the nearest place in or beside it."""
    if not isinstance(index, Var):
        return new.convert(new.position(index, sizes), POSITION)
    place = new.of(index)
    if place.type.dtype.bits < i32.bits:
        place = new.convert(place, i32)
    dtype = place.type.dtype
    if mode != "trusted":
        low, high = (-1, sizes[dim]) if mode == "fill" else (0, sizes[dim] - 1)
        place = new.map("min", place, new.constant(high, dtype))
        if dtype.kind == "int":
            place = new.map("max", place, new.constant(low, dtype))
    return new.convert(place, POSITION)
