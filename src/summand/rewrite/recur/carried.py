"""Recurrences that run with states in registers, and dims that tasks may share out.

h[t] from h[t-1]                              one nest over t, in order
D[i, j] from D[i-1, j-1], D[i-1, j], D[i, j-1]   a loop over i around one nest over j, in order

Others are a loop around the nests of a step, within a task; or, where tasks share out the dims of
a large step and not the recurrence, a launch for each nest of a step.
"""

from __future__ import annotations

import math

from summand.ir.nodes import Constant, Eqn, Iota, Map, Recur, Reduce, Reindex, Table, Var, operands

TASKS = 8  # of a recurrence that runs within tasks, at least, if its steps are large
POINTS = 1 << 15  # of a step that is worth a launch, which costs as much as some thousands of them


def in_registers(op: Recur) -> bool:
    """Whether one nest can run a recurrence with its states in registers: one dim, each read one
    step back, and only maps of the states at their own place."""
    if len(op.over) != 1:
        return False
    return all(s == (1,) for s in _steps_back(op)) and _is_pointwise(op)


def in_rows(op: Recur) -> bool:
    """Whether a recurrence over two dims runs row by row: what it reads lies one step back in its
    row, or anywhere in the row before."""
    if len(op.over) != 2:
        return False
    return all(s == (0, 1) or s[0] == 1 for s in _steps_back(op)) and _is_pointwise(op)


def carries(op: Recur) -> bool:
    """Whether states travel in registers along the last dim of a recurrence."""
    return in_registers(op) or in_rows(op)


def _steps_back(op: Recur) -> list[tuple[int, ...]]:
    """How many steps each read goes back along each dim."""
    signs = [1 if f else -1 for f in op.forward]
    return [tuple(s * v for s, v in zip(signs, r.shift, strict=True)) for r in op.reads]


def _is_pointwise(op: Recur) -> bool:
    if not op.body.results:
        return False
    names = op.body.results[0].type.names
    if any(r.type.names != names for r in op.body.results):
        return False
    return all(_pointwise(e, names) for e in op.body.eqns) and all(
        p.type.names <= names for p in op.body.params
    )


def in_rounds(op: Recur) -> bool:
    """Whether each step of a recurrence is launched by itself: it is large, and what it reads of
    the step before lies anywhere, so that no task could run several steps."""
    if len(op.over) != 1 or carries(op) or op.sizes[0] < 2:
        return False
    apart = math.prod(n for _, n in separable(op))
    points = max((r.type.count for r in op.body.results), default=0)
    return apart < TASKS and points >= POINTS


def in_turns(op: Recur) -> frozenset[int]:
    """The states of a loop in memory that live in two halves of a buffer, read and written in turn:
    only the last position is wanted, and every read is one step back, from the same start."""
    if len(op.over) != 1:
        return frozenset()
    back = 1 if op.forward[0] else -1
    found = set()
    for k, kept in enumerate(op.keep):
        reads = [(r.shift, init) for r, init in zip(op.reads, op.inits) if r.state == k]
        if kept != "all" and len(set(reads)) == 1 and reads[0][0] == (back,):
            found.add(k)
    return frozenset(found)


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
