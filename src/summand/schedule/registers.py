"""Lanes and register tile of a nest: enumerate few candidates, score each, take the least.

    nest m=1024 n=1024 k=1024        ->   lanes n16, tile n4 m6, unroll k2
      fold add {k} A[m, k] * B[k, n]

Lanes come from kept dims (unit stride in a result or in an operand; pieces of several dims where
they are tiny) or from a reduced one. A tile holds `counts` vectors along each dim. Candidates
that need too many registers, or waste much in remainders, are dropped before they are scored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from summand.loops.nodes import Carry, Fold, Load, Piece
from summand.options import Target
from summand.rewrite.plan.copies import PASSES
from summand.schedule.accesses import Access, Facts
from summand.schedule.cost import (
    PAGE,
    Counts,
    Floats,
    Model,
    build_model,
    lane_kind,
    pipes_of,
    score,
    scores,
)
from summand.schedule.pack import LINE, WAYS, computed_places, packed_elements
from summand.schedule.slots import widest_bits

PACK = {"unit": 0.15, "splat": 0.0, "reverse": 1.0, "chunk": 0.5, "gather": 1.2, "window": 0.0}
PANEL = 4  # vectors of a panel's row, about
MUCH_WORK = 1e6  # vector operations
MOST_READERS = 64  # of each element of what is called read once: a few vectors
MOST_SPILLED = 1.5  # times the registers that a tile may need; what does not fit costs cycles
SLOW_MEMORY = 0.5  # of the arithmetic's time, from which the order of memory counts for tiles
MOST_POINTS = 30  # vectors of a register tile
FEW_POINTS = 8  # tiles of less than half of it are not tried where larger ones exist
FEWEST_LANES = 32  # extent from which lanes on a reduced dim pay
MOST_UNROLLED = 64
MOST_PLACES = 4096  # that an operand is packed for where its place is computed
LINE_CYCLES = 150.0  # a line of code compiles in 50 us: worth that over a thousand runs
LONG_CODE = 1500.0  # lines of a nest from which the whole program waits for its code


@dataclass(frozen=True, slots=True)
class Choice:
    """Lanes, register tile and accumulator copies of one nest, with their predicted cycles."""

    lanes: tuple[Piece, ...]
    tile: tuple[Piece, ...]
    unrolled: frozenset[str]
    cycles: float
    cost: float  # cycles of all runs, and a price for the code
    copies: int = 1
    accumulators: int = 0
    packed: tuple[int, ...] = ()
    steps: dict[str, int] = field(default_factory=dict)
    step_lines: float = 1.0
    end_lanes: tuple[Piece, ...] = ()
    per_cycle: float = 1.0  # operations on vectors
    flat: bool = False  # the whole reduction is unrolled, so that overlapping windows are read once
    order: tuple[str, ...] = ()  # of the loops over tiles, where it is not the usual one

    def step(self, dim: str) -> int:
        """Positions of a dim that one register tile covers."""
        return self.steps.get(dim, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the choice may do: dims that stay single, and whether operands can be packed ahead:
    `packed_for` so many runs at once, of the buffers that `stay` the same meanwhile (None: all), at
    places that follow only the nest's own dims and those `around`."""

    single: frozenset[str] = frozenset()  # no tile and no lanes along these (bounds read them)
    may_pack: bool = False
    packed_for: int = 1
    stay: frozenset[str] | None = None
    around: frozenset[str] = frozenset()
    runs: int = 1  # how often the nest runs
    floor: float = 0.0  # cycles that moving the bytes takes anyway

    def cost(self, cycles: Floats, lines: Floats) -> Floats:
        """Cycles of all runs, and the price of the code."""
        if self.floor:
            cycles = np.maximum(cycles, self.floor) + 0.1 * np.minimum(cycles, self.floor)
        return cycles * self.runs + lines * LINE_CYCLES * (1 + lines / LONG_CODE)


def unrolled_dims(facts: Facts) -> frozenset[str]:
    """Reduced dims that are always unrolled: folds inside folds, and folds over carried states."""
    out = frozenset(d for d in facts.nested if facts.extents[d] <= 16)
    if facts.carried:
        out |= frozenset(d for d in facts.reduced if facts.extents[d] <= MOST_UNROLLED)
    return out - facts.carried


