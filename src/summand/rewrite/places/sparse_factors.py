"""Sums of products with a constant that is zero nearly everywhere go over its other elements only.

    sum{i,j} (c{i,j,k} · x{e,i} · y{e,j}), c a table
      ->  sum{n} (v{k,n} · reindex x {i: a{k,n}} · reindex y {j: b{k,n}})

v has the elements of c that are not zero, a and b where they are: tables, too. For each place that
is kept there are as many n as the fullest needs; what is missing adds zero, whatever x and y hold.
Where that would be far more than there are elements, they are added into their places one by one.

Needs a verified Program; sums in another order. A product with 0 is not made, so inf and NaN that
meet only zeros do not reach the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from summand.dtypes import bool_, i32
from summand.ir.fresh import Names
from summand.ir.nodes import (
    SUM,
    Constant,
    Eqn,
    Index,
    Program,
    Reduce,
    Reindex,
    Table,
    Var,
)
from summand.rewrite.rebuild import Rebuild, factors_of, rewrite_sums

GAIN = 4  # how many times fewer products it must take
UNEVEN = 3  # how many times more elements than there are the fullest place may make of them


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A constant factor: its elements, and the dims of their axes."""

    array: np.ndarray
    dims: tuple[str, ...]


def sparse_factors(program: Program) -> Program:
    """Rewrite sums of products with such constants, in sub-programs too."""
    names = Names(program)
    return rewrite_sums(program, lambda new, made, eqn, op: _skipped(new, names, made, op))


def _skipped(new: Rebuild, names: Names, made: Mapping[Var, Eqn], op: Reduce) -> Var | None:
    """The sum over the elements that are not zero, or None where it stays."""
    parts = factors_of(made, op.args[0])
    if len(parts) < 2 or op.args[0].type.count == 0 or not op.args[0].type.dtype.is_float:
        return None
    for number, factor in enumerate(parts):
        found = _constant(made, factor)
        if found is None or not set(found.dims) & set(op.dims):
            continue
        others = parts[:number] + parts[number + 1 :]
        free = {d for v in others for d in v.type.names}
        if not {d for d in op.dims if d not in found.dims} <= free:
            continue
        count = int(np.count_nonzero(found.array))
        if 0 < count * GAIN <= found.array.size:
            return _sum(new, names, op, found, others)
    return None


def _constant(made: Mapping[Var, Eqn], var: Var) -> _Sparse | None:
    """A table, perhaps with other names for its dims."""
    eqn = made.get(var)
    if eqn is None:
        return None
    if isinstance(eqn.op, Reindex):
        under = _constant(made, eqn.op.arg)
        names = {d: None if isinstance(i, Var) else i.as_dim() for d, i in eqn.op.index}
        whole = eqn.out.type.count == eqn.op.arg.type.count
        new = [names.get(d, d) for d in under.dims] if under is not None else []
        if under is None or not whole or None in new or len(set(new)) < len(new):
            return None
        return _Sparse(under.array, tuple(d for d in new if d is not None))
    if not isinstance(eqn.op, Constant) or not isinstance(eqn.op.value, Table):
        return None
    table, type_ = eqn.op.value, eqn.out.type
    if not type_.dtype.is_float or type_.dtype.bits < 32:
        return None
    shape = [type_.sizes[d] for d in table.order]
    array = np.frombuffer(table.data, type_.dtype.numpy).reshape(shape)
    return _Sparse(array, table.order)


def _sum(new: Rebuild, names: Names, op: Reduce, sparse: _Sparse, others: list[Var]) -> Var:
    """The sum over the elements of each kept place; or over all, added into their places."""
    kept = [d for d in sparse.dims if d not in op.dims]
    array = np.moveaxis(sparse.array, [sparse.dims.index(d) for d in kept], range(len(kept)))
    order = [*kept, *(d for d in sparse.dims if d in op.dims)]
    shape = array.shape[: len(kept)]
    flat = array.reshape(math.prod(shape), -1)
    longest = int((flat != 0).sum(1).max())
    element = names.fresh("element")
    if longest * len(flat) > UNEVEN * np.count_nonzero(flat):
        kept, flat, shape = [], array.reshape(1, -1), ()
        longest = int(np.count_nonzero(flat))
    at, values, valid = _compressed(flat, longest)
    places = np.unravel_index(at, array.shape[len(kept) :])
    dims = (*kept, element)

    def table(data: np.ndarray) -> np.ndarray:
        return data.reshape(*shape, longest)

    index: dict[str, Index] = {
        d: new.table(table(p.astype(np.int32)), dims, i32)
        for d, p in zip(order[len(kept) :], places, strict=True)
    }
    total = new.table(table(values), dims, op.args[0].type.dtype)
    for other in sorted(others, key=lambda v: v.type.count):
        own = {d: i for d, i in index.items() if d in other.type.names}
        value = new.of(other)
        total = new.map("mul", total, new.reindex(value, own, {}) if own else value)
    if not valid.all():
        zero = new.constant(0.0, total.type.dtype)
        total = new.map("where", new.table(table(valid), dims, bool_), total, zero)
    over = [element, *(d for d in op.dims if d not in sparse.dims)]
    left = {d: i for d, i in index.items() if d not in op.dims}
    if not left:
        return new.reduce(SUM, over, total)[0]
    sizes = {d: op.args[0].type.sizes[d] for d in left}
    return new.reduce_at(SUM, over, [total], left, sizes)[0]


def _compressed(flat: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row where its elements are, the elements, and which of them exist."""
    at = np.zeros((len(flat), longest), np.int64)
    valid = np.zeros((len(flat), longest), bool)
    for row, elements in enumerate(flat):
        found = np.flatnonzero(elements)
        at[row, : len(found)] = found
        valid[row, : len(found)] = True
    values = np.where(valid, np.take_along_axis(flat, at, 1), 0).astype(flat.dtype)
    return at, values, valid
