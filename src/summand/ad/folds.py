"""Adjoints of folds by `prod` and by a user's monoid: through the prefixes of the fold.

    y = reduce m {k} x   ->   s[k] = m(s[k-1], x[k])   a recurrence, differentiated as one

The reverse recurrence carries the cotangent of the suffix, so nothing is divided by. A fold into
places first sorts the elements by place; the prefix then starts anew where the place changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from summand import dtypes
from summand.ad.selection import coordinates
from summand.ad.tape import Tape
from summand.errors import InternalError
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    SCALAR_OP,
    Constant,
    Eqn,
    Map,
    Monoid,
    Program,
    Read,
    Recur,
    Reduce,
    ReduceAt,
    Sort,
    Table,
    Type,
    Var,
    identity_of,
)


def combine(b: Builder, monoid: Monoid, left: Sequence[Var], right: Sequence[Var]) -> list[Var]:
    """The monoid's combine, elementwise on arrays."""
    program = monoid.combine
    if program is None:
        return [b.map(SCALAR_OP[monoid.name], left[0], right[0])]
    env = dict(zip(program.params, (*left, *right), strict=True))
    for eqn in program.eqns:
        match eqn.op:
            case Map(fn=fn, args=args):
                kind = eqn.out.type.dtype if fn == "convert" else None
                env[eqn.out] = b.map(fn, *(env[a] for a in args), dtype=kind)
            case Constant(value=value) if not isinstance(value, Table):
                env[eqn.out] = b.constant(value, eqn.out.type.dtype)
            case _:
                raise InternalError(f"vjp: a monoid combines through {type(eqn.op).__name__}")
    return [env[r] for r in program.results]


def _identity(b: Builder, monoid: Monoid, like: Sequence[Var]) -> list[Var]:
    types = tuple(v.type.dtype for v in like)
    values = identity_of(monoid, types)
    return [b.constant(v, t) for v, t in zip(values, types, strict=True)]


def flat(b: Builder, value: Var, dims: Sequence[tuple[str, int]], dim: str) -> Var:
    """Several dims as one, row-major (first is outermost)."""
    if [d for d, _ in dims] == [dim]:
        return value
    index: dict[str, Form] = {}
    stride = math.prod(n for _, n in dims)
    for number, (d, size) in enumerate(dims):
        stride //= max(size, 1)
        place = Form.of(dim) // stride
        index[d] = place if number == 0 else place % size
    return b.reindex(value, index, {dim: math.prod(n for _, n in dims)})


def _prefixes(
    b: Builder, monoid: Monoid, args: Sequence[Var], dim: str, starts: Var | None
) -> tuple[Var, ...]:
    """The fold of all elements up to each position along `dim` (anew where `starts` holds)."""
    size = args[0].type.sizes[dim]
    slices = [Type(a.type.dtype, tuple(x for x in a.type.dims if x[0] != dim)) for a in args]
    body = Builder()
    before = [body.param(t) for t in slices]
    here = [body.param(t) for t in slices]
    if starts is not None:
        kept = tuple(x for x in starts.type.dims if x[0] != dim)
        flag = body.param(Type(starts.type.dtype, kept))
        fresh = _identity(body, monoid, before)
        before = [body.map("where", flag, f, v) for f, v in zip(fresh, before, strict=True)]
    body.param(Type(dtypes.i32))
    new = combine(body, monoid, before, here)
    new = [body.expand(v, t.sizes) for v, t in zip(new, slices, strict=True)]
    op = Recur(
        over=(dim,),
        forward=(True,),
        sizes=(size,),
        reads=tuple(Read(n, (1,)) for n in range(len(args))),
        inits=tuple(
            b.expand(v, t.sizes) for v, t in zip(_identity(b, monoid, args), slices, strict=True)
        ),
        captured=(*args, *(() if starts is None else (starts,))),
        body=body.finish(new),
    )
    return b.emit(op, [a.type for a in args])


def _wide(b: Builder, args: Sequence[Var]) -> list[Var]:
    """16-bit floats are folded in f32."""
    return [b.convert(a, dtypes.accumulator(a.type.dtype)) for a in args]


