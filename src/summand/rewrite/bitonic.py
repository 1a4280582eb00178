"""Sorting many elements: Batcher's bitonic network, one stage of exchanges after the other.

    sort %0 i   ->   while stage < stages:  element x meets x xor distance; both keep order

Each of log²(n)/2 stages is one pass over all elements, and every element of a stage is independent
of the others; ranks (see `expand`) cost n² comparisons but one pass, which is better for few.
The network works on a power of two of places; places past the end hold what sorts last. Positions
take part in every comparison, so the order is stable, with NaN last.
Source: Batcher 1968, Sorting networks and their applications.
"""

from __future__ import annotations

import numpy as np

from summand.dtypes import i32
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import Program, Var, While

LARGE = 4096  # from here on a network beats ranks


def sort(build: Builder, names: Names, arg: Var, dim: str, descending: bool) -> tuple[Var, Var]:
    """Sorted values along `dim`, and their positions (i32)."""
    size = arg.type.sizes[dim]
    levels = (size - 1).bit_length()
    place, stage = names.fresh(dim), names.fresh("stage")
    count = 1 << levels
    values = build.reindex(arg, {dim: Form.of(place)}, {place: count}, "fill", 0)
    positions = build.expand(build.iota(place, count), values.type.sizes)
    runs, distances = _stages(levels)
    tables = [build.table(t, (stage,), i32) for t in (runs, distances)]
    state = (build.constant(0, i32), values, positions)
    op = While(
        _test(len(runs), tables, state),
        _body(tables, state, stage, place, size, descending),
        tuple(tables),
        state,
    )
    _, values, positions = build.emit(op, [s.type for s in state])
    cut = {place: Form.of(dim)}
    return (
        build.reindex(values, cut, {dim: size}),
        build.reindex(positions, cut, {dim: size}),
    )


def _stages(levels: int) -> tuple[np.ndarray, np.ndarray]:
    """For each stage the length of the runs that are being merged, and the distance of partners."""
    pairs = [(2 << level, 1 << step) for level in range(levels) for step in range(level, -1, -1)]
    table = np.array(pairs, np.int32)
    return table[:, 0], table[:, 1]


def _params(b: Builder, tables: list[Var], state: tuple[Var, ...]) -> list[Var]:
    return [b.param(v.type) for v in (*tables, *state)]


def _test(stages: int, tables: list[Var], state: tuple[Var, ...]) -> Program:
    b = Builder()
    now = _params(b, tables, state)[2]
    return b.finish([b.map("lt", now, b.constant(stages, i32))])


def _body(
    tables: list[Var],
    state: tuple[Var, ...],
    stage: str,
    place: str,
    size: int,
    descending: bool,
) -> Program:
    b = Builder()
    runs, distances, now, values, positions = _params(b, tables, state)
    run = b.reindex(runs, {stage: now}, {}, "trusted")
    distance = b.reindex(distances, {stage: now}, {}, "trusted")
    at = b.iota(place, values.type.sizes[place])
    partner = b.map("xor", at, distance)
    theirs = b.reindex(values, {place: partner}, {}, "trusted")
    their_position = b.reindex(positions, {place: partner}, {}, "trusted")
    zero = b.constant(0, i32)
    first = b.map("eq", b.map("and", at, distance), zero)
    upward = b.map("eq", b.map("and", at, run), zero)
    smaller = b.map("eq", first, upward)  # this place keeps the one that comes first
    before = _before(b, (values, positions), (theirs, their_position), size, descending)
    mine = b.map("eq", before, smaller)
    return b.finish(
        [
            b.map("add", now, b.constant(1, i32)),
            b.map("where", mine, values, theirs),
            b.map("where", mine, positions, their_position),
        ]
    )


def _before(b: Builder, x: tuple[Var, Var], y: tuple[Var, Var], size: int, descending: bool) -> Var:
    """x comes before y: by kind (number, NaN, nothing), then value, then position."""
    less, more = b.map("lt", x[0], y[0]), b.map("gt", x[0], y[0])
    if descending:
        less, more = more, less
    earlier = b.map("lt", x[1], y[1])
    by_value = b.map("or", less, b.map("and", b.map("not", more), earlier))
    kinds = [_kind(b, *z, size) for z in (x, y)]
    same = b.map("and", b.map("eq", *kinds), by_value)
    return b.map("or", b.map("lt", *kinds), same)


def _kind(b: Builder, value: Var, position: Var, size: int) -> Var:
    """0 for a number, 1 for NaN, 2 for a place past the end."""
    zero, one, two = (b.constant(n, i32) for n in range(3))
    past = b.map("ge", position, b.constant(size, i32))
    number = zero
    if value.type.dtype.is_float:
        number = b.map("where", b.map("isnan", value), one, zero)
    return b.map("where", past, two, number)
