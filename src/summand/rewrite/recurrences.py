"""Recurrences that one nest can run with states in registers, and dims that tasks may share out."""

from __future__ import annotations

from summand.ir.nodes import Constant, Eqn, Iota, Map, Recur, Reduce, Reindex, Table, Var, operands


def in_registers(op: Recur) -> bool:
    """Whether one nest can run a recurrence with its states in registers: one dim, each read one
    step back, and only maps of the states at their own place."""
    if len(op.over) != 1:
        return False
    back = 1 if op.forward[0] else -1
    if any(r.shift != (back,) for r in op.reads):
        return False
    names = [r.type.names for r in op.body.results]
    if any(n != names[0] for n in names):
        return False
    return all(_pointwise(e, names[0]) for e in op.body.eqns) and all(
        p.type.names <= names[0] for p in op.body.params
    )


def _pointwise(eqn: Eqn, names: frozenset[str]) -> bool:
    match eqn.op:
        case Map() | Iota():
            return eqn.out.type.names <= names
        case Constant():
            return not isinstance(eqn.op.value, Table)
        case _:
            return False


def separable(op: Recur) -> frozenset[tuple[str, int]]:
    """Dims of all states along which every position of the body works by itself."""
    if not op.body.results:
        return frozenset()
    shared = frozenset(op.body.results[0].type.dims)
    for r in op.body.results[1:]:
        shared &= frozenset(r.type.dims)
    mixed: set[str] = set(op.over)
    for eqn in op.body.eqns:
        match eqn.op:
            case Reduce():
                mixed |= set(eqn.op.dims)
            case Reindex():
                for dim, index in eqn.op.index:
                    mixed |= {dim} | (index.type.names if isinstance(index, Var) else index.dims)
            case Map():
                pass
            case _:
                mixed |= {d for v in (*eqn.outs, *operands(eqn.op)) for d in v.type.names}
    return frozenset(x for x in shared if x[0] not in mixed)
