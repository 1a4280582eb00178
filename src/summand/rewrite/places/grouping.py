"""Rows that belong to the same one of a few matrices, side by side in blocks of equal length.

    index{p} = 2 0 2 1 2, blocks of 2   ->   rows{block, row} = (1 -) (3 -) (0 2) (4 -)
                                             choice{block} = 0 1 2 2

A stable counting sort in index notation: a recurrence counts, sums give where each group begins.
Every group is filled up to whole blocks, so the number of blocks is known when compiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from summand.dtypes import i32
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import MAX, SUM, Program, Read, Recur, Type, Var

ROWS = 16  # of a block


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Blocks of rows. `of[d]` is where a row comes from along the index's dim d, -1 where a block
    has no further row; `choice` whose block it is; `block_of`, `row_of` where each element is."""

    block: str
    row: str
    valid: Var
    of: Mapping[str, Var]
    choice: Var
    block_of: Var
    row_of: Var


def group(b: Builder, names: Names, index: Var, size: int) -> Groups:
    """Group the elements of an index (of any dims) into `size` places by its value, clipped."""
    low, high = b.constant(0, index.type.dtype), b.constant(size - 1, index.type.dtype)
    index = b.convert(b.map("min", b.map("max", index, low), high), i32)
    dims = index.type.dims
    count = index.type.count
    strides = _strides(dims)
    flat, each, block, row = (names.fresh(n) for n in ("row", "group", "block", "row"))
    spread: dict[str, Form] = {d: (Form.of(flat) // strides[d]) % n for d, n in dims}
    if len(dims) == 1:
        spread = {dims[0][0]: Form.of(flat)}
    key = b.reindex(index, dict(spread), {flat: count})
    rank, total = _ranks(b, key, (flat, count), (each, size))
    rows = b.constant(ROWS, i32)
    up = b.map("add", total, b.constant(ROWS - 1, i32))
    blocks = b.map("floordiv", up, rows)
    start = _before(b, names, blocks, each)
    first = b.reindex(b.map("mul", start, rows), {each: key}, {})
    place = b.map("add", first, rank)
    number = count // ROWS + size
    places = names.fresh("place")
    (row_at,) = b.reduce_at(
        MAX, [flat], [b.iota(flat, count)], {places: place}, {places: number * ROWS}
    )
    form = Form.of(block) * ROWS + Form.of(row)
    source = b.reindex(row_at, {places: form}, {block: number, row: ROWS})
    valid = b.map("ge", source, b.constant(0, i32))
    of = {d: _coordinate(b, source, valid, strides[d], n) for d, n in dims}
    ends = b.map("add", start, blocks)
    ended = b.convert(b.map("le", ends, b.iota(block, number)), i32)
    (choice,) = b.reduce(SUM, [each], ended)
    choice = b.map("min", choice, b.constant(size - 1, i32))
    total_form = Form.make([(d, strides[d]) for d, _ in dims])
    here = b.reindex(place, {flat: total_form}, dict(dims))
    return Groups(
        block,
        row,
        valid,
        of,
        choice,
        b.map("floordiv", here, rows),
        b.map("mod", here, rows),
    )


def _strides(dims: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """Row-major strides."""
    strides: dict[str, int] = {}
    stride = 1
    for d, n in reversed(dims):
        strides[d] = stride
        stride *= n
    return strides


def _ranks(
    b: Builder, key: Var, along: tuple[str, int], groups: tuple[str, int]
) -> tuple[Var, Var]:
    """How many equal keys come before each, and how many there are of each."""
    (flat, count), (each, size) = along, groups
    counts = Type.of(i32, {each: size})
    body = Builder()
    before, here = body.param(counts), body.param(Type(i32))
    body.param(Type(i32))
    hit = body.convert(body.map("eq", here, body.iota(each, size)), i32)
    step: Program = body.finish([body.map("add", before, hit)])
    zero = b.expand(b.constant(0, i32), {each: size})
    op = Recur((flat,), (True,), (count,), (Read(0, (1,)),), (zero,), (key,), step)
    (seen,) = b.emit(op, [Type.of(i32, {flat: count, each: size})])
    rank = b.map("sub", b.reindex(seen, {each: key}, {}), b.constant(1, i32))
    return rank, b.reindex(seen, {flat: Form.of(count - 1)}, {})


def _before(b: Builder, names: Names, blocks: Var, each: str) -> Var:
    """Blocks of all earlier groups."""
    size = blocks.type.sizes[each]
    other = names.fresh(each)
    earlier = b.map("lt", b.iota(other, size), b.iota(each, size))
    counted = b.map("where", earlier, b.rename(blocks, {each: other}), b.constant(0, i32))
    return b.reduce(SUM, [other], counted)[0]


def _coordinate(b: Builder, source: Var, valid: Var, stride: int, size: int) -> Var:
    """A row's place along one dim of the index; -1 where there is no row."""
    at = b.map("mod", b.map("floordiv", source, b.constant(stride, i32)), b.constant(size, i32))
    return b.map("where", valid, at, b.constant(-1, i32))
