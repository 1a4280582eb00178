"""Packing: copy an operand into the order in which a nest reads it.

    loop n_o=16                                kernel pack: temp[...] = B[...]
      nest m n=64 k                     ->  loop n_o=16
        fold add {k} A * B[n, k]              nest m n=64 k
                                                fold add {k} A * temp[n_o, k, n]

A whole operand is packed ahead, by a kernel of its own (`pack_ahead`); a slab that one task needs
goes to scratch at the start of the task (`pack_in_task`). The copy evaluates the operand's guards,
so that the packed one has none. Dims that walk the operand together (x and a of a convolution's
window) are one dim of the copy, so that no element is copied twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.code import address_dims
from summand.loops.nodes import Address, Buffer, Kernel, Let, Load, Loop, Nest, Ref, Store
from summand.loops.ranges import atom_of, value_ranges
from summand.options import Target
from summand.schedule.accesses import Access, Facts
from summand.schedule.cost import PAGE, pipes_of
from summand.schedule.moves import Chain, Level, folded_dims

LINE = 64  # bytes
WAYS = 8  # of the second cache
PLACE = "place"  # the dim of a copy along which the places lie that a nest computes


@dataclass(frozen=True, slots=True)
class Packed:
    """A chain that reads a packed operand, and the kernel (if any) that packs it."""

    chain: Chain
    kernel: Kernel | None
    buffer: Buffer


def _load(nest: Nest, ref: Ref) -> Load:
    load = nest.code[ref]
    if not isinstance(load, Load) or len(load.at.dynamic) > 1:
        raise InternalError("schedule: only a load at one computed place can be packed")
    return load


def computed_places(nest: Nest, load: Load) -> tuple[int, int]:
    """Least and greatest value of the computed term of an address; (0, 0) where it has none."""
    if not load.at.dynamic:
        return 0, 0
    ranges = value_ranges(nest.code, {d: (0, n - 1) for d, n in nest.dims})
    return ranges[atom_of(load.at.dynamic[0][0])]


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


def _reading(nest: Nest, ref: Ref, buffer: Buffer, form: Form, made: _Copy) -> Nest:
    """The nest that reads the copy, whose dims make up `form`."""
    load = _load(nest, ref)
    stride = form.coefficient(PLACE)
    values = {**made.places, PLACE: Form.of(-computed_places(nest, load)[0])}
    dynamic = tuple((r, stride) for r, _ in load.at.dynamic)
    new = Load(buffer.name, Address(form.substitute(values), dynamic), load.dtype)
    code = tuple(new if q == ref else i for q, i in enumerate(nest.code))
    return replace(nest, code=code)


def _element(chain: Chain, name: str) -> Buffer:
    for buffer in (*chain.kernel.params, *chain.kernel.scratch):
        if buffer.name == name:
            return buffer
    raise InternalError(f"schedule: no buffer {name} in kernel {chain.kernel.name}")


def _bound_dims(
    chain: Chain, load: Load, travels: Sequence[_Travel]
) -> tuple[list[str], list[str]]:
    """Loops and lets (transitively) that an operand's address reads, and the bases of windows."""
    reads = set(address_dims(load.at)).union(*(t.base.form.dims for t in travels))
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


# ---- windows: dims that walk an operand together


@dataclass(frozen=True, slots=True)
class _Window:
    """Dims that meet each other's elements, as x and a in x[8*x + 8*a]: packed as one dim, at
    `place`; the source is read at `step` elements for each position, from `first` on."""

    dims: frozenset[str]
    extent: int
    place: Form
    step: int
    first: Form


@dataclass(frozen=True, slots=True)
class _Travel:
    """The origin of a tile that moves within a task, by `most` positions at most from `base` on,
    which is the same for the whole task.

    let k_b = clip(6*k_o + 54*k_og, 0, 1018)   ->   let k_s = clip(54*k_og, 0, 970); most = 48
    """

    dim: str
    base: Let
    most: int


