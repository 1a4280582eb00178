"""Sums of scatters into the same places are one scatter of a sum.

    (reduce_at sum {p} %a {k: %i}) + (reduce_at sum {p} %b {k: %i})
                                        ->   reduce_at sum {p} (add %a %b) {k: %i}

Reverse mode writes one scatter for every time that a window of a value is read. Not where a part is
itself a sum, which may become one contraction together with its scatter.
"""

from __future__ import annotations

from summand.ir.nodes import SUM, Reduce, ReduceAt, Type, Var
from summand.rewrite.simplify.smart import Smart


def sum_of_scatters(new: Smart, a: Var, b: Var, type_: Type) -> Var | None:
    """a + b as one scatter, if both are scatters into the same places."""
    left, right = _scatter(new, a), _scatter(new, b)
    if left is None or right is None or a == b:
        return None
    same = left.index == right.index and left.mode == right.mode
    if not same or set(left.dims) != set(right.dims):
        return None
    if not all(_covers(op) for op in (left, right)):
        return None
    both = new.map("add", left.args[0], right.args[0])
    merged = ReduceAt(SUM, left.dims, (both,), left.index, left.mode)
    return new.emit(merged, [type_])[0]


def _scatter(new: Smart, var: Var) -> ReduceAt | None:
    made = new.made(var)
    if made is None or not isinstance(made.op, ReduceAt) or not new.is_read_once(var):
        return None
    op = made.op
    if op.monoid != SUM or (var.type.dtype.is_float and var.type.dtype.bits == 16):
        return None
    inner = new.made(op.args[0])
    return None if inner is not None and isinstance(inner.op, Reduce) else op


def _covers(op: ReduceAt) -> bool:
    """True where the operand has all of the folded dims: each of its elements counts once."""
    return set(op.dims) <= op.args[0].type.names