def _forced(facts: Facts, unrolled: frozenset[str]) -> list[str]:
    """Dims that are summed inside and kept outside."""
    kept = frozenset(d for s in facts.stores for d in s.dims)
    for ref, instr in enumerate(facts.nest.code):
        if isinstance(instr, Carry):
            kept |= facts.deps[ref]
    return sorted(unrolled & kept)


def width_of(facts: Facts, target: Target) -> int:
    """Lanes of a vector: those of 32 bits, or of 64 where most of the arithmetic is that wide."""
    return target.lanes(64 if widest_bits(facts) == 64 else 32)


def _fill(order: Sequence[str], extents: dict[str, int], width: int, cap: int) -> tuple[Piece, ...]:
    """Pieces along `order` (innermost first) of product `width`; the outermost masked if short."""
    pieces: list[Piece] = []
    left = width
    for q, dim in enumerate(order):
        if left == 1:
            break
        need = 1 << (extents[dim] - 1).bit_length() if extents[dim] > 1 else 1
        count = min(left, need, cap) if q == 0 else min(left, need)
        if count > 1:
            pieces.insert(0, Piece(dim, count))
            left //= count
    if left > 1 and pieces:
        pieces[0] = Piece(pieces[0].dim, pieces[0].count * left)
    return tuple(pieces)


