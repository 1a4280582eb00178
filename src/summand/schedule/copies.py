"""Private copies of what a scatter combines into, so that tasks share out what it walks.

    nest p=10^6                        t[…] = identity
      store out[%idx] add= a[p]   ->   grid part=4: nest p=250000 (of the part)
                                         store out[%idx] add= a[…]              part 0
                                         store t[n*(part - 1) + %idx] add= a[…] the others
                                       nest k=n r=3
                                         store out[k] add= fold add {r} t[n*r + k]

For scatters into few places, which would otherwise run on one core. The number of copies follows
from shapes alone, and they are combined in order, so results do not depend on the number of
threads.
"""

from __future__ import annotations

from dataclasses import replace

from summand.dtypes import DType, accumulator
from summand.ir.index import Form
from summand.ir.nodes import NAMED, SCALAR_OP
from summand.loops.nodes import (
    Address,
    Buffer,
    Combine,
    Const,
    Fold,
    Guard,
    Kernel,
    Load,
    Nest,
    Stmt,
    Store,
    When,
)
from summand.schedule.expressions import combine_of
from summand.schedule.partials import Partials
from summand.schedule.staged import walk

MOST = 8  # parts
ELEMENT = 0.3  # cycles to set an element of a copy, and to combine it in the end
GAIN = 4.0  # times as much work there must be
SHARE = 10  # copies take at most one part in so many of what the scatter touches, beyond two parts


def copies_wanted(nest: Nest, kernel: Kernel, work: float, goal: int) -> int:
    """Into how many parts to cut what a scatter walks; 1 where it stays whole."""
    buffers = {b.name: b for b in kernel.params}
    stored = [buffers[s.buffer] for s in nest.stores]
    size = sum(b.size for b in stored)
    copy = sum(b.size * b.dtype.bytes for b in stored)
    lean = 1 + sum(b.size * b.dtype.bytes for b in buffers.values()) // (SHARE * max(copy, 1))
    parts = min(goal, MOST, max(2, lean), nest.extents[_longest(nest)])
    while parts > 1 and ELEMENT * GAIN * parts * size > work:
        parts -= 1
    return parts


def is_scatter(nest: Nest) -> bool:
    """Whether all stores combine into computed places, and nothing reads what they store."""
    stored = [s.buffer for s in nest.stores]
    loaded = {i.buffer for i in nest.code if isinstance(i, Load)}
    folded = {d for i in nest.code if isinstance(i, Fold) for d in i.dims}
    plain = not loaded & set(stored) and len(stored) == len(set(stored)) and not nest.bounds
    own = [d for d in nest.ordered if d not in folded]
    return bool(own) and plain and all(s.combine and s.at.dynamic for s in nest.stores)


def _longest(nest: Nest) -> str:
    """The dim to be cut: the longest of those that run in order, the outermost of equals."""
    return max(nest.ordered, key=lambda d: nest.extents[d])


def private_copies(kernel: Kernel, nest: Nest, parts: int) -> Partials:
    """Kernels that clear the copies, scatter into them (scheduled with its grid), combine them."""
    buffers = {b.name: b for b in kernel.params}
    part, dim = "part", _longest(nest)
    while part in nest.extents:
        part += "_"
    copies: dict[str, Buffer] = {}
    for store in nest.stores:
        whole = buffers[store.buffer]
        name = f"{kernel.name}_copies{len(copies)}"
        copies[whole.name] = Buffer(name, whole.dtype, whole.size * (parts - 1))
    extent = nest.extents[dim]
    size = -(-extent // parts)
    start = Form.of(part) * size
    shared = walk(nest, dim, start, size, extent)
    own = tuple(_into(s, copies[s.buffer], buffers[s.buffer].size, part) for s in nest.stores)
    body: tuple[Stmt, ...] = (
        When((Guard(Form.of(part), 1),), shared.body),
        When(
            (Guard(Form.of(part) - 1, parts - 1),),
            walk(replace(nest, stores=own), dim, start, size, extent).body,
        ),
    )
    params = (*kernel.params, *copies.values())
    name = f"{kernel.name}_copies"
    scatter = Kernel(name, params, shared.scratch, ((part, parts),), body, kernel.note)
    clear = [_clear(kernel, s, copies[s.buffer]) for s in nest.stores]
    combine = [_combine(kernel, s, copies[s.buffer], buffers[s.buffer], parts) for s in nest.stores]
    return Partials((*clear, scatter, *combine), tuple(copies.values()), part)


def _into(store: Store, copy: Buffer, size: int, part: str) -> Store:
    at = replace(store.at, form=store.at.form + (Form.of(part) - 1) * size)
    return replace(store, buffer=copy.name, at=at)


def _monoid(fn: str | None, dtype: DType) -> Combine:
    """How a combining store combines."""
    name = next(name for name, op in SCALAR_OP.items() if op == fn)
    return combine_of(NAMED[name], (accumulator(dtype),))


def _clear(kernel: Kernel, store: Store, copy: Buffer) -> Kernel:
    start = _monoid(store.combine, copy.dtype).identity[0]
    code = (Const(start, accumulator(copy.dtype)),)
    nest = Nest((("k", copy.size),), code, (Store(copy.name, Address(Form.of("k")), 0),))
    return Kernel(f"{copy.name}_clear", (copy,), (), (), (nest,), kernel.note)


def _combine(kernel: Kernel, store: Store, copy: Buffer, whole: Buffer, parts: int) -> Kernel:
    """All copies into the result, which has the first part's."""
    combine = _monoid(store.combine, copy.dtype)
    dtype = accumulator(copy.dtype)
    load = Load(copy.name, Address(Form.of("r") * whole.size + "k"), dtype)
    code = (load, Fold(combine, ("r",), (0,), dtype))
    to = Store(whole.name, Address(Form.of("k")), 1, store.combine)
    nest = Nest((("k", whole.size), ("r", parts - 1)), code, (to,))
    return Kernel(f"{copy.name}_combined", (whole, copy), (), (), (nest,), kernel.note)