def overlapping(
    strides: Mapping[str, int],
    extents: Mapping[str, int],
    reduced: frozenset[str],
    lanes: frozenset[str],
) -> list[tuple[str, ...]]:
    """Groups of dims, kept and reduced ones, of which several places are one element. Not the
    lanes, and not where the elements between those that are read would be more than places."""
    groups: list[list[str]] = []
    span = 0
    for d in sorted(strides, key=lambda d: (abs(strides[d]), d)):
        if not groups or abs(strides[d]) > span:
            groups.append([])
        groups[-1].append(d)
        span += abs(strides[d]) * (extents[d] - 1)
    found = []
    for dims in groups:
        many = [d for d in dims if extents[d] > 1]
        if set(many) & reduced and set(many) - reduced and not lanes & set(many):
            places = math.prod(extents[d] for d in many)
            if _reach([(strides[d], extents[d]) for d in many]) < places:
                found.append(tuple(many))
    return found


def _reach(walks: Sequence[tuple[int, int]]) -> int:
    """Positions from the first to the last of dims of these strides and extents."""
    step = math.gcd(*(s for s, _ in walks))
    return sum(abs(s) // step * (n - 1) for s, n in walks) + 1


def packed_elements(facts: Facts, load: Access, lanes: frozenset[str]) -> int:
    """Elements of a packed operand: each place of a window once."""
    low, high = computed_places(facts.nest, _load(facts.nest, load.ref))
    number = math.prod(facts.extents[d] for d in load.strides) * (high - low + 1)
    for dims in overlapping(load.strides, facts.extents, facts.reduced, lanes):
        walks = [(load.stride(d), facts.extents[d]) for d in dims]
        number = number // math.prod(n for _, n in walks) * _reach(walks)
    return number


def _travels(chain: Chain) -> list[_Travel]:
    """Origins of tiles that move along with the loops of a task, from one that does not."""
    loops = {v.dim: v.extent for v in chain.levels if isinstance(v, Loop)}
    fixed = {d for d, _ in chain.kernel.grid} | {v.dim for v in chain.outer}
    found = []
    for level in chain.levels:
        if isinstance(level, Loop):
            continue
        moving = level.form.dims & loops.keys()
        if not moving and level.form.dims <= fixed:
            fixed.add(level.dim)
        steps = {d: level.form.coefficient(d) for d in moving}
        start = level.form - Form.make(steps.items())
        if not moving or min(steps.values()) <= 0 or not start.dims <= fixed:
            continue
        far = sum(step * (loops[d] - 1) for d, step in steps.items())
        most = min(far, level.hi - level.lo)
        base = Let(chain.fresh(f"{level.dim}s"), start, level.lo, level.hi - most, ())
        found.append(_Travel(level.dim, base, most))
    return found


def _windows(
    chain: Chain, load: Load, lanes: frozenset[str], moving: bool, travels: Sequence[_Travel]
) -> list[_Window]:
    """The windows of an operand over the nest and its loops, and (`moving`) origins of tiles."""
    ranges = {d: (0, n - 1) for d, n in chain.nest.dims}
    for level in chain.levels:
        if isinstance(level, Loop):
            ranges[level.dim] = (0, level.extent - 1)
        elif moving:
            ranges[level.dim] = (level.lo, level.hi)
    bases = {t.dim: Form.of(t.base.dim) for t in travels}
    ranges.update((t.dim, (0, t.most)) for t in travels)
    form = load.at.form
    strides = {d: form.coefficient(d) for d in form.dims if d in ranges and form.coefficient(d)}
    extents = {d: hi - lo + 1 for d, (lo, hi) in ranges.items()}
    groups = overlapping(strides, extents, folded_dims(chain.nest), lanes)
    together = {d for dims in groups for d in dims}
    for dim in (t.dim for t in travels if t.dim in strides and t.dim not in together):
        beside = [d for d, n in strides.items() if n == strides[dim] and d not in together]
        groups.append(tuple(sorted(beside)))
        together.update(beside)
    found = []
    for dims in groups:
        step = math.gcd(*(strides[d] for d in dims))
        first = sum(strides[d] * ranges[d][strides[d] < 0] for d in dims)
        place = Form.make(((d, strides[d] // step) for d in dims), -first // step)
        start = Form() + first
        for d in (d for d in dims if d in bases):
            place = place - bases[d] * (strides[d] // step)
            start = start + bases[d] * strides[d]
        walks = [(strides[d], extents[d]) for d in dims]
        found.append(_Window(frozenset(dims), _reach(walks), place, step, start))
    return found


@dataclass(frozen=True, slots=True)
class _Copy:
    """How an operand is copied: its load with a dim for each window, the copy's dims in order,
    and where each window's dim is in the nest that reads the copy."""

    load: Load
    loops: tuple[str, ...]
    lets: tuple[str, ...]
    order: tuple[tuple[str, int], ...]
    places: Mapping[str, Form]
    bases: tuple[_Travel, ...] = ()


def _copy(
    chain: Chain, ref: Ref, inner: Sequence[str], lanes: frozenset[str], moving: bool
) -> _Copy:
    """The copy of an operand: loops outermost, then its nest dims in the order `inner`, a window in
    place of the last of its dims. Where tiles move within the task, what they read is a window, but
    for panels of `lanes`."""
    load = _load(chain.nest, ref)
    extents = chain.nest.extents
    names: dict[str, tuple[str, _Window]] = {}
    form = load.at.form
    low, high = computed_places(chain.nest, load)
    for _, stride in load.at.dynamic:
        form = form + (Form.of(PLACE) + low) * stride
    travels = () if moving or lanes else tuple(t for t in _travels(chain) if t.dim in form.dims)
    for number, window in enumerate(_windows(chain, load, lanes, moving, travels)):
        name = chain.fresh(f"w{number}")
        names.update((d, (name, window)) for d in window.dims)
        kept = [(a, c) for a, c in form.terms if a not in window.dims]
        form = Form.make([*kept, (name, window.step)], form.const) + window.first
    copied = replace(load, at=replace(load.at, form=form, dynamic=()))
    loops, lets = _bound_dims(chain, copied, travels)
    heads = {v.dim: v for v in chain.levels}
    order = {PLACE: high - low + 1} if load.at.dynamic else {}
    order.update((d, _extent(heads[d])) for d in loops)
    for d in inner:
        name, size = (names[d][0], names[d][1].extent) if d in names else (d, extents[d])
        order.pop(name, None)
        order[name] = size
    alone = {name: w.extent for name, w in names.values() if name not in order}
    order = {**alone, **order}
    places = {name: w.place for name, w in names.values()}
    return _Copy(copied, tuple(loops), tuple(lets), tuple(order.items()), places, travels)


def pack_ahead(
    chain: Chain,
    ref: Ref,
    inner: Sequence[str],
    name: str,
    aligned: int,
    lanes: frozenset[str] = frozenset(),
) -> Packed:
    """Pack the whole operand: loops outermost, then its nest dims in the order `inner`. Dims that
    walk it together become one, but for those of the `lanes`."""
    if chain.kernel.grid:
        raise InternalError("schedule: pack before loops move into the grid")
    made = _copy(chain, ref, inner, lanes, True)
    form, size = _dense(made.order, aligned)
    source = _element(chain, made.load.buffer)
    buffer = Buffer(name, source.dtype, size)
    dims = tuple(x for x in made.order if x[0] not in made.loops)
    copy = Nest(dims, (made.load,), (Store(name, Address(form), 0),))
    levels: list[Level] = [v for v in chain.levels if v.dim in (*made.loops, *made.lets)]
    head = Kernel(f"{chain.kernel.name}_pack_{made.load.buffer}", (source, buffer), (), (), ())
    packing = Chain(head, tuple(levels), copy)
    nest = _reading(chain.nest, ref, buffer, form, made)
    kernel = replace(chain.kernel, params=(*chain.kernel.params, buffer))
    return Packed(replace(chain, kernel=kernel, nest=nest), packing.kernel_of(), buffer)


def _extent(level: Level) -> int:
    if not isinstance(level, Loop):
        raise InternalError("schedule: a let has no extent of its own")
    return level.extent


def pack_in_task(
    chain: Chain,
    ref: Ref,
    inner: Sequence[str],
    name: str,
    aligned: int,
    lanes: frozenset[str] = frozenset(),
) -> Packed:
    """Copy the slab that one task reads into scratch, before the task's loops."""
    made = _copy(chain, ref, inner, lanes, False)
    grid = {d for d, _ in chain.kernel.grid} | {v.dim for v in chain.outer}
    copied = [v for v in chain.levels if v.dim in made.lets and v.dim not in made.loops]
    fixed: set[str] = set()
    for v in copied:  # outer first
        if isinstance(v, Let) and v.form.dims <= grid | fixed:
            fixed.add(v.dim)
    if any(v.dim not in fixed for v in copied):
        raise InternalError("schedule: a slab's origin moves within the task")
    form, size = _dense(made.order, aligned)
    source = _element(chain, made.load.buffer)
    buffer = Buffer(name, source.dtype, size, "scratch", space=aligned)
    copy = Nest(made.order, (made.load,), (Store(name, Address(form), 0),))
    heads = (*copied, *(t.base for t in made.bases))
    body = Chain(chain.kernel, heads, copy).kernel_of().body
    nest = _reading(chain.nest, ref, buffer, form, made)
    kernel = replace(chain.kernel, scratch=(*chain.kernel.scratch, buffer))
    levels: list[Level] = []
    for v in chain.levels:
        levels += [*(t.base for t in made.bases if t.dim == v.dim), v]
    before = (*chain.before, *body)
    new = replace(chain, kernel=kernel, nest=nest, levels=tuple(levels), before=before)
    return Packed(new, None, buffer)


def sets_met(step: int, count: int) -> int:
    """In how many places of a page so many rows begin that are `step` bytes apart: the others fall
    into the same sets of the first cache."""
    return min(count, PAGE // math.gcd(step, PAGE))


def is_driven_out(facts: Facts, load: Access, lanes: set[str], target: Target) -> bool:
    """Whether an operand's steps along the reduction lie half a kilobyte and more apart, and meet
    in so few sets of the second cache that one pass over them drives out what the next would find.

    Only where it is read again, for several vectors of lanes, or rows of them.
    """
    rows = [abs(load.stride(d)) * load.bits // 8 for d in facts.reduced if load.stride(d)]
    far = [s for s in rows if s >= LINE]
    steps = math.prod(facts.extents[d] for d in facts.reduced if load.stride(d))
    again = math.prod(facts.extents[d] for d in facts.kept if d not in load.dims)
    along = load.dims & lanes
    static = not load.loose and not load.guarded
    if (
        not pipes_of(target).copies_rows
        or not static
        or any(load.stride(d) != 1 for d in along)
        or min(far, default=0) < 8 * LINE
        or steps < (64 if along else 256)
        or again < (32 if along else 64)
    ):
        return False
    way = target.l2 // WAYS
    lines = math.prod(
        facts.extents[d] for d in facts.reduced if abs(load.stride(d)) * load.bits // 8 >= LINE
    )
    return lines > way // math.gcd(way, *far) * WAYS


def slab_bytes(
    chain: Chain, ref: Ref, element: int, lanes: frozenset[str] = frozenset()
) -> int | None:
    """Bytes of a load's elements that a task reads; None where its place moves within the task."""
    if _load(chain.nest, ref).at.dynamic:
        return None
    made = _copy(chain, ref, tuple(chain.nest.extents), lanes, False)
    grid = {d for d, _ in chain.kernel.grid} | {v.dim for v in chain.outer}
    for level in chain.levels:
        if isinstance(level, Let) and level.dim in made.lets:
            if not level.form.dims <= grid:
                return None
            grid.add(level.dim)
    reads = address_dims(made.load.at)
    return element * math.prod(n for d, n in made.order if d in reads)
