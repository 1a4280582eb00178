"""Lower one stage of a cluster: its equations become nests of the kernel under construction.

%5 = sum{k} %4, with %4 = mul %0 %1 inlined   ->   nest i j k: load, load, mul, fold, store
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard

from summand.dtypes import accumulator
from summand.ir.index import Form
from summand.ir.nodes import (
    SCALAR_OP,
    Constant,
    Interleave,
    Map,
    Op,
    Recur,
    ReduceAt,
    Var,
    identity_of,
)
from summand.loops.nodes import Address, Apply, Bound, Load, Nest, Ref, Stmt
from summand.rewrite.plan.costs import ROW, is_expansion
from summand.rewrite.plan.nodes import Stage, Sum
from summand.rewrite.recur.partial_folds import block_of
from summand.schedule.accesses import dependences
from summand.schedule.coordinates import Coord, Storage
from summand.schedule.expressions import scalar_code
from summand.schedule.lower_recur import lower_recur
from summand.schedule.task import NestBuilder, Task, splits_of


def lower_stage(task: Task, stage: Stage) -> tuple[Stmt, ...]:
    """The statements that compute and store the roots of a stage."""
    eqn = stage.carried or task.graph.eqn(stage.roots[0])
    match eqn.op if eqn else None:
        case ReduceAt() as op if eqn and block_of(op) is None:
            return _scatter(task, eqn.outs, op)
        case Interleave() as op:
            return _parts(task, stage.roots[0], op)
        case Recur() if eqn:
            return lower_recur(task, eqn, stage, lower_stage)
        case _:
            return (plain_nest(task, stage),)


def plain_nest(task: Task, stage: Stage) -> Stmt:
    """One nest that evaluates the roots and stores them; dims are split where that helps."""
    if stage.sums:
        return _evaluate(task, stage, {}).finish()
    builder = _evaluate(task, stage, {})
    own = {d: n for d, n in builder.dims.items() if d not in task.at}
    splits = splits_of(builder.code.wanted, own)
    if splits:
        builder = _evaluate(task, stage, splits)
    return builder.finish()


def _evaluate(
    task: Task, stage: Stage, splits: Mapping[str, tuple[tuple[str, int], ...]]
) -> NestBuilder:
    roots = stage.roots
    sizes: dict[str, int] = {}
    for root in sorted(roots, key=lambda v: -len(v.type.dims)):
        for dim, _ in task.storage[root].strides:
            if dim in root.type.names:
                sizes.setdefault(dim, root.type.sizes[dim])
    blocks = [e.op.args[0] for r in roots if (e := task.graph.eqn(r)) and _in_blocks(e.op)]
    for var in (*stage.local, *blocks):
        for dim, size in var.type.dims:
            sizes.setdefault(dim, size)
    if stage.sums:
        task = task.without(d for s in stage.sums for d in s.dims)
    builder = NestBuilder.over(task, sizes, roots, splits=splits)
    for found in stage.sums:
        _within_tile(builder, stage, found)
    _share_reductions(builder, (*roots, *stage.local), sizes)
    for var in stage.local:
        builder.code.value(var, builder.point(var.type.dims))
    for root in roots:
        at = builder.point(root.type.dims)
        value = builder.code.value(root, at)
        own = task.own(root) if stage.sums else ()
        builder.store(task.storage[root], at, value, task.combines.get(root), own)
    for found in stage.sums:
        _bound_tile(builder, found)
    return builder


def _in_blocks(op: Op) -> TypeGuard[ReduceAt]:
    return block_of(op) is not None


def _tile_dims(task: Task, found: Sum) -> dict[str, str]:
    """Tiled dims that a sum folds position by position, with the names that it folds them by."""
    return {
        d: name.removesuffix("'")
        for d, form in found.at
        if d in task.origin and (name := form.as_dim()) is not None
    }


def _within_tile(builder: NestBuilder, stage: Stage, found: Sum) -> None:
    """Restrict a sum to the tile: the dims that it folds, or what it reads in a window."""
    task, code = builder.task, builder.code
    plain = _tile_dims(task, found)
    code.pieces_of[found.fold] = {name: (task.origin[d], task.tile[d]) for d, name in plain.items()}
    for access in stage.reads:
        if access.var not in task.made:
            continue
        slid = {d: (task.first[d], task.tile[d]) for d, _ in found.at if d in task.origin}
        code.windows[access.var] = {d: x for d, x in slid.items() if d not in plain}


def _bound_tile(builder: NestBuilder, found: Sum) -> None:
    """Leave out the positions that a tile moved back has in common with the one before."""
    for dim, name in _tile_dims(builder.task, found).items():
        repeated = builder.task.first[dim] - builder.task.origin[dim]
        if repeated != Form() and builder.task.tile[dim] > 1:
            bound = Bound(builder.name_of(name, builder.task.tile[dim]), (repeated,))
            builder.bounds = tuple(dict.fromkeys((*builder.bounds, bound)))


def _share_reductions(
    builder: NestBuilder, roots: tuple[Var, ...], sizes: Mapping[str, int]
) -> None:
    """Where one root is a reduction of another over dims of the nest, both use the same dim."""
    for root in roots:
        for dim, size in sizes.items():
            if dim not in root.type.names:
                builder.reuse(dim, size, dim)


# ---- scatters


def _scatter(task: Task, outs: tuple[Var, ...], op: ReduceAt) -> tuple[Stmt, ...]:
    """Fill with the identity, then fold the elements in order into their places."""
    fill = _fill(task, outs, op)
    sizes = op.args[0].type.sizes
    if any(n == 0 for n in sizes.values()):
        return (fill,)
    free = {d: n for d, n in outs[0].type.dims if d in sizes and d not in op.dims}
    dims = {**{d: sizes[d] for d in op.dims}, **free}
    builder = NestBuilder.over(task, dims)
    at = builder.point(op.args[0].type.dims)
    places = {d: at[d] for d in free}
    guards = []
    for dim, index in op.index:
        size = outs[0].type.sizes[dim]
        places[dim], guard = builder.code.indexed(index, size, op.mode, at, ())
        if guard is not None:
            guards.append(guard)
    if any(n == 0 for n in outs[0].type.sizes.values()):
        return (fill,)
    values = tuple(builder.code.value(a, at) for a in op.args)
    to = [task.storage[o] for o in outs]
    addresses = tuple(builder.code.address(s, places, tuple(guards)) for s in to)
    _combine_stores(builder, op, to, addresses, values)
    nest = builder.finish()
    order = tuple(d for d in _walk(nest, op) if d not in _apart(nest, op))
    free_first = tuple(x for x in nest.dims if x[0] not in order)
    walked = tuple((d, builder.dims[d]) for d in order)
    return (fill, replace(nest, dims=(*free_first, *walked), ordered=order))


def _apart(nest: Nest, op: ReduceAt) -> frozenset[str]:
    """Folded dims whose positions never meet in one element, all else being equal: they need not be
    walked in order, and may fill the lanes, where rows are shorter than a vector. Of a window of
    places around a computed one, say."""
    deps, extents = dependences(nest), nest.extents
    row = math.prod(n for d, n in nest.dims if d not in op.dims)
    if not op.monoid.commutative or row >= ROW:
        return frozenset()
    forms = [s.at.form for s in nest.stores]
    computed = frozenset(d for s in nest.stores for r, _ in s.at.dynamic for d in deps[r])
    if not all(f.is_affine for f in forms):
        return frozenset()
    found: set[str] = set()
    reach = [0] * len(forms)  # of the dims that were found, the shortest steps first
    for dim in sorted(op.dims, key=lambda d: abs(forms[0].coefficient(d))):
        steps = [abs(f.coefficient(dim)) for f in forms]
        farther = all(s > r for s, r in zip(steps, reach, strict=True))
        if dim in extents and dim not in computed and farther:
            found.add(dim)
            reach = [r + s * (extents[dim] - 1) for r, s in zip(reach, steps, strict=True)]
    return frozenset(found)


def _walk(nest: Nest, op: ReduceAt) -> tuple[str, ...]:
    """The folded dims in the order of the fold; as its operands lie in memory where that may be."""
    extents = nest.extents
    own = [d for d in op.dims if d in extents]
    if not op.monoid.commutative:
        return tuple(own)
    reads = [i.at.form for i in nest.code if isinstance(i, Load)]
    far = {d: sum(abs(f.coefficient(d)) for f in reads) for d in own}
    return tuple(sorted(own, key=lambda d: -far[d]))


def _fill(task: Task, outs: tuple[Var, ...], op: ReduceAt) -> Stmt:
    builder = NestBuilder.over(task, _ordered_sizes(task, outs[0]))
    start = identity_of(op.monoid, tuple(a.type.dtype for a in op.args))
    for out, value in zip(outs, start, strict=True):
        at = builder.point(out.type.dims)
        number = value.real if isinstance(value, complex) else value
        builder.store(task.storage[out], at, builder.code.const(number, out.type.dtype))
    return builder.finish()


def _ordered_sizes(task: Task, var: Var) -> dict[str, int]:
    sizes = var.type.sizes
    return {d: sizes[d] for d, _ in task.storage[var].strides if d in sizes}


def _combine_stores(
    builder: NestBuilder,
    op: ReduceAt,
    to: list[Storage],
    addresses: tuple[Address, ...],
    values: tuple[Ref, ...],
) -> None:
    """Combining stores; a monoid that no scalar op names is read, combined and written back."""
    if op.monoid.combine is None:
        builder.store_at(to[0], addresses[0], values[0], SCALAR_OP[op.monoid.name])
        return
    code = builder.code
    dtypes = tuple(accumulator(a.type.dtype) for a in op.args)
    old = tuple(
        code.convert(code.emit(Load(builder.task.local(s.buffer), a, s.dtype)), t)
        for s, a, t in zip(to, addresses, dtypes, strict=True)
    )
    combined, results = scalar_code(op.monoid.combine, dtypes * 2)
    env = [*old, *values]
    refs: list[Ref] = []
    for k, instr in enumerate(combined):
        if k < len(env):
            refs.append(env[k])
        elif isinstance(instr, Apply):
            refs.append(code.apply(instr.fn, tuple(refs[a] for a in instr.args), instr.dtype))
        else:
            refs.append(code.emit(instr))
    for s, address, r in zip(to, addresses, results, strict=True):
        builder.store_at(s, address, refs[r])


# ---- interleaves


def _parts(task: Task, out: Var, op: Interleave) -> tuple[Stmt, ...]:
    """Every part. A number that fills one or more of them is stored everywhere first: whole vectors
    in place of strided elements."""
    some = [k for k, part in enumerate(op.parts) if part.type.count]
    numbers = {k: number for k in some if (number := _number(task, op.parts[k])) is not None}
    if not numbers:
        return tuple(_part(task, out, op, k) for k in some)
    number = numbers[min(numbers)]
    builder = NestBuilder.over(task, out.type.sizes)
    at = builder.point(out.type.dims)
    builder.store(task.storage[out], at, builder.code.value(number, {}))
    rest = [k for k in some if numbers.get(k) != number]
    return (builder.finish(), *(_part(task, out, op, k) for k in rest))


def _number(task: Task, var: Var) -> Var | None:
    """The scalar constant that a value is everywhere."""
    eqn = task.graph.eqn(var)
    while eqn is not None and is_expansion(eqn) and isinstance(eqn.op, Map):
        var = eqn.op.args[1]
        eqn = task.graph.eqn(var)
    plain = eqn is not None and isinstance(eqn.op, Constant) and not var.type.dims
    return var if plain and var not in task.storage else None


def _part(task: Task, out: Var, op: Interleave, number: int) -> Stmt:
    """One part, stored straight into its strided places of the result."""
    var = op.parts[number]
    residues = op.residues()[number]
    sizes = var.type.sizes
    builder = NestBuilder.over(task, {d: sizes[d] for d, _ in task.storage[out].strides})
    at = builder.point(var.type.dims)
    ref = builder.code.value(var, at)
    places = dict(at)
    for (dim, stride), r in zip(op.dims, residues, strict=True):
        here = at[dim]
        dynamic = tuple((v, f * stride) for v, f in here.dynamic)
        places[dim] = Coord(here.form * stride + r, dynamic)
    builder.store(task.storage[out], places, ref)
    return builder.finish()
