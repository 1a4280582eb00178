"""Moves: rewrites of kernels that keep what is computed and change only order and addresses.

    nest q=1000 …  y[q]                    tile q by 64
    loop q_o=16                            ->  every tile is whole: the last one is moved back
      let q_b = clip(64*q_o, 0, 936)           and recomputes a few elements
        nest q=64 …  y[q_b + q]

Each move is a pure function and checks that it is legal; an illegal one is a fault of the caller.
Most work on a `Chain`: one nest inside loops. Dims keep their names inside the nest; the new outer
dims get fresh ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.nodes import (
    Address,
    Bound,
    Carry,
    Fold,
    Guard,
    Instr,
    Kernel,
    Let,
    Load,
    Loop,
    Nest,
    Position,
    Stmt,
    Store,
    When,
)
from summand.loops.ranges import atom_of, value_ranges

Level = Loop | Let  # with an empty body: only the head


@dataclass(frozen=True, slots=True)
class Chain:
    """A kernel that is one nest inside `levels` (outer first), after `before`.

    start; outer { before; levels { nest } }; finish
    """

    kernel: Kernel
    levels: tuple[Level, ...]
    nest: Nest
    before: tuple[Stmt, ...] = ()  # what packs operands into scratch
    outer: tuple[Level, ...] = ()  # blocks of the reduction
    start: tuple[Stmt, ...] = ()
    finish: tuple[Stmt, ...] = ()

    def kernel_of(self) -> Kernel:
        """The kernel with its body put together."""
        return self.kernel_around((self.nest,))

    def kernel_around(self, inner: tuple[Stmt, ...]) -> Kernel:
        """The kernel with other statements in place of the nest."""
        body = (*self.before, *wrapped(inner, self.levels))
        body = (*self.start, *wrapped(body, self.outer), *self.finish)
        return replace(self.kernel, body=body)

    def fresh(self, stem: str) -> str:
        """A dim name that the kernel does not use."""
        used = {d for d, _ in self.kernel.grid} | {v.dim for v in (*self.outer, *self.levels)}
        used |= {d for d, _ in self.nest.dims}
        number, name = 0, stem
        while name in used:
            number += 1
            name = f"{stem}{number}"
        return name

    def with_nest(self, nest: Nest) -> Chain:
        """The same loops around another nest."""
        return replace(self, nest=nest)


def wrapped(body: tuple[Stmt, ...], levels: tuple[Level, ...]) -> tuple[Stmt, ...]:
    """Statements inside of loops, outer first."""
    for level in reversed(levels):
        body = (replace(level, body=body),)
    return body


def chain_of(kernel: Kernel) -> Chain | None:
    """The chain that a kernel is, or None where it has several nests."""
    levels: list[Level] = []
    body = kernel.body
    while len(body) == 1:
        stmt = body[0]
        match stmt:
            case Nest():
                return Chain(kernel, tuple(levels), stmt)
            case Loop() | Let():
                levels.append(replace(stmt, body=()))
                body = stmt.body
            case When():
                return None
            case _:
                assert_never(stmt)
    return None


def separate(kernel: Kernel) -> tuple[Kernel, ...]:
    """A kernel for each statement, where they share no scratch and no grid.

    Each is then spread over tasks of its own.
    """
    if kernel.grid or kernel.scratch or len(kernel.body) < 2:
        return (kernel,)
    out = []
    for number, stmt in enumerate(kernel.body):
        touched = {b for n in nests_of((stmt,)) for b in buffers_of(n)}
        params = tuple(b for b in kernel.params if b.name in touched)
        name = f"{kernel.name}_{number}"
        out.append(replace(kernel, name=name, params=params, body=(stmt,)))
    return tuple(out)


def buffers_of(nest: Nest) -> frozenset[str]:
    """Names of the buffers that a nest touches."""
    loaded = frozenset(i.buffer for i in nest.code if isinstance(i, Load))
    return loaded | frozenset(s.buffer for s in nest.stores)


# ---- putting forms in place of dims


def in_address(at: Address, values: Mapping[str, Form]) -> Address:
    """An address with forms in place of dims."""
    guards = tuple(Guard(g.form.substitute(values), g.size, g.dynamic) for g in at.guards)
    return Address(at.form.substitute(values), at.dynamic, guards)


def _in_instr(instr: Instr, values: Mapping[str, Form]) -> Instr:
    match instr:
        case Position():
            return replace(instr, form=instr.form.substitute(values))
        case Load():
            return replace(instr, at=in_address(instr.at, values))
        case _:
            return instr


def substitute(nest: Nest, values: Mapping[str, Form]) -> Nest:
    """A nest with forms in place of dims, everywhere that it reads them. What restricts a dim `d`
    of the nest restricts, where d is start + d now, its position in the piece."""
    return replace(
        nest,
        code=tuple(_in_instr(i, values) for i in nest.code),
        stores=tuple(replace(s, at=in_address(s.at, values)) for s in nest.stores),
        bounds=tuple(_in_bound(b, values) for b in nest.bounds),
    )


def _in_bound(bound: Bound, values: Mapping[str, Form]) -> Bound:
    start = values.get(bound.dim, Form.of(bound.dim)) - bound.dim
    if bound.dim in start.dims:
        raise InternalError(f"schedule: {bound.dim} is bounded and cannot be {start + bound.dim}")
    lo, hi = (tuple(f.substitute(values) - start for f in ends) for ends in (bound.lo, bound.hi))
    return Bound(bound.dim, lo, hi)


def bounded(nest: Nest, bound: Bound) -> Nest:
    """A nest that one more bound restricts; there is one for each dim."""
    same = [b for b in nest.bounds if b.dim == bound.dim]
    others = tuple(b for b in nest.bounds if b.dim != bound.dim)
    lo = tuple(f for b in (*same, bound) for f in b.lo)
    hi = tuple(f for b in (*same, bound) for f in b.hi)
    return replace(nest, bounds=(*others, Bound(bound.dim, lo, hi)))


def _with_extent(nest: Nest, dim: str, extent: int) -> Nest:
    dims = tuple((d, extent if d == dim else n) for d, n in nest.dims)
    return replace(nest, dims=dims)


# ---- legality


def nests_of(body: Iterable[Stmt]) -> list[Nest]:
    """All nests of a body, in order."""
    out: list[Nest] = []
    for stmt in body:
        match stmt:
            case Nest():
                out.append(stmt)
            case Loop() | Let() | When():
                out += nests_of(stmt.body)
            case _:
                assert_never(stmt)
    return out


def may_repeat(nest: Nest) -> bool:
    """Whether computing a point twice gives the same memory: nothing combines, nothing in place."""
    stored = {s.buffer for s in nest.stores}
    loaded = {i.buffer for i in nest.code if isinstance(i, Load)}
    return not stored & loaded and all(s.combine is None for s in nest.stores)


def folded_dims(nest: Nest) -> frozenset[str]:
    """Dims that some fold of the nest folds away."""
    return frozenset(d for i in nest.code if isinstance(i, Fold) for d in i.dims)


def sequential_dims(nest: Nest) -> frozenset[str]:
    """Dims whose positions run in order."""
    return frozenset(nest.ordered) | {i.dim for i in nest.code if isinstance(i, Carry)}


def is_free(nest: Nest, dim: str) -> bool:
    """Whether pieces of `dim` may run as independent tasks, in any order."""
    if dim in folded_dims(nest) or dim in sequential_dims(nest) or not nest.stores:
        return False
    if may_repeat(nest):
        return True
    return all(_apart(nest, s, dim) for s in nest.stores)


def _apart(nest: Nest, store: Store, dim: str) -> bool:
    """Whether two positions of `dim` never store to one element (nor load what another stores)."""
    stride = abs(store.at.form.coefficient(dim))
    if not stride or not store.at.form.is_affine:
        return False
    extents = nest.extents
    below, within = _computed_span(nest, store, stride, extents[dim])
    for atom, factor in store.at.form.terms:
        if isinstance(atom, str) and atom not in (dim, *within) and abs(factor) <= stride:
            below += abs(factor) * (extents.get(atom, 1) - 1)
    if below >= stride:
        return False
    same = [i for i in nest.code if isinstance(i, Load) and i.buffer == store.buffer]
    return all(i.at.form == store.at.form and not i.at.dynamic for i in same)


def _computed_span(
    nest: Nest, store: Store, stride: int, extent: int
) -> tuple[int, frozenset[str]]:
    """How far the computed terms of a store's address reach, as far as its guards let them, and the
    dims that a guard holds together with them; but for terms that step over all positions of the
    dim with this stride and extent."""
    span, within = 0, frozenset[str]()
    ranges = value_ranges(nest.code, {d: (0, n - 1) for d, n in nest.dims})
    for ref, factor in store.at.dynamic:
        if factor % (stride * extent) == 0:
            continue
        low, high = ranges[atom_of(ref)]
        for guard in store.at.guards:
            if guard.dynamic != ((ref, 1),):
                continue
            if not guard.form.dims:
                least = -guard.form.const
                low, high = max(low, least), min(high, least + guard.size - 1)
            elif _moves_with(store.at.form, guard.form, factor):
                low, high, within = 0, guard.size - 1, within | guard.form.dims
        span += abs(factor) * (high - low)
    return span, within


def _moves_with(form: Form, part: Form, factor: int) -> bool:
    """Whether an address moves by `factor` with every step of what a guard holds in range."""
    return form.is_affine and all(
        isinstance(atom, str) and form.coefficient(atom) == c * factor for atom, c in part.terms
    )


# ---- tiling and parallel loops


def tile(chain: Chain, dim: str, size: int) -> Chain:
    """Loop over pieces of `size` positions of a kept dim; the piece stays in the nest as `dim`.

    Where `size` does not divide the extent the last piece is moved back, or cut short by a bound
    where points may not be repeated.
    """
    extent = chain.nest.extents[dim]
    if not 0 < size <= extent:
        raise InternalError(f"schedule: tile of {size} positions along {dim}={extent}")
    if dim in folded_dims(chain.nest) or dim in sequential_dims(chain.nest):
        raise InternalError(f"schedule: {dim} is folded or ordered and cannot be tiled")
    if size == extent:
        return chain
    outer = chain.fresh(f"{dim}_o")
    start = Form.of(outer) * size
    levels: list[Level] = [*chain.levels, Loop(outer, -(-extent // size), ())]
    cut = extent % size != 0 and not may_repeat(chain.nest)
    if extent % size and not cut:
        origin = chain.fresh(f"{dim}_b")
        levels.append(Let(origin, start, 0, extent - size, ()))
        start = Form.of(origin)
    nest = _with_extent(substitute(chain.nest, {dim: start + dim}), dim, size)
    if cut:
        nest = bounded(nest, Bound(dim, (), (-start + extent,)))
    return replace(chain, levels=tuple(levels), nest=nest)


def parallelise(chain: Chain, dim: str, block: int = 1) -> Chain:
    """Move a loop into the grid, `block` of its steps to a task."""
    where = [q for q, v in enumerate(chain.levels) if isinstance(v, Loop) and v.dim == dim]
    if not where:
        raise InternalError(f"schedule: {dim} is not a loop of this kernel")
    loop = chain.levels[where[0]]
    assert isinstance(loop, Loop)
    grid = chain.kernel.grid
    levels = list(chain.levels)
    if block == 1:
        levels.pop(where[0])
        kernel = replace(chain.kernel, grid=(*grid, (dim, loop.extent)))
        return replace(chain, kernel=kernel, levels=tuple(levels))
    if not 0 < block <= loop.extent:
        raise InternalError(f"schedule: {block} steps of loop {dim}={loop.extent} to a task")
    outer = chain.fresh(f"{dim}g")
    start = Form.of(outer) * block
    count = -(-loop.extent // block)
    new: list[Level] = []
    if loop.extent % block:
        if not may_repeat(chain.nest):
            raise InternalError(f"schedule: {block} does not divide loop {dim}={loop.extent}")
        origin = chain.fresh(f"{dim}b")
        new.append(Let(origin, start, 0, loop.extent - block, ()))
        start = Form.of(origin)
    value = {dim: start + dim}
    below = [_in_level(v, value) for v in levels[where[0] + 1 :]]
    levels = [*levels[: where[0]], *new, Loop(dim, block, ()), *below]
    kernel = replace(chain.kernel, grid=(*grid, (outer, count)))
    return replace(chain, kernel=kernel, levels=tuple(levels), nest=substitute(chain.nest, value))


def _in_level(level: Level, values: Mapping[str, Form]) -> Level:
    if isinstance(level, Let):
        return replace(level, form=level.form.substitute(values))
    return level


# ---- dims that every access walks as one


def _joint_forms(nest: Nest) -> list[Form]:
    forms: list[Form] = []
    for instr in nest.code:
        if isinstance(instr, Load):
            forms.append(instr.at.form)
            forms += [g.form for g in instr.at.guards]
        elif isinstance(instr, Position):
            forms.append(instr.form)
    for store in nest.stores:
        forms.append(store.at.form)
        forms += [g.form for g in store.at.guards]
    for bound in nest.bounds:
        forms += [*bound.lo, *bound.hi]
    return forms


def _quasi_dims(form: Form) -> frozenset[str]:
    out: frozenset[str] = frozenset()
    for atom, _ in form.terms:
        if not isinstance(atom, str):
            out |= atom.form.dims
    return out


def merge_dims(nest: Nest) -> Nest:
    """Merge pairs of dims that all forms walk as one: x[64*i + j], j < 64 becomes x[j], j < 64*n.

    Both must be folded by the same folds (or none); carried, ordered and bounded dims stay.
    """
    fixed = sequential_dims(nest) | {b.dim for b in nest.bounds}
    for form in _joint_forms(nest):
        fixed |= _quasi_dims(form)
    while True:
        pair = _mergeable(nest, fixed)
        if pair is None:
            return nest
        nest = _merge(nest, *pair)


def _mergeable(nest: Nest, fixed: frozenset[str]) -> tuple[str, str] | None:
    forms = list(dict.fromkeys(_joint_forms(nest)))
    strides = [{a: c for a, c in f.terms if isinstance(a, str)} for f in forms]
    folds = [i for i in nest.code if isinstance(i, Fold)]
    for outer, many in nest.dims:
        if outer in fixed or many == 0:
            continue
        for inner, count in nest.dims:
            if inner == outer or inner in fixed or count == 0:
                continue
            if not all(_folds_as_one(f, outer, inner) for f in folds):
                continue
            if all(s.get(outer, 0) == count * s.get(inner, 0) for s in strides):
                return outer, inner
    return None


def _folds_as_one(fold: Fold, outer: str, inner: str) -> bool:
    """Whether a fold takes both dims or none, one right after the other if its order counts."""
    if outer not in fold.dims or inner not in fold.dims:
        return outer not in fold.dims and inner not in fold.dims
    follows = fold.dims.index(inner) == fold.dims.index(outer) + 1
    return follows or fold.combine.commutative


def _merge(nest: Nest, outer: str, inner: str) -> Nest:
    extents = nest.extents
    merged = tuple((d, n * extents[outer] if d == inner else n) for d, n in nest.dims if d != outer)
    code = tuple(
        replace(i, dims=tuple(d for d in i.dims if d != outer)) if isinstance(i, Fold) else i
        for i in nest.code
    )
    return substitute(replace(nest, dims=merged, code=code), {outer: Form()})


def drop_unit_dims(nest: Nest) -> Nest:
    """Dims of extent 1 vanish: carried, ordered and bounded ones stay, and one of each fold."""
    stay = sequential_dims(nest) | {b.dim for b in nest.bounds}
    for instr in nest.code:
        if isinstance(instr, Fold) and all(nest.extents[d] == 1 for d in instr.dims):
            stay |= set(instr.dims[:1])
    gone = {d for d, n in nest.dims if n == 1 and d not in stay}
    if not gone:
        return nest
    code = tuple(
        replace(i, dims=tuple(d for d in i.dims if d not in gone)) if isinstance(i, Fold) else i
        for i in nest.code
    )
    rest = tuple(x for x in nest.dims if x[0] not in gone)
    return substitute(replace(nest, dims=rest, code=code), {d: Form() for d in gone})
