"""Packing: copy an operand into the order in which a nest reads it.

    loop n_o=16                                kernel pack: temp[...] = B[...]
      nest m n=64 k                     ->  loop n_o=16
        fold add {k} A * B[n, k]              nest m n=64 k
                                                fold add {k} A * temp[n_o, k, n]

A whole operand is packed ahead, by a kernel of its own (`pack_ahead`); a slab that one task needs
goes to scratch at the start of the task (`pack_in_task`). The copy evaluates the operand's guards,
so that the packed one has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.code import address_dims
from summand.loops.nodes import Address, Buffer, Kernel, Let, Load, Loop, Nest, Ref, Store
from summand.schedule.accesses import Access, Facts
from summand.schedule.moves import Chain, Level

PAGE = 4096  # bytes
LINE = 64  # bytes


@dataclass(frozen=True, slots=True)
class Packed:
    """A chain that reads a packed operand, and the kernel (if any) that packs it."""

    chain: Chain
    kernel: Kernel | None
    buffer: Buffer


def _load(nest: Nest, ref: Ref) -> Load:
    load = nest.code[ref]
    if not isinstance(load, Load) or load.at.dynamic:
        raise InternalError("schedule: only a load at a static address can be packed")
    return load


def _dense(order: Sequence[tuple[str, int]], aligned: int) -> tuple[Form, int]:
    """Address over dims in this order (outer first), and the buffer's size.

    Rows of the innermost dims that fill `aligned` elements or more stay multiples of it.
    """
    form, stride = Form(), 1
    for dim, extent in reversed(order):
        form = form + Form.of(dim) * stride
        stride *= extent
        if stride >= aligned and stride % aligned:
            stride += aligned - stride % aligned
    return form, stride


def _reading(nest: Nest, ref: Ref, buffer: Buffer, form: Form) -> Nest:
    load = _load(nest, ref)
    new = Load(buffer.name, Address(form), load.dtype)
    code = tuple(new if q == ref else i for q, i in enumerate(nest.code))
    return replace(nest, code=code)


def _element(chain: Chain, name: str) -> Buffer:
    for buffer in (*chain.kernel.params, *chain.kernel.scratch):
        if buffer.name == name:
            return buffer
    raise InternalError(f"schedule: no buffer {name} in kernel {chain.kernel.name}")


def _bound_dims(chain: Chain, ref: Ref) -> tuple[list[str], list[str]]:
    """Loops and lets (transitively) that the operand's address reads."""
    reads = set(address_dims(_load(chain.nest, ref).at))
    loops: list[str] = []
    lets: list[str] = []
    for level in reversed(chain.levels):
        if level.dim not in reads:
            continue
        if isinstance(level, Let):
            lets.insert(0, level.dim)
            reads |= level.form.dims
        else:
            loops.insert(0, level.dim)
    return loops, lets


def pack_ahead(chain: Chain, ref: Ref, inner: Sequence[str], name: str, aligned: int) -> Packed:
    """Pack the whole operand: loops outermost, then its nest dims in the order `inner`."""
    if chain.kernel.grid:
        raise InternalError("schedule: pack before loops move into the grid")
    load = _load(chain.nest, ref)
    loops, lets = _bound_dims(chain, ref)
    extents = chain.nest.extents
    heads = {v.dim: v for v in chain.levels}
    order = [(d, _extent(heads[d])) for d in loops] + [(d, extents[d]) for d in inner]
    form, size = _dense(order, aligned)
    source = _element(chain, load.buffer)
    buffer = Buffer(name, source.dtype, size)
    code = (load,)
    copy = Nest(tuple((d, extents[d]) for d in inner), code, (Store(name, Address(form), 0),))
    levels: list[Level] = [v for v in chain.levels if v.dim in loops or v.dim in lets]
    head = Kernel(f"{chain.kernel.name}_pack_{load.buffer}", (source, buffer), (), (), ())
    packing = Chain(head, tuple(levels), copy)
    nest = _reading(chain.nest, ref, buffer, form)
    kernel = replace(chain.kernel, params=(*chain.kernel.params, buffer))
    return Packed(replace(chain, kernel=kernel, nest=nest), packing.kernel_of(), buffer)


def _extent(level: Level) -> int:
    if not isinstance(level, Loop):
        raise InternalError("schedule: a let has no extent of its own")
    return level.extent


def pack_in_task(chain: Chain, ref: Ref, inner: Sequence[str], name: str, aligned: int) -> Packed:
    """Copy the slab that one task reads into scratch, before the task's loops."""
    load = _load(chain.nest, ref)
    loops, lets = _bound_dims(chain, ref)
    extents = chain.nest.extents
    heads = {v.dim: v for v in chain.levels}
    grid = {d for d, _ in chain.kernel.grid} | {v.dim for v in chain.outer}
    copied = [v for v in chain.levels if v.dim in lets and v.dim not in loops]
    fixed: set[str] = set()
    for v in copied:  # outer first
        if isinstance(v, Let) and v.form.dims <= grid | fixed:
            fixed.add(v.dim)
    if any(v.dim not in fixed for v in copied):
        raise InternalError("schedule: a slab's origin moves within the task")
    order = [(d, _extent(heads[d])) for d in loops] + [(d, extents[d]) for d in inner]
    form, size = _dense(order, aligned)
    source = _element(chain, load.buffer)
    buffer = Buffer(name, source.dtype, size, "scratch", space=aligned)
    copy = Nest(tuple(order), (load,), (Store(name, Address(form), 0),))
    body = Chain(chain.kernel, tuple(copied), copy).kernel_of().body
    nest = _reading(chain.nest, ref, buffer, form)
    kernel = replace(chain.kernel, scratch=(*chain.kernel.scratch, buffer))
    new = replace(chain, kernel=kernel, nest=nest, before=(*chain.before, *body))
    return Packed(new, None, buffer)


def is_far_row(facts: Facts, load: Access, lanes: set[str]) -> bool:
    """Whether a row operand's steps along the reduction lie in different pages.

    Only where it is read again, for several vectors of lanes.
    """
    rows = [abs(load.stride(d)) * load.bits // 8 for d in facts.reduced if load.stride(d)]
    near = min((s for s in rows if s >= LINE), default=0)
    steps = math.prod(facts.extents[d] for d in facts.reduced if load.stride(d))
    again = math.prod(facts.extents[d] for d in facts.kept if d not in load.dims)
    static = not load.loose and not load.guarded and not load.dims & lanes
    return static and near >= PAGE and steps >= 256 and again >= 64


def slab_bytes(chain: Chain, ref: Ref, element: int) -> int | None:
    """Bytes of a load's elements that a task reads; None where its place moves within the task."""
    _, lets = _bound_dims(chain, ref)
    grid = {d for d, _ in chain.kernel.grid} | {v.dim for v in chain.outer}
    for level in chain.levels:
        if isinstance(level, Let) and level.dim in lets:
            if not level.form.dims <= grid:
                return None
            grid.add(level.dim)
    extents = dict(chain.nest.dims) | {v.dim: v.extent for v in chain.levels if isinstance(v, Loop)}
    reads = address_dims(_load(chain.nest, ref).at)
    return element * math.prod(n for d, n in extents.items() if d in reads)
