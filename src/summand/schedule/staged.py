"""What a scatter reads, computed in vectors before it walks: a piece of its dim at a time.

    nest p=10^6 ordered(p)              for p_t=1954: let p_b = clip(512*p_t, 0, 999488)
      3: floor …                          nest p=512          s0[p] = floor …
      9: exp …                    ->      nest k=4 p=512      s1[512*k + p] = exp …
      store out[%3 + k] add= 9            nest p=512 k=4 ordered(p), p from 512*p_t - p_b
                                            store out[%s0[p] + k] add= s1[512*k + p]

A scatter walks its dim in order, so that its vectors lie along its rows; what does not fill them is
computed for several positions at once. The pieces stay in the first cache. Keeps every result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.ir.index import Form
from summand.ir.prims import PRIMS
from summand.loops.code import address_refs, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Bound,
    Buffer,
    Fold,
    Let,
    Load,
    Loop,
    Nest,
    Ref,
    Stmt,
    Store,
)
from summand.schedule.accesses import dependences
from summand.schedule.code import CodeCopy
from summand.schedule.moves import bounded, substitute

POSITIONS = 512  # of a piece, if they fit
ROOM = 24 << 10  # bytes of scratch
STEP = 64  # positions: whole vectors, several of them
LEAST = 3.0  # operations of a value that is worth its way through memory
VECTOR = 16  # elements


@dataclass(frozen=True, slots=True)
class Walk:
    """A scatter over `size` positions of a dim from `start` on, of `extent` in all."""

    body: tuple[Stmt, ...]
    scratch: tuple[Buffer, ...] = ()


def walk(nest: Nest, dim: str, start: Form, size: int, extent: int) -> Walk:
    """The statements of a scatter over a part of the dim that it walks."""
    found = _worth_staging(nest)
    if len(nest.ordered) > 1 or not found:
        piece = substitute(nest, {dim: start + dim})
        piece = replace(piece, dims=tuple((d, size if d == dim else n) for d, n in nest.dims))
        if extent % size:
            piece = bounded(piece, Bound(dim, (), (start * -1 + extent,)))
        return Walk((piece,))
    return _staged(nest, found, dim, start, size, extent)


def _worth_staging(nest: Nest) -> tuple[Ref, ...]:
    """Values that vary along the walked dim, take some operations, and do not fill a vector."""
    deps, extents = dependences(nest), nest.extents
    walked = frozenset(nest.ordered)
    short = [bool(d & walked) and math.prod(extents[x] for x in d - walked) < VECTOR for d in deps]
    folded = {d for i in nest.code if isinstance(i, Fold) for d in i.dims}
    plain = [short[r] and not d & folded for r, d in enumerate(deps)]
    readers: dict[Ref, list[Ref | None]] = {}
    for r, instr in enumerate(nest.code):
        for a in refs(instr):
            readers.setdefault(a, []).append(r)
    for store in nest.stores:
        for a in (store.value, *address_refs(store.at)):
            readers.setdefault(a, []).append(None)
    return tuple(
        r
        for r, instr in enumerate(nest.code)
        if isinstance(instr, Apply)
        and plain[r]
        and any(q is None or not plain[q] for q in readers.get(r, ()))
        and _operations(nest, r) >= LEAST
    )


def _operations(nest: Nest, ref: Ref) -> float:
    """What a value takes, without its loads."""
    seen: set[Ref] = set()
    todo, total = [ref], 0.0
    while todo:
        r = todo.pop()
        instr = nest.code[r]
        if r not in seen:
            seen.add(r)
            total += PRIMS[instr.fn].flops if isinstance(instr, Apply) else 0.0
            todo += refs(instr)
    return total


def _staged(
    nest: Nest, found: Sequence[Ref], dim: str, start: Form, size: int, extent: int
) -> Walk:
    deps, sizes = dependences(nest), nest.extents
    each = [math.prod(sizes[d] for d in deps[r] if d != dim) for r in found]
    bytes_ = sum(n * nest.code[r].dtype.bytes for r, n in zip(found, each, strict=True))
    count = max(STEP, min(POSITIONS, ROOM // bytes_ // STEP * STEP))
    count = min(count, size)
    outer, origin = _fresh(nest, f"{dim}_t"), _fresh(nest, f"{dim}_b")
    here = start + Form.of(outer) * count
    dims = tuple((d, count if d == dim else n) for d, n in nest.dims)
    moved = replace(substitute(nest, {dim: Form.of(origin) + dim}), dims=dims)
    scratch: list[Buffer] = []
    loads: dict[Ref, Load] = {}
    stages: dict[frozenset[str], list[Ref]] = {}
    for r, elements in zip(found, each, strict=True):
        form, step = Form.of(dim), count
        for d in sorted(deps[r] - {dim}):
            form, step = form + Form.of(d) * step, step * sizes[d]
        dtype = nest.code[r].dtype
        scratch.append(Buffer(f"v{len(scratch)}", dtype, elements * count, "scratch"))
        loads[r] = Load(scratch[-1].name, Address(form), dtype)
        stages.setdefault(deps[r], []).append(r)
    before = [_stage(moved, own, loads, d) for d, own in stages.items()]
    first, end = here - origin, start + size - origin
    last = replace(_reading(moved, loads), bounds=(Bound(dim, (first,), (end,)),))
    body = (Let(origin, here, 0, extent - count, (*before, last)),)
    return Walk((Loop(outer, -(-size // count), body),), tuple(scratch))


def _fresh(nest: Nest, name: str) -> str:
    while name in nest.extents:
        name += "_"
    return name


def _stage(nest: Nest, own: Sequence[Ref], loads: dict[Ref, Load], deps: frozenset[str]) -> Nest:
    """Values of the same dims into scratch."""
    copy = CodeCopy(nest.code)
    values = [copy.value(r) for r in own]
    stores = [Store(loads[r].buffer, loads[r].at, v) for r, v in zip(own, values, strict=True)]
    dims = tuple(x for x in nest.dims if x[0] in deps)
    return Nest(dims, tuple(copy.code), tuple(stores))


def _reading(nest: Nest, loads: dict[Ref, Load]) -> Nest:
    """The scatter, reading from scratch."""
    copy = CodeCopy(nest.code)
    copy.known.update({r: copy.add(load) for r, load in loads.items()})
    stores = tuple(
        replace(s, at=copy.address(s.at), value=copy.value(s.value)) for s in nest.stores
    )
    return replace(nest, code=tuple(copy.code), stores=stores)
