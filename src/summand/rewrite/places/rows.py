"""Gathers read and scatters write whole rows: arrays whose rows lie apart get a copy.

    reindex %0{c,y} {y: %1}, %0 in order c, y   ->   %3 = interleave (%0); reindex %3 {y: %1}

The dims that no index moves are a row. A parameter whose innermost dim is gathered, and a result
whose innermost dim is a computed place, have their rows' elements far from each other; the copy is
free to have them side by side, so that vectors load and store them. It is made where at least
twice as many elements are gathered or scattered as there are, and a row fills half a vector. A
parameter with overlapping windows is copied, too, where its innermost dim fills no vector (a batch
of three) and each element is read many times.

Needs the orders of parameters and results, so it is no pass of `PASSES`. Keeps every value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.ir.index import Form
from summand.ir.nodes import Eqn, Interleave, Program, ReduceAt, Reindex, Var
from summand.rewrite.places.solve import moved_position
from summand.rewrite.rebuild import Rebuild

Order = tuple[str, ...]
OFTEN = 2  # elements read or written for each element of the array
LEAST = 8  # elements of a row
MANY = 16  # elements read for each element of an array, that windows overlap on
LARGE = 1 << 14  # elements of an array


def gather_rows(
    program: Program, params: Sequence[Order], results: Sequence[Order | None]
) -> Program:
    """Copy what is gathered from or scattered to against the order of its rows."""
    given = dict(zip(program.params, params, strict=True))
    wanted = {v: o for v, o in zip(program.results, results, strict=False) if o is not None}
    new = Rebuild(program)
    copies: dict[Var, Var] = {}
    made = {o: eqn for eqn in program.eqns for o in eqn.outs}
    for eqn in program.eqns:
        match eqn.op:
            case Reindex() as op if op.arg not in given:
                new.copy(eqn)
            case Reindex() as op if _is_narrow(op, given[op.arg], eqn.out) or (
                not _moved(op, made) and _scattered(op, given[op.arg], op.arg, eqn.out)
            ):
                if op.arg not in copies:
                    copies[op.arg] = _copy(new, new.of(op.arg))
                before = new.of(op.arg)
                new.env[op.arg] = copies[op.arg]
                new.copy(eqn)
                new.env[op.arg] = before
            case ReduceAt() as op if _any_scattered(op, eqn, wanted):
                outs = new.copy(eqn)
                new.bind(eqn.outs, [_copy(new, o) for o in outs])
            case _:
                new.copy(eqn)
    return new.done(program) if len(new.eqns) > len(program.eqns) else program


def _moved(op: Reindex, made: Mapping[Var, Eqn]) -> bool:
    """Whether all computed places are positions moved by a distance: then rows stay rows. (Not so
    where a position is one of a few: the corners around a computed place.)"""
    if op.mode != "fill":
        return False
    for dim, index in op.index:
        if isinstance(index, Var):
            found = moved_position(index, made.get)
            few = found is None or 2 * index.type.sizes[found[1]] < op.arg.type.sizes[dim]
            if few:
                return False
    return True


def _is_narrow(op: Reindex, order: Order, moved: Var) -> bool:
    """Whether windows overlap on an array whose innermost dim does not fill a vector."""
    sizes = {d: n for d, n in op.arg.type.dims if n > 1}
    inner = [d for d in order if d in sizes]
    windows = any(isinstance(i, Form) and len(i.dims) > 1 for _, i in op.index)
    narrow = bool(inner) and sizes[inner[-1]] < LEAST and inner[-1] not in dict(op.index)
    often = moved.type.count >= MANY * op.arg.type.count
    return windows and narrow and often and op.arg.type.count >= LARGE


def _any_scattered(op: ReduceAt, eqn: Eqn, wanted: dict[Var, Order]) -> bool:
    return any(_scattered(op, wanted.get(o, ()), o, op.args[0]) for o in eqn.outs)


def _scattered(op: Reindex | ReduceAt, order: Order, whole: Var, moved: Var) -> bool:
    """Whether an array of this order has its rows' elements apart, and is met often enough."""
    places = {d for d, i in op.index if isinstance(i, Var)}
    sizes = {d: n for d, n in whole.type.dims if n > 1}
    inner = [d for d in order if d in sizes]
    if not inner or inner[-1] not in places:
        return False
    row = 1
    for d, n in sizes.items():
        row *= n if d not in dict(op.index) else 1
    return row >= LEAST and moved.type.count >= OFTEN * whole.type.count


def _copy(new: Rebuild, var: Var) -> Var:
    dim = var.type.dims[0][0]
    return new.emit(Interleave((var,), ((dim, 1),)), [var.type])[0]