def _efficiency(lanes: Sequence[Piece], extents: dict[str, int]) -> float:
    out = 1.0
    for p in lanes:
        out *= extents[p.dim] / (-(-extents[p.dim] // p.count) * p.count)
    return out


def _lane_orders(facts: Facts, free: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Orders of dims, innermost first, to take lanes from; True allows pieces of several."""

    def by_stride(access: Access, dims: Sequence[str]) -> list[str]:
        moving = [d for d in dims if access.stride(d) > 0]
        return sorted(moving, key=lambda d: (access.stride(d), d))

    for store in facts.stores:
        moving = by_stride(store, free)
        for load in facts.loads:
            shared = [d for d in moving if d in load.dims]
            own = [d for d in shared if not all(d in other.dims for other in facts.loads)]
            if own and own != moving:
                yield own, True
        if moving:
            yield moving, True
    for load in facts.loads:
        moving = by_stride(load, free)
        if moving and load.stride(moving[0]) == 1:
            yield moving, False
    for dim in free:
        yield [dim], False


def lane_candidates(facts: Facts, limits: Limits, width: int) -> list[tuple[Piece, ...]]:
    """Sets of lanes worth scoring, all different."""
    free = [d for d in facts.kept if d not in facts.ordered and d not in limits.single]
    if facts.carried:  # a dim summed within a step may fill the lanes of the states
        free += [d for d in _forced(facts, unrolled_dims(facts)) if d not in limits.single]
    free = [d for d in free if facts.extents[d] > 1]
    found: dict[tuple[Piece, ...], None] = {}
    for order, splits in _lane_orders(facts, free):
        for cap in (width, width // 2, width // 4) if splits else (width,):
            lanes = _fill(order, facts.extents, width, max(1, cap))
            if lanes and math.prod(p.count for p in lanes) == width:
                found[lanes] = None
    full = [x for x in found if _efficiency(x, facts.extents) > 0.55]
    if facts.ordered and not facts.carried and not full:
        full = _short_lanes(facts, free, width)
    best = full or sorted(found, key=lambda x: -_efficiency(x, facts.extents))[:4]
    best = best[:10]
    for dim in _reducible_lanes(facts, limits):
        merges = bool(end_candidates(facts, limits, (Piece(dim, width),), width))
        rows = any(load.stride(dim) == 1 and load.loose for load in facts.loads)  # are gathered
        few = width if merges or facts.carried or rows else FEWEST_LANES * width // 16
        if facts.extents[dim] >= few:
            best.append((Piece(dim, width),))
        best += _mixed_lanes(facts, dim, free, width)
    if not best:
        for dim in _reducible_lanes(facts, limits):
            best.append((Piece(dim, width),))
    return best


def _short_lanes(facts: Facts, free: Sequence[str], width: int) -> list[tuple[Piece, ...]]:
    """Rows of a scatter that fill a part of a vector exactly: a load of what was stored under a
    mask waits until that has left for the cache."""
    row = math.prod(facts.extents[d] for d in free)
    if row >= width or row & (row - 1):
        return []
    orders = (order for order, splits in _lane_orders(facts, free) if splits)
    found = (_fill(order, facts.extents, row, row) for order in orders)
    return list(dict.fromkeys(x for x in found if math.prod(p.count for p in x) == row))


def _mixed_lanes(
    facts: Facts, dim: str, free: Sequence[str], width: int
) -> list[tuple[Piece, ...]]:
    """A short reduced dim with the kept one next to it in memory: two rows of 8 at a time."""
    extent = facts.extents[dim]
    if not 1 < extent < width or extent & (extent - 1):
        return []
    found: dict[tuple[Piece, ...], None] = {}
    for load in facts.loads:
        for other in free:
            if load.stride(dim) == 1 and load.stride(other) == extent:
                found[(Piece(other, width // extent), Piece(dim, extent))] = None
    return list(found)


def _reducible_lanes(facts: Facts, limits: Limits) -> list[str]:
    """Reduced dims that may be lanes: folded by scalar ops in any order, walked unit stride."""
    out = []
    bounded = {b.dim for b in facts.nest.bounds}
    for dim in sorted(facts.reduced - facts.nested - facts.ordered - limits.single - bounded):
        folds = [i for i in facts.nest.code if isinstance(i, Fold) and dim in i.dims]
        plain = all(f.combine.fn is not None and f.combine.commutative for f in folds)
        if plain and any(load.stride(dim) == 1 for load in facts.loads):
            out.append(dim)
    return out


def packable(
    facts: Facts, lanes: Sequence[Piece], limits: Limits, target: Target
) -> frozenset[int]:
    """Loads in the reduction whose vectors are not contiguous and that are read often enough."""
    lane_dims = {p.dim for p in lanes}
    if not limits.may_pack or lane_dims & facts.reduced or facts.carried:
        return frozenset()
    known = facts.extents.keys() | limits.around
    out = set()
    for load in facts.loads:
        if limits.stay is not None and load.buffer not in limits.stay:
            continue
        kind = lane_kind(load.strides, load.loose, lanes)
        moving = frozenset(load.strides)
        if load.guarded or not moving & facts.reduced or facts.nested & moving:
            continue
        if not lane_dims <= moving or not frozenset(load.at.form.dims) <= known:
            continue
        if _is_cut(facts, moving) or not _has_few_places(facts, load):
            continue
        instr = facts.nest.code[load.ref]
        points = math.prod(facts.extents[d] for d in facts.kept) * math.prod(
            facts.extents[d] for d in facts.reduced & moving
        )
        reuse = points // packed_elements(facts, load, frozenset(moving)) * limits.packed_for
        scattered = kind in ("chunk", "gather", "reverse") and reuse >= 16
        if isinstance(instr, Load) and (
            scattered or (kind == "unit" and _is_far(facts, load, reuse, target))
        ):
            out.add(load.ref)
    return frozenset(out)


def _is_cut(facts: Facts, moving: frozenset[str]) -> bool:
    """Whether a bound of the reduction keeps a load within its array: a copy would not be."""
    return any(
        b.dim in moving and any(f.dims & moving for f in (*b.lo, *b.hi)) for b in facts.nest.bounds
    )


def _has_few_places(facts: Facts, load: Access) -> bool:
    """Whether the computed part of an address, if any, takes few values, all of them known."""
    if not load.loose:
        return True
    if len(load.at.dynamic) != 1 or not load.at.form.is_affine or load.loose & facts.reduced:
        return False
    instr = facts.nest.code[load.ref]
    assert isinstance(instr, Load)
    low, high = computed_places(facts.nest, instr)
    return high - low < MOST_PLACES


def _is_far(facts: Facts, load: Access, reuse: int, target: Target) -> bool:
    """Whether a panel should be copied though its vectors are contiguous.

    Rows a page or more apart meet in few cache sets, and so do nearer ones where there are many;
    rows that are no whole lines apart make most vector loads touch two lines, which pays for a copy
    only where there is much work.
    """
    rows = [abs(load.stride(d)) * load.bits // 8 for d in facts.reduced if load.stride(d)]
    steps = math.prod(facts.extents[d] for d in facts.reduced if load.stride(d))
    if steps < 64 or reuse < 128 or not rows:
        return False
    work = math.prod(facts.extents.values()) / 16
    width = PANEL * target.vector_bytes
    seen = min(1.0, width / math.gcd(min(rows), target.l2 // WAYS))  # share of the cache's sets
    crowded = seen < 1 and steps * width > seen * target.l2 / 2
    return min(rows) >= PAGE or crowded or (work > MUCH_WORK and any(r % LINE for r in rows))


def packing_cycles(
    facts: Facts, lanes: Sequence[Piece], packed: frozenset[int], target: Target
) -> float:
    """Cycles to copy the packed operands, those that no cache of a core holds at memory's pace."""
    total = 0.0
    lane_dims = frozenset(p.dim for p in lanes)
    for load in facts.loads:
        if load.ref in packed:
            elements = packed_elements(facts, load, lane_dims)
            cycles = elements * PACK[lane_kind(load.strides, load.loose, lanes)]
            moved = PASSES * elements * load.bits / 8
            slow = moved / target.dram_bytes_per_cycle if moved > 2 * target.l2 else 0.0
            total += max(cycles, slow)
    return total


@lru_cache(maxsize=1024)
def _products(choices: tuple[tuple[int, ...], ...], most: int) -> tuple[Counts, Counts]:
    """Every choice of counts of at most so many points, a row for each, and their points."""
    found = np.array(list(itertools.product(*choices)), np.int64)
    points = found.prod(axis=1)
    return found[points <= most], points[points <= most]


@lru_cache(maxsize=1024)
def _options(extent: int, most: int) -> tuple[int, ...]:
    """Tile sizes along a dim: divisors, and a few others that waste little."""
    out = []
    for t in range(1, min(extent, most) + 1):
        if extent % t == 0 or (
            t in (2, 3, 4, 6, 8, 12, 14) and -(-extent // t) * t <= extent * 1.13
        ):
            out.append(t)
    return tuple(out)


def tiled_dims(
    facts: Facts, limits: Limits, lanes: Sequence[Piece], forced: frozenset[str]
) -> list[str]:
    """Dims that a register tile may extend, the most useful first: lane dim, then near rows."""
    lane_dims = [p.dim for p in lanes]
    kept = [d for d in facts.kept if d not in facts.ordered and d not in limits.single]
    out = [d for d in lane_dims if d in kept and not _exhausted(facts, lanes, d)][:1]
    vectors = [a for a in facts.loads if lane_kind(a.strides, a.loose, lanes) != "splat"]

    def order(dim: str) -> tuple[bool, int, str]:
        reused = bool(vectors) and any(dim not in a.dims for a in vectors)
        stride = min((abs(s.stride(dim)) for s in facts.stores if s.stride(dim)), default=0)
        return (not reused, stride, dim)

    rows = [d for d in kept if d not in lane_dims and facts.extents[d] > 1 and d not in forced]
    return out + sorted(rows, key=order)[:3]


def _exhausted(facts: Facts, lanes: Sequence[Piece], dim: str) -> bool:
    covered = math.prod(p.count for p in lanes if p.dim == dim)
    return covered >= facts.extents[dim]


def tiles(facts: Facts, model: Model, lanes: Sequence[Piece], most: int) -> Counts:
    """Counts along the model's dims, a row for each tile."""
    lane_count = {d: math.prod(p.count for p in lanes if p.dim == d) for d in model.dims}
    choices: list[tuple[int, ...]] = []
    for dim in model.dims:
        n = lane_count[dim]
        if n > 1:
            vectors = -(-facts.extents[dim] // n)
            counts = (1, 2, 3, 4, 6) if model.latency else (1, 2, 4)
            last = (vectors,) if vectors == 5 and model.latency else ()
            choices.append((*(c for c in counts if c <= vectors), *last))
        else:
            choices.append(_options(facts.extents[dim], 16))
    found, points = _products(tuple(choices), most)
    least = min(FEW_POINTS, points.max(initial=1)) / 2
    least /= max(1.0, sum(g.sums for _, g in model.groups))
    if not model.latency:
        return found
    kept: Counts = found[(points >= least) | (found.max(axis=1, initial=1) == 1)]
    return kept


def choose_registers(facts: Facts, limits: Limits, target: Target) -> Choice:
    """The least predicted cycles over all candidates."""
    unrolled = unrolled_dims(facts)
    width = width_of(facts, target)
    best: Choice | None = None
    candidates = lane_candidates(facts, limits, width) if width > 1 else []
    candidates += _half_lanes(facts, limits, width, target, candidates)
    for lanes in candidates or [()]:
        whole = math.prod(p.count for p in lanes) == width
        ends = [None, *(end_candidates(facts, limits, lanes, width) if whole else ())]
        for end in ends:
            choice = _best_tile(facts, limits, lanes, unrolled, target, end)
            if best is None or choice.cost < best.cost * (1 - 1e-9):
                best = choice
    assert best is not None
    return best


def _half_lanes(
    facts: Facts,
    limits: Limits,
    width: int,
    target: Target,
    whole: Sequence[tuple[Piece, ...]],
) -> list[tuple[Piece, ...]]:
    """Lanes of half a vector along one dim each, where whole vectors of a product waste much."""
    if not target.takes_halves or width < 16 or not facts.reduced or facts.ordered:
        return []
    alone = [x for x in whole if len(x) == 1 and x[0].dim not in facts.reduced]
    half = [(Piece(p.dim, width // 2),) for (p,) in alone]
    return [
        x
        for x, y in zip(half, alone, strict=True)
        if _efficiency(x, facts.extents) > 1.1 * _efficiency(y, facts.extents)
    ]


def end_candidates(facts: Facts, limits: Limits, lanes: Sequence[Piece], width: int) -> list[str]:
    """Dims that the lanes may become when the values are stored: unit stride in every store.

    Reduced lanes are merged into them; in a map the loaded vectors are transposed, of a reduction
    the results.
    """
    if facts.carried or facts.ordered or len(facts.stores) == 0:
        return []
    dim = lanes[-1].dim
    others = [p.dim for p in lanes[:-1]]
    merges, is_map = dim in facts.reduced, not facts.reduced
    if (others and not merges) or len(others) > 1 or (limits.single and (merges or is_map)):
        return []
    if is_map and not any(a.stride(dim) == 1 and dim not in a.loose for a in facts.loads):
        return []
    out = []
    for end in others or facts.kept:
        if end in (dim, *limits.single) or facts.extents[end] < width:
            continue
        if facts.extents[end] % width and merges and not others:
            continue
        whole = all(s.stride(end) == 1 and end not in s.loose for s in facts.stores)
        if whole and not any(s.combines for s in facts.stores):
            out.append(end)
    return out


def _best_tile(
    facts: Facts,
    limits: Limits,
    lanes: tuple[Piece, ...],
    unrolled: frozenset[str],
    target: Target,
    end: str | None = None,
) -> Choice:
    """The best register tile for these lanes."""
    if end is not None:
        return _with_end(facts, limits, lanes, unrolled, end, target)
    packed = packable(facts, lanes, limits, target)
    # a dim summed inside and kept outside is a row of the tile, whole
    forced = frozenset(_forced(facts, unrolled))
    dims = tiled_dims(facts, limits, lanes, forced)
    model = build_model(facts, lanes, unrolled, dims, target, packed)
    looped = bool((facts.reduced | facts.carried) - unrolled)
    lane_dims = {p.dim: p.count for p in lanes}
    points = math.prod(facts.extents.values())
    least_cycles = points / math.prod(lane_dims.values()) / target.fma_per_cycle
    slow = limits.floor > SLOW_MEMORY * least_cycles
    weigh = _Traffic(facts, dims, lanes, looped, target, packed, slow)
    rest = math.prod(
        -(-facts.extents[d] // lane_dims.get(d, 1)) for d in facts.tiled if d not in dims
    )
    every = tiles(facts, model, lanes, MOST_POINTS if looped else 8)
    scored = scores(model, every, target)
    too_many = scored.registers > MOST_SPILLED * target.registers
    too_many &= every.max(axis=1, initial=1) > 1
    all_tiles = scored.cycles * weigh.factor(every) * rest
    costs = np.where(too_many, np.inf, limits.cost(all_tiles, scored.lines))
    first = int(np.argmax(costs <= costs.min(initial=np.inf) * (1 + 1e-9)))
    best = [int(c) for c in every[first]]
    won, cycles, least = scored[first], float(all_tiles[first]), float(costs[first])
    packing = packing_cycles(facts, lanes, packed, target) / limits.packed_for
    vectors = {d: -(-facts.extents[d] // lane_dims.get(d, 1)) for d in sorted(forced)}
    whole = tuple(Piece(d, n) for d, n in vectors.items() if n > 1)
    steps = {d: c * lane_dims.get(d, 1) for d, c in zip(dims, best, strict=True)}
    tile = tuple(Piece(d, c) for d, c in zip(dims, best, strict=True) if c > 1)
    return Choice(
        lanes,
        (*whole, *_outer_first(facts, lanes, tile)),
        unrolled - forced,
        cycles + packing,
        least + packing * limits.runs,
        won.copies,
        won.accumulators,
        tuple(sorted(packed)),
        lane_dims | steps | {d: facts.extents[d] for d in forced},
        won.step_lines,
        per_cycle=max(1.0, target.fma_per_cycle),
        flat=won.flat,
    )


def _outer_first(facts: Facts, lanes: Sequence[Piece], tile: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces of a tile in the order of its points. Those that move vectors vary fastest: then
    all vectors stay in registers, and of single elements, in all lanes, one at a time."""
    inner = [a for a in facts.loads if a.dims & facts.reduced]
    splats = [a for a in inner if lane_kind(a.strides, a.loose, lanes) == "splat"]
    single = frozenset[str]().union(*(a.dims for a in splats))
    last = [p for p in reversed(tile) if p.dim not in single]
    return (*(p for p in reversed(tile) if p.dim in single), *last)


def _with_end(
    facts: Facts,
    limits: Limits,
    lanes: tuple[Piece, ...],
    unrolled: frozenset[str],
    end: str,
    target: Target,
) -> Choice:
    """A square tile whose lanes change before it is stored: `width` vectors along the end's dim."""
    piece = lanes[-1]
    width = math.prod(p.count for p in lanes)
    merged = piece.dim in facts.reduced
    vectors = piece.count if merged else width
    packed = frozenset[int]()
    if merged:
        model = build_model(facts, lanes, unrolled, (end,), target, merged=vectors)
    elif facts.reduced:
        packed = packable(facts, lanes, limits, target)
        to = (Piece(end, width),)
        model = build_model(facts, lanes, unrolled, (end,), target, packed, end=to)
    else:
        turned = frozenset(
            a.ref
            for a in facts.loads
            if a.stride(piece.dim) == 1 and a.stride(end) != 1 and not a.loose
        )
        to = (Piece(end, width),)
        model = build_model(facts, to, unrolled, (piece.dim,), target, turned=turned)
    one = score(model, [vectors], target)
    number = float(math.prod(facts.extents[d] for d in facts.kept if d not in (end, piece.dim)))
    if not merged:
        number *= -(-facts.extents[piece.dim] // width)
    if merged or not facts.reduced:
        number *= -(-facts.extents[end] // width)
    else:  # compared with other tiles of products
        weigh = _Traffic(facts, (end,), lanes, True, target, packed, False)
        number *= float(weigh.factor(np.array([[vectors]]))[0])
    packing = packing_cycles(facts, lanes, packed, target) / limits.packed_for
    cost = float(limits.cost(np.array(number * one.cycles), np.array(one.lines)))
    return Choice(
        lanes,
        (Piece(end, vectors),),
        unrolled,
        number * one.cycles + packing,
        cost + packing * limits.runs,
        1,
        vectors,
        tuple(sorted(packed)),
        {piece.dim: piece.count, end: width},
        one.step_lines,
        (Piece(end, width),),
        max(1.0, target.fma_per_cycle),
        flat=one.flat,
    )


class _Tiled(NamedTuple):
    """What counts of a dim that a tile may extend. Read for every candidate.

    streams: all vectors vary along it; alias: which share of the rows of single elements meets in
    one set of the first cache; beside: the same of vectors, for each load of them; near: what it
    costs that a cache line is read in two tiles; far: what it costs that rows of large arrays are
    walked side by side, for each doubling of their number.
    """

    extent: int
    lanes: int
    is_lane: bool
    streams: bool
    alias: float
    beside: tuple[float, ...]
    near: float
    far: float


class _Traffic:
    """How many tiles there are, with small preferences: few panel reads for each FMA, few streams,
    no rows that meet in one cache set, remainders avoided."""

    def __init__(
        self,
        facts: Facts,
        dims: Sequence[str],
        lanes: Sequence[Piece],
        looped: bool,
        target: Target,
        packed: frozenset[int],
        slow: bool,
    ) -> None:
        lane = {p.dim: p.count for p in lanes}
        inner = [a for a in facts.loads if a.dims & facts.reduced]
        vectors = [a for a in facts.loads if any(a.stride(d) for d in lane)]
        rows = [a for a in inner if lane_kind(a.strides, a.loose, lanes) == "splat"]
        read = [a for a in inner if a not in rows and a.ref not in packed]
        self.looped = looped
        self.ways = 0.75 * target.l1 / PAGE
        wide = [a for a in (*facts.loads, *facts.stores) if _span(facts, a) > target.l2]
        line = pipes_of(target).line
        self.column = 0.15 if any(a in wide for a in rows) else 0.04
        once = [a for a in rows if a in wide and _readers(facts, a) <= MOST_READERS]
        self.uneven = 1.2 if once else 1.01  # a loop around the nest: nothing is asked for ahead
        self.dims = [
            _Tiled(
                facts.extents[d],
                lane.get(d, 1),
                d in lane,
                streams=bool(vectors) and all(d in a.dims for a in vectors),
                alias=max((_alias(a.stride(d) * a.bits // 8) for a in rows), default=0),
                beside=tuple(_alias(a.stride(d) * a.bits // 8) for a in read),
                near=max(
                    (_shared_line(a, d, line if a in wide else 0.02) for a in rows), default=0
                ),
                far=_beside(d, [a for a in wide if a in vectors or not looped], looped, slow),
            )
            for d in dims
        ]

    def factor(self, counts: Counts) -> Floats:
        """Tiles times preferences, for each row of counts."""
        factor, meeting, rows, columns = np.ones((4, len(counts)))
        crowds = np.ones((len(self.dims[0].beside) if self.dims else 0, len(counts)))
        for dim, count in zip(self.dims, counts.T, strict=True):
            extent, lanes, is_lane, streams, alias, beside, near, far = dim
            step = count * lanes
            factor *= -(-extent // step)
            factor *= np.where(extent % step, 1.01 if is_lane else self.uneven, 1.0)
            if is_lane:
                columns *= count
                continue
            rows *= count
            doubled = np.log2(count)
            if near:  # what is left of each cache line is fetched again
                factor *= 1 + near * np.maximum(0.0, math.log2(extent) - doubled)
            meeting *= np.maximum(1.0, count * alias)
            crowds *= np.maximum(1.0, np.outer(beside, count))
            if streams:
                factor *= 1 + 0.03 * doubled
            if far:  # rows of memory side by side: few vectors of each, where one stream is fastest
                factor *= 1 + far * doubled
        factor *= 1 + 0.04 * np.maximum(0.0, meeting - 6)
        # vectors that the next steps would find in the first cache
        crowd = 1 + (crowds - 1).sum(axis=0)
        factor *= 1 + 0.1 * np.maximum(0.0, crowd - self.ways)
        return factor * (1 + 0.06 / rows + self.column / columns) if self.looped else factor


def _beside(dim: str, wide: Sequence[Access], looped: bool, slow: bool) -> float:
    """What rows side by side along a dim cost; of a reduction where memory is `slow`, less where
    all of them lie within a page."""
    far = max((abs(a.stride(dim)) * a.bits // 8 for a in wide), default=0)
    if far < LINE or (looped and not slow):
        return 0.0
    return 0.5 if not looped else 0.15 if far >= PAGE else 0.06


def _span(facts: Facts, access: Access) -> int:
    """Bytes from the first element that an access touches to the last."""
    steps = (abs(access.stride(d)) * (n - 1) for d, n in facts.extents.items())
    return (sum(steps) + 1) * access.bits // 8


def _readers(facts: Facts, access: Access) -> int:
    """How many results read each element of a row."""
    return math.prod(facts.extents[d] for d in facts.kept if d not in access.dims)


def _shared_line(access: Access, dim: str, cost: float) -> float:
    """What it costs that neighbours along a dim are read by different tiles: nothing, where they
    lie in different lines."""
    return cost if 0 < abs(access.stride(dim)) * access.bits // 8 < LINE else 0.0


def _alias(stride: int) -> float:
    """Which share of rows this many bytes apart falls into one set of the first cache."""
    stride = abs(stride)
    return math.gcd(stride, PAGE) / PAGE if stride >= 64 else 0.0
