"""Adjoints of equations that select: max, min, sort, top_k.

    m = max{k} z      ->   m, p = argmax{k} z, position k        (one pass gives both)
                           cz = cm at k = p, zero elsewhere

Where several elements tie, the first one is selected, so nothing is counted twice. A fold into
places (`reduce_at`) selects the first element that arrives at each place. The position is a second
component of the fold: the value is compared once, and no result depends on how it was rounded when
it was computed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from summand import dtypes
from summand.ad.cotangents import Selected, dense
from summand.ad.indexing import gather_places
from summand.ad.tape import Step, Tape
from summand.dtypes import DType
from summand.ir.builder import Builder
from summand.ir.nodes import (
    NAMED,
    SUM,
    Eqn,
    Monoid,
    Reduce,
    ReduceAt,
    Scalar,
    Sort,
    TopK,
    Type,
    Var,
    identity_of,
)

ORDERED = ("max", "min")
SMALL = 16  # positions: up to here comparing with each costs less than one scattered store


def selector(kind: str, dtype: DType, index: DType) -> Monoid:
    """The monoid over (value, position) that keeps the first greatest or least value.

    Elements are folded in order, so a later one must be better, not equal: one comparison. Of no
    elements, or where all are infinitely bad, the position is the greatest integer, which is
    outside every dim: nothing was selected.
    """
    b = Builder()
    v1, i1, v2, i2 = (b.param(Type(t)) for t in (dtype, index, dtype, index))
    better = b.map("gt" if kind == "max" else "lt", v2, v1)
    value = b.map(kind, v1, v2)
    combine = b.finish([value, b.map("where", better, i2, i1)])
    (start,) = identity_of(NAMED[kind], (dtype,))
    beyond: Scalar = 2 ** (index.bits - 1) - 1
    return Monoid(f"first_{kind}", (start, beyond), combine, commutative=False, idempotent=True)


def position(b: Builder, sizes: Sequence[tuple[str, int]]) -> Var:
    """The row-major position over some dims (first is outermost), i32 where that holds it."""
    count = math.prod(n for _, n in sizes)
    dtype = dtypes.i32 if count < 2**31 else dtypes.i64
    total, stride = None, 1
    for dim, size in reversed(sizes):
        term = b.convert(b.iota(dim, size), dtype)
        if stride != 1:
            term = b.map("mul", term, b.constant(stride, dtype))
        total = term if total is None else b.map("add", term, total)
        stride *= size
    return total if total is not None else b.constant(0, dtype)


def coordinates(
    b: Builder, place: Var, sizes: Sequence[tuple[str, int]]
) -> tuple[tuple[str, Var], ...]:
    """The dims' own positions from the row-major one; the inverse of `position`."""
    out: list[tuple[str, Var]] = []
    stride = math.prod(n for _, n in sizes)
    for dim, size in sizes:
        stride //= max(size, 1)
        at = place
        if stride != 1:
            at = b.map("floordiv", at, b.constant(stride, place.type.dtype))
        if len(out) > 0:
            at = b.map("mod", at, b.constant(size, place.type.dtype))
        out.append((dim, at))
    return tuple(out)


def _positions(b: Builder, arg: Var, dims: Sequence[str]) -> Var:
    """Each element's position over the dims that are folded."""
    return b.expand(position(b, [(d, arg.type.sizes[d]) for d in dims]), arg.type.sizes)


def forward_reduce(tape: Tape, op: Reduce, eqn: Eqn) -> Step:
    """max or min, with the selected position."""
    (arg,) = op.args
    place = _positions(tape.b, arg, op.dims)
    monoid = selector(op.monoid.name, arg.type.dtype, place.type.dtype)
    value, selected = tape.b.reduce(monoid, op.dims, arg, place)
    return Step(Eqn((value,), op, eqn.loc), (selected,))


def pull_reduce(tape: Tape, step: Step, op: Reduce) -> None:
    """The cotangent goes to the selected element."""
    (arg,), (selected,) = op.args, step.saved
    ct = tape.array(step.eqn.out)
    if ct is None:
        return
    sizes = [(d, arg.type.sizes[d]) for d in op.dims]
    if math.prod(n for _, n in sizes) <= SMALL:
        hit = tape.b.map("eq", position(tape.b, sizes), selected)
        tape.add(arg, tape.b.map("where", hit, ct, tape.b.constant(0, ct.type.dtype)))
    else:
        tape.add(arg, Selected(ct, coordinates(tape.b, selected, sizes)))


def forward_reduce_at(tape: Tape, op: ReduceAt, eqn: Eqn) -> Step:
    """max or min into places, with the selected position over the folded dims."""
    (arg,) = op.args
    place = _positions(tape.b, arg, op.dims)
    monoid = selector(op.monoid.name, arg.type.dtype, place.type.dtype)
    sizes = {d: eqn.out.type.sizes[d] for d, _ in op.index}
    value, selected = tape.b.reduce_at(
        monoid, op.dims, [arg, place], dict(op.index), sizes, op.mode
    )
    return Step(Eqn((value,), op, eqn.loc), (selected,))


def pull_reduce_at(tape: Tape, step: Step, op: ReduceAt) -> None:
    """An element has its place's cotangent if it is the one that the place selected."""
    (arg,), (selected,) = op.args, step.saved
    ct = tape.full(step.eqn.out)
    if ct is None:
        return
    b = tape.b
    winner = gather_places(b, selected, op, arg, fill=-1)
    own = position(b, [(d, arg.type.sizes[d]) for d in op.dims])
    there = gather_places(b, ct, op, arg)
    zero = b.constant(0, ct.type.dtype)
    tape.add(arg, b.map("where", b.map("eq", own, winner), there, zero))


def pull_sorted(tape: Tape, eqn: Eqn, op: Sort | TopK) -> None:
    """Each sorted element's cotangent goes back to its position."""
    values, positions = eqn.outs
    ct = tape.cotangent(values)
    if ct is None:
        return
    array = tape.b.expand(dense(tape.b, ct, values.type), values.type.sizes)
    along = op.out if isinstance(op, TopK) else op.dim
    sizes = {op.dim: op.arg.type.sizes[op.dim]}
    tape.add(op.arg, tape.b.reduce_at(SUM, [along], [array], {op.dim: positions}, sizes)[0])
