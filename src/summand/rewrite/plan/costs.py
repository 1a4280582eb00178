"""Costs of evaluating and of storing values, in cycles of one core.

The terms that fusion weighs: arithmetic of an expression at one point, bytes moved for a stored
value. Numbers are those of `Target`; only ratios matter.
"""

from __future__ import annotations

from collections.abc import Callable

from summand.ir.nodes import Constant, Eqn, Iota, Map, ReduceAt, Reindex, Table, Var, operands
from summand.ir.prims import PRIMS
from summand.options import Target
from summand.rewrite.places.solve import moved_position

STAGE = 2000.0  # cycles that a further nest and its values in memory cost at least
GATHER = 6.0  # an element load by a computed address, in vector slots for one element
ROW = 16  # elements that one computed address serves at most, where they lie side by side


def point_cost(eqn: Eqn) -> float:
    """Slots of one element of an equation, without its operands."""
    match eqn.op:
        case Map() if is_free(eqn):
            return 0.0
        case Map(fn="convert"):
            return 0.25
        case Map():
            return PRIMS[eqn.op.fn].flops
        case Reindex():
            cost = 0.0
            moved = dict(eqn.op.index)
            row = 1
            for dim, size in eqn.op.arg.type.dims:
                row *= 1 if dim in moved else size
            for index in moved.values():
                computed = isinstance(index, Var) or not index.is_affine
                cost += GATHER / max(1, min(row, ROW)) if computed else 0.0
            return cost + (0.5 if eqn.op.mode == "fill" else 0.0)
        case Iota() | Constant():
            return 0.0
        case _:
            return 0.0


def row_dims(op: ReduceAt, out: Var, made: Callable[[Var], Eqn | None]) -> frozenset[str]:
    """The dims of one row of a scatter, along which vectors may lie: its operand walks in order all
    others. Those that it keeps, and positions that are added to a computed place."""
    sizes = op.args[0].type.sizes
    walked = {d for _, i in op.index for d in (i.type.names if isinstance(i, Var) else i.dims)}
    rows = {d for d in out.type.names if d in sizes and d not in walked and d not in op.dims}
    for _, index in op.index:
        moved = moved_position(index, made) if isinstance(index, Var) else None
        if moved is not None and op.mode == "fill" and moved[1] in op.dims:
            others = [i for _, i in op.index if i != index]
            if not any(moved[1] in i.type.names for i in others if isinstance(i, Var)):
                rows.add(moved[1])
    return frozenset(rows)


def is_free(eqn: Eqn) -> bool:
    """True of what costs nothing where it is evaluated: a renamed or shifted read, a constant."""
    match eqn.op:
        case Constant():
            return not isinstance(eqn.op.value, Table)
        case Iota():
            return True
        case Reindex():
            return all(not isinstance(i, Var) and i.is_affine for _, i in eqn.op.index)
        case Map(fn="stop_gradient" | "barrier"):
            return True
        case Map():
            return is_expansion(eqn) or _is_true(eqn)
        case _:
            return False


def is_expansion(eqn: Eqn) -> bool:
    """True of where(p, a, a): `a` with the dims of `p`, along which it is constant."""
    return isinstance(eqn.op, Map) and eqn.op.fn == "where" and eqn.op.args[1] == eqn.op.args[2]


def _is_true(eqn: Eqn) -> bool:
    """True of i == i, which `Builder.expand` makes to give a value a dim."""
    if not isinstance(eqn.op, Map) or eqn.op.fn != "eq":
        return False
    a, b = eqn.op.args
    return a == b and a.type.dtype.is_integer


def inputs(eqn: Eqn) -> tuple[Var, ...]:
    """The operands that an equation's value depends on."""
    if isinstance(eqn.op, Map) and is_expansion(eqn):
        return eqn.op.args[1:2]
    return tuple(dict.fromkeys(operands(eqn.op)))


def move_cycles(nbytes: float, target: Target) -> float:
    """Cycles to write some bytes and read them back, at the level of memory that they fit."""
    if nbytes <= target.l2 // 2:
        return nbytes / 24
    if nbytes <= target.l3 // 8:
        return nbytes / 10
    return 2 * nbytes / target.dram_bytes_per_cycle


def slot_cycles(slots: float, bits: int, target: Target) -> float:
    """Cycles of vector arithmetic that takes so many scalar slots."""
    return slots / (target.lanes(max(bits, 32)) * target.fma_per_cycle)
