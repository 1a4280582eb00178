"""The meaning of `reduce`, `reduce_at` and `group`: folds over NumPy arrays.

reduce     named monoids by ufunc; others pair by pair:  abcde -> (ab)(cd)e -> (abcd)e -> abcde
reduce_at  the r-th arrival at every place at once, for r = 0, 1, …: a left fold in program order
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from summand.dtypes import DType, accumulator, narrow, widen
from summand.ir.interp_index import Index, in_range, positions
from summand.ir.named import Named
from summand.ir.nodes import (
    Eqn,
    Group,
    Monoid,
    Program,
    Reduce,
    ReduceAt,
    Var,
    identity_of,
    with_operands,
)
from summand.ir.scalars import fold_type, scalar, ufunc_of

Evaluate = Callable[[Program, Sequence[Named]], list[Named]]
_BATCH = "#"  # a dim of the combined elements that no program can name


def widened(program: Program) -> Program:
    """A scalar program with 16-bit floats computed in f32."""
    if all(accumulator(p.type.dtype) == p.type.dtype for p in program.params):
        return program

    def wide(var: Var) -> Var:
        return Var(var.id, var.type.with_dtype(accumulator(var.type.dtype)))

    def all_wide(variables: Sequence[Var]) -> tuple[Var, ...]:
        return tuple(wide(v) for v in variables)

    env = {v: wide(v) for v in (*program.params, *(o for e in program.eqns for o in e.outs))}
    eqns = tuple(Eqn(all_wide(e.outs), with_operands(e.op, env), e.loc) for e in program.eqns)
    return Program(all_wide(program.params), eqns, all_wide(program.results))


class _Combine:
    """Combines component arrays of one shape, in the accumulators' types."""

    def __init__(self, monoid: Monoid, types: Sequence[DType], evaluate: Evaluate) -> None:
        self.monoid = monoid
        self.types = [accumulator(t) for t in types]
        self.evaluate = evaluate
        self.program = widened(monoid.combine) if monoid.combine else None

    def identity(self) -> list[np.ndarray]:
        values = identity_of(self.monoid, tuple(self.types))
        return [scalar(v, t) for v, t in zip(values, self.types, strict=True)]

    def __call__(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.program is None:
            return [np.asarray(ufunc_of(self.monoid.name)(a[0], b[0]))]
        shape = a[0].shape
        args = [Named(np.asarray(x).reshape(-1), (_BATCH,)) for x in (*a, *b)]
        count = len(args[0].array)
        out = self.evaluate(self.program, args)
        return [np.broadcast_to(o.aligned((_BATCH,)), (count,)).reshape(shape) for o in out]


def _stacked(args: Sequence[Named], dims: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    """Components broadcast to one shape, with `dims` flattened into the first axis."""
    sizes = {d: n for a in args for d, n in a.sizes.items()}
    kept = [d for d in sizes if d not in dims]
    order = [*dims, *kept]
    shape = [sizes[d] for d in order]
    count = int(np.prod([sizes[d] for d in dims], dtype=np.int64))
    full = [np.broadcast_to(a.aligned(order), shape) for a in args]
    return [f.reshape([count, *(sizes[d] for d in kept)]) for f in full], kept


def reduce(op: Reduce, args: Sequence[Named], evaluate: Evaluate) -> list[Named]:
    """Fold dims away, in the order of `op.dims` (first is outermost)."""
    types = [a.type.dtype for a in op.args]
    if op.monoid.combine is None:
        return [_reduce_named(op, args[0], types[0])]
    arrays, kept = _stacked(args, op.dims)
    combine = _Combine(op.monoid, types, evaluate)
    values = [widen(a, t) for a, t in zip(arrays, types, strict=True)]
    if len(values[0]) == 0:
        shape = values[0].shape[1:]
        values = [np.broadcast_to(v, (1, *shape)) for v in combine.identity()]
    while len(values[0]) > 1:
        even = len(values[0]) // 2 * 2
        pairs = combine([v[0:even:2] for v in values], [v[1:even:2] for v in values])
        values = [np.concatenate([p, v[even:]]) for p, v in zip(pairs, values, strict=True)]
    return [Named(narrow(v[0], t), tuple(kept)) for v, t in zip(values, types, strict=True)]


def _reduce_named(op: Reduce, arg: Named, dtype: DType) -> Named:
    axes = tuple(arg.order.index(d) for d in op.dims)
    kept = tuple(d for d in arg.order if d not in op.dims)
    (identity,) = identity_of(op.monoid, (accumulator(dtype),))
    wide = widen(arg.array, dtype)
    folded = fold_type(op.monoid.name, dtype)
    with np.errstate(all="ignore"):
        out = ufunc_of(op.monoid.name).reduce(
            wide.astype(folded, copy=False), axis=axes, dtype=folded, initial=identity
        )
        return Named(narrow(out, dtype), kept)


def reduce_at(
    op: ReduceAt,
    args: Sequence[Named],
    indices: Mapping[str, Index],
    eqn: Eqn,
    evaluate: Evaluate,
) -> list[Named]:
    """Fold into computed places."""
    types = [a.type.dtype for a in op.args]
    index_dims = {
        d: n for i in indices.values() if isinstance(i, Named) for d, n in i.sizes.items()
    }
    shapes = [Named(np.zeros(()), ())]
    if index_dims:
        shapes = [Named(np.broadcast_to(False, tuple(index_dims.values())), tuple(index_dims))]
    stacked, kept = _stacked([*args, *shapes], op.dims)
    arrays, shape = stacked[: len(args)], stacked[0].shape
    sizes = _sizes([*args, *shapes])
    places = [(d, eqn.outs[0].type.sizes[d]) for d, _ in op.index]
    target = np.zeros(shape, np.int64)
    valid = np.ones(shape, bool)
    order = (*op.dims, *kept)
    for dim, size in places:
        place = positions(indices[dim], order, sizes)
        place, bad = in_range(place, dim, size, op.mode, eqn.loc)
        full = [sizes[d] for d in order]
        target = target * size + np.broadcast_to(place, full).reshape(shape)
        if op.mode == "fill":
            valid &= ~np.broadcast_to(bad, full).reshape(shape)
    rest = shape[1:]
    lanes = int(np.prod(rest, dtype=np.int64))
    target = target * lanes + np.arange(lanes).reshape(rest)
    count = int(np.prod([n for _, n in places], dtype=np.int64)) * lanes
    combine = _Combine(op.monoid, types, evaluate)
    values = [
        widen(a, t).reshape(-1)[valid.reshape(-1)] for a, t in zip(arrays, types, strict=True)
    ]
    if count == 0:
        values, target, valid = [v[:0] for v in values], target[:0], valid[:0]
    folded = _fold_at(combine, types, values, target.reshape(-1)[valid.reshape(-1)], count)
    names = (*(d for d, _ in places), *kept)
    final = [*(n for _, n in places), *rest]
    return [Named(narrow(v, t).reshape(final), names) for v, t in zip(folded, types, strict=True)]


def _sizes(values: Sequence[Named]) -> dict[str, int]:
    return {d: n for v in values for d, n in v.sizes.items()}


def _fold_at(
    combine: _Combine,
    types: Sequence[DType],
    values: Sequence[np.ndarray],
    target: np.ndarray,
    count: int,
) -> list[np.ndarray]:
    """out[target[e]] ⊕= values[e] for e in order."""
    monoid = combine.monoid
    identity = combine.identity()
    with np.errstate(all="ignore"):
        if monoid.combine is None:
            folded = fold_type(monoid.name, types[0])
            out = np.full(count, identity[0].astype(folded))
            ufunc_of(monoid.name).at(out, target, values[0].astype(folded))
            return [out]
        outs = [np.full(count, i) for i in identity]
        by_place = np.argsort(target, kind="stable")
        ordered = target[by_place]
        arrival = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
        for turn in range(int(arrival.max(initial=-1)) + 1):
            chosen = by_place[arrival == turn]
            at = target[chosen]
            new = combine([o[at] for o in outs], [v[chosen] for v in values])
            for out, part in zip(outs, new, strict=True):
                out[at] = part
    return outs


def group(op: Group, index: Named, outs: Sequence[Var]) -> list[Named]:
    """Stable counting sort: positions in order of their index, and where each value begins."""
    (dim,) = index.order
    values, _ = in_range(index.array.astype(np.int64), op.places, op.size, "raise", None)
    order = np.argsort(values, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=op.size))])
    return [
        Named(order.astype(outs[0].type.dtype.numpy), (dim,)),
        Named(offsets.astype(outs[1].type.dtype.numpy), (op.places,)),
    ]