def pull_reduce(tape: Tape, eqn: Eqn, op: Reduce) -> None:
    """Differentiate the fold as a recurrence over its prefixes."""
    dims = [(d, op.args[0].type.sizes[d]) for d in op.dims]
    count = math.prod(n for _, n in dims)
    if count == 0:
        return
    dim = op.dims[0] if len(dims) == 1 else tape.names.fresh("fold")
    cts = [tape.full(o) if o.type.dtype.is_inexact else None for o in eqn.outs]
    b = Builder()
    params = [b.param(a.type) for a in op.args]
    wide = _wide(b, [flat(b, p, dims, dim) for p in params])
    prefix = _prefixes(b, op.monoid, wide, dim, None)
    last = [b.reindex(p, {dim: Form.of(count - 1)}, {}) for p in prefix]
    program = b.finish([b.convert(v, o.type.dtype) for v, o in zip(last, eqn.outs, strict=True)])
    wanted = [tape.wants(a) for a in op.args]
    _, pulled = tape.pull(tape.b, tape.names, program, op.args, cts, wanted)
    for arg, ct in zip(op.args, pulled, strict=True):
        tape.add(arg, ct)


def pull_reduce_at(tape: Tape, eqn: Eqn, op: ReduceAt) -> None:
    """Sort by place, fold the prefixes within each place, differentiate that."""
    b = tape.b
    like = op.args[0]
    dims = [(d, like.type.sizes[d]) for d in op.dims]
    if math.prod(n for _, n in dims) == 0 or eqn.outs[0].type.count == 0:
        return
    dim = op.dims[0] if len(dims) == 1 else tape.names.fresh("fold")
    places = [(d, eqn.outs[0].type.sizes[d]) for d, _ in op.index]
    key = flat(b, b.expand(_place(b, op, places, like), like.type.sizes), dims, dim)
    keys, order = b.emit(Sort(key, dim), [key.type, key.type.with_dtype(dtypes.i32)])
    starts = _differs(b, keys, dim, -1)
    valid = b.map("lt", keys, b.constant(math.prod(n for _, n in places), keys.type.dtype))
    ends = b.map("and", _differs(b, keys, dim, 1), valid)
    at = dict(coordinates(b, keys, places))
    cts: list[Var | None] = []
    for out in eqn.outs:
        ct = tape.full(out) if out.type.dtype.is_inexact else None
        cts.append(None if ct is None else b.reindex(ct, at, {}, "fill"))
    program = _sorted_fold(op, dims, dim, (order, starts, ends))
    wanted = [*(tape.wants(a) for a in op.args), False, False, False]
    args = [*op.args, order, starts, ends]
    _, pulled = tape.pull(b, tape.names, program, args, cts, wanted)
    for arg, ct in zip(op.args, pulled[: len(op.args)], strict=True):
        tape.add(arg, ct)


def _sorted_fold(
    op: ReduceAt, dims: Sequence[tuple[str, int]], dim: str, outer: Sequence[Var]
) -> Program:
    """The fold of each place, at the last of its elements in sorted order; zero elsewhere."""
    b = Builder()
    params = [b.param(a.type) for a in op.args]
    order, starts, ends = (b.param(v.type) for v in outer)
    moved = [b.reindex(flat(b, p, dims, dim), {dim: order}, {}) for p in params]
    prefix = _prefixes(b, op.monoid, _wide(b, moved), dim, starts)
    zero = [b.constant(0, p.type.dtype) for p in prefix]
    shown = [b.map("where", ends, p, z) for p, z in zip(prefix, zero, strict=True)]
    return b.finish([b.convert(v, a.type.dtype) for v, a in zip(shown, op.args, strict=True)])


def _differs(b: Builder, keys: Var, dim: str, step: int) -> Var:
    """True where the neighbour one step on has another key, or there is none."""
    size = {dim: keys.type.sizes[dim]}
    return b.map("ne", keys, b.reindex(keys, {dim: Form.of(dim) + step}, size, "fill", -1))


def _place(b: Builder, op: ReduceAt, places: Sequence[tuple[str, int]], like: Var) -> Var:
    """Row-major place of each element; the number of places where it is dropped."""
    count = math.prod(n for _, n in places)
    dtype = dtypes.i32 if count < 2**31 - 1 else dtypes.i64
    total = b.constant(0, dtype)
    dropped: Var | None = None
    for (_, index), (_, size) in zip(op.index, places, strict=True):
        value = b.convert(
            index if isinstance(index, Var) else b.position(index, like.type.sizes), dtype
        )
        low, high = b.constant(0, dtype), b.constant(size - 1, dtype)
        if op.mode == "fill":
            out = b.map("or", b.map("lt", value, low), b.map("gt", value, high))
            dropped = out if dropped is None else b.map("or", dropped, out)
        value = b.map("min", b.map("max", value, low), high)
        total = b.map("add", b.map("mul", total, b.constant(size, dtype)), value)
    return total if dropped is None else b.map("where", dropped, b.constant(count, dtype), total)
