"""The few greatest of many: of blocks those that may hold them, then one after the other.

    top_k %0 i q   ->   best{j} = max{b} %0[i: 32*j + b]
                        the few greatest blocks; of their elements the few greatest
    top_k %0 i q   ->   recur over q:  the greatest element that comes after the one before it
                        (of few hundred elements)

The k greatest elements lie in the k blocks with the greatest maxima, so all elements are looked at
once, and k·√(n·k) of them k times; ranks (see `expand`) cost n². The order is that of `TopK`:
descending, ties to the lower position, NaN last; floats are compared as their ordinals.
"""

from __future__ import annotations

import math

from summand.dtypes import bool_, f32, i32
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import MAX, MIN, Mode, Program, Read, Recur, Type, Var, identity_of

_STEP = 6  # one step of the selection costs about as much as this many comparisons of ranks
_FEW = 512  # elements that are not cut into blocks


def is_selection(count: int, size: int) -> bool:
    """True where selecting `count` of `size` one after the other is cheaper than ranking all."""
    return 0 < count * _STEP < size


def select(
    build: Builder, names: Names, arg: Var, dim: str, out: str, count: int
) -> tuple[Var, Var]:
    """Values and positions (i32) of the `count` greatest along `dim`, along the new dim `out`."""
    found = _places(build, names, _ordinals(build, arg), (dim, out), count)
    return build.reindex(arg, {dim: found}, {}), found


def _ordinals(build: Builder, arg: Var) -> Var:
    """Integers in the order of the values."""
    dtype = arg.type.dtype
    if dtype is bool_:
        return build.convert(arg, i32)
    if not dtype.is_float:
        return arg
    return build.map("ordinal", arg if dtype.bits >= 32 else build.convert(arg, f32))


def _places(build: Builder, names: Names, keys: Var, dims: tuple[str, str], count: int) -> Var:
    """Positions of the `count` greatest integers along the first of `dims`."""
    dim = dims[0]
    size = keys.type.sizes[dim]
    block = 1 << round(math.log2(size / count) / 2)
    if size <= _FEW or block < 4 or -(-size // block) < count:
        return _one_by_one(build, keys, build.iota(dim, size), dims, count)
    return _of_blocks(build, names, keys, dims, count, block)


def _of_blocks(
    build: Builder, names: Names, keys: Var, dims: tuple[str, str], count: int, block: int
) -> Var:
    """Select among the elements of the blocks with the greatest maxima."""
    dim, out = dims
    size = keys.type.sizes[dim]
    which, inner = names.fresh(dim), names.fresh(dim)
    sizes = {which: -(-size // block), inner: block}
    form = Form.of(which) * block + Form.of(inner)
    mode: Mode = "trusted" if size % block == 0 else "fill"
    least = identity_of(MAX, (keys.type.dtype,))[0]
    parts = build.reindex(keys, {dim: form}, sizes, mode, least)
    (greatest,) = build.reduce(MAX, [inner], parts)
    chosen = _places(build, names, greatest, (which, out), count)
    first = build.map("mul", chosen, build.constant(block, i32))
    place = build.map("add", first, build.iota(inner, block))
    candidates = build.reindex(keys, {dim: place}, {}, mode, least)
    flat = names.fresh(dim)
    split = {out: Form.of(flat) // block, inner: Form.of(flat) % block}
    found = [build.reindex(v, split, {flat: count * block}) for v in (candidates, place)]
    return _one_by_one(build, found[0], found[1], (flat, out), count)


def _one_by_one(build: Builder, keys: Var, places: Var, dims: tuple[str, str], count: int) -> Var:
    """Select along the first of `dims`; `places` (i32) order what is equal."""
    dim, out = dims
    dtype = keys.type.dtype
    rest = Type(dtype, tuple(x for x in keys.type.dims if x[0] != dim))
    first = build.expand(build.constant(identity_of(MIN, (dtype,))[0], dtype), rest.sizes)
    nowhere = build.expand(build.constant(-1, i32), rest.sizes)
    op = Recur(
        (out,),
        (True,),
        (count,),
        (Read(0, (1,)), Read(1, (1,))),
        (first, nowhere),
        (keys, places),
        _step(keys.type, places.type, rest, dim),
    )
    types = Type.of(dtype, {**rest.sizes, out: count})
    return build.emit(op, [types, types.with_dtype(i32)])[1]


def _step(whole: Type, at_each: Type, rest: Type, dim: str) -> Program:
    """The key and position before it, all of them  ->  the next key and position."""
    b = Builder()
    key, place = b.param(rest), b.param(rest.with_dtype(i32))
    every, at = b.param(whole), b.param(at_each)
    b.param(Type(i32))
    tie = b.map("and", b.map("eq", every, key), b.map("gt", at, place))
    after = b.map("or", b.map("lt", every, key), tie)
    least = b.constant(identity_of(MAX, (whole.dtype,))[0], whole.dtype)
    (best,) = b.reduce(MAX, [dim], b.map("where", after, every, least))
    passed = b.map("where", b.map("eq", best, key), place, b.constant(-1, i32))
    here = b.map("and", b.map("eq", every, best), b.map("gt", at, passed))
    none = b.constant(identity_of(MIN, (i32,))[0], i32)
    (position,) = b.reduce(MIN, [dim], b.map("where", here, at, none))
    return b.finish([best, position])
