"""The schedule of one nest: its form (guards or bounds), lanes and tile, order of loops, unrolling.

nest b=4 i=144 j=16              ->   lanes j16, tile i16, end lanes i16, loops b i
  store s[i] = fold add {j} e[b, i, j]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from summand.loops.nodes import Buffer, Guard, Load, Nest, Piece, Ref, Schedule
from summand.options import Target
from summand.schedule.accesses import Access, Facts, analyse
from summand.schedule.cost import lane_kind
from summand.schedule.guards import drop_true_guards, free_forms, guards_to_bounds
from summand.schedule.moves import (
    buffers_of,
    drop_unit_dims,
    merge_dims,
)
from summand.schedule.order import tile_order
from summand.schedule.pack import LINE, packed_elements
from summand.schedule.registers import Choice, Limits, choose_registers

MOST_UNROLL = 32  # cycles of operations on accumulators in the innermost loop
MOST_LINES = 200  # of code there
MUCH_WORK = 1e7  # points of a nest from which more forms of it are tried
SLOW_MEMORY = 200_000.0  # cycles from which moving the bytes counts: about the second cache


def is_plain(nest: Nest) -> bool:
    """Whether there is something to schedule: points, stores, and no schedule yet."""
    return all(n > 0 for _, n in nest.dims) and bool(nest.stores) and nest.schedule is None


def best_form(
    nest: Nest, bits: Mapping[str, int], limits: Limits, target: Target
) -> tuple[Facts, Choice]:
    """With guards as bounds of the reduction, or as they are, or (where there is much work) with
    one of them as a bound: what costs less. No tile extends a dim that a bound reads."""
    best: tuple[Facts, Choice] | None = None
    forms = [guards_to_bounds(nest), nest]
    if math.prod(nest.extents.values()) > MUCH_WORK:
        guards = dict.fromkeys(g for i in nest.code if isinstance(i, Load) for g in i.at.guards)
        forms += [guards_to_bounds(nest, g) for g in guards if len(guards) < 4]
    for form in dict.fromkeys(forms):
        facts = analyse(form, bits)
        here = replace(limits, single=limits.single | free_forms(form))
        choice = choose_registers(facts, here, target)
        if best is None or choice.cost < best[1].cost:
            best = facts, choice
    assert best is not None
    facts, choice = best
    return facts, replace(choice, order=_order(facts, choice, target))


def _order(facts: Facts, choice: Choice, target: Target) -> tuple[str, ...]:
    """The order of a reduction's tiles, where the usual one would fetch much again and again."""
    if is_map(facts, choice) or facts.ordered:
        return ()
    panels = sum(packed_bytes(facts, choice).values())
    if panels > target.l1:  # what walks panels stays with one as long as it can
        return ()
    default = [d for d in _ordered_loops(facts, choice) if d in facts.kept]
    loads = tuple(a for a in facts.loads if a.ref not in choice.packed)
    read = replace(facts, loads=loads)
    return tile_order(read, choice.steps, default, choice.cycles, target, panels)


def packed_bytes(facts: Facts, choice: Choice) -> dict[Ref, int]:
    """Bytes of each packed operand."""
    lanes = frozenset(p.dim for p in choice.lanes)
    packed = (a for a in facts.loads if a.ref in choice.packed)
    return {a.ref: packed_elements(facts, a, lanes) * a.bits // 8 for a in packed}


def memory_floor(facts: Facts, target: Target) -> float:
    """Cycles that moving a nest's bytes takes, where they are too many for the cache."""
    floor = bytes_moved(facts) / target.dram_bytes_per_cycle
    return floor if floor > SLOW_MEMORY else 0.0


def scheduled_nest(
    nest: Nest, buffers: Mapping[str, Buffer], target: Target, runs: int = 1
) -> Nest:
    """The nest in the form that costs least, with its schedule; it runs `runs` times."""
    if not is_plain(nest):
        return nest if nest.schedule else replace(nest, schedule=Schedule(loops=_loop_order(nest)))
    touched = buffers_of(nest)
    known = tuple(sorted((b for b in buffers.values() if b.name in touched), key=_name))
    return _scheduled_nest(nest, known, target, 1 << (runs.bit_length() & ~1))


def _name(buffer: Buffer) -> str:
    return buffer.name


@lru_cache(maxsize=4096)
def _scheduled_nest(nest: Nest, buffers: tuple[Buffer, ...], target: Target, runs: int) -> Nest:
    widths = {b.name: b.dtype.bits for b in buffers}
    facts, choice = best_form(simplified(nest), widths, Limits(runs=runs), target)
    streaming = streams(facts, choice, {b.name: b for b in buffers}, target)
    return replace(facts.nest, schedule=build_schedule(facts, choice, streaming))


def with_cycles(
    nest: Nest, bits: Mapping[str, int], target: Target, runs: int
) -> tuple[Nest, float]:
    """The nest with its schedule, and the cycles of one run; there are `runs`."""
    facts, choice = best_form(simplified(nest), bits, Limits(runs=runs), target)
    return replace(facts.nest, schedule=build_schedule(facts, choice)), choice.cycles


def simplified(nest: Nest) -> Nest:
    """The nest with fewer guards and dims, and longer ones."""
    return merge_dims(drop_true_guards(drop_unit_dims(nest)))


def _loop_order(nest: Nest) -> tuple[str, ...]:
    facts = analyse(nest)
    kept = [d for d in facts.kept if d not in facts.ordered]
    ordered = [d for d, _ in nest.dims if d in facts.ordered and d not in facts.reduced]
    reduced = [d for d, _ in nest.dims if d in facts.reduced]
    return (*kept, *ordered, *reduced)


# ---- from lanes and tile to a Schedule


def build_schedule(facts: Facts, choice: Choice, streaming: bool = False) -> Schedule:
    """Order the loops, unroll the innermost and put the pieces together."""
    unroll, tiled = _unrolling(facts, choice)
    steps = dict(choice.steps)
    lanes = {p.dim: p.count for p in choice.lanes}
    for p in unroll:
        tile_count = next((t.count for t in tiled if t.dim == p.dim), 1)
        steps[p.dim] = p.count * lanes.get(p.dim, 1) * tile_count
    loops = [d for d in _ordered_loops(facts, choice) if steps.get(d, 1) < facts.extents[d]]
    return Schedule(
        lanes=choice.lanes,
        tile=tiled,
        unroll=unroll,
        loops=tuple(loops),
        end_lanes=choice.end_lanes,
        copies=_copies(facts, choice, unroll),
        streaming=streaming,
    )


def is_map(facts: Facts, choice: Choice) -> bool:
    """Whether no loop of the nest folds or carries anything."""
    return not (facts.reduced | facts.carried) - choice.unrolled


def _unrolling(facts: Facts, choice: Choice) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Pieces to unroll in the innermost loop, and the register tile that is left."""
    width = {p.dim: p.count for p in choice.lanes}
    whole = {d: -(-facts.extents[d] // width.get(d, 1)) for d in sorted(choice.unrolled)}
    inner = tuple(Piece(d, n) for d, n in whole.items() if n > 1)
    if choice.end_lanes and not facts.reduced:
        return inner, choice.tile
    if is_map(facts, choice):
        kept_whole = [p for p in choice.tile if p.dim in facts.reduced]
        free = [p for p in choice.tile if p.dim not in facts.reduced]
        return (*free, *inner), tuple(kept_whole)
    last = _innermost(facts, choice)
    if last is None:
        return inner, choice.tile
    lanes = {p.dim: p.count for p in choice.lanes}
    short = _short_reduction(facts, choice, lanes)
    if short:
        return (*short, *inner), choice.tile
    vectors = -(-facts.extents[last] // lanes.get(last, 1))
    busy = max(1, choice.accumulators) * math.prod(p.count for p in inner)
    copies = choice.copies

    def most(count: int) -> float:
        cycles = 2 * MOST_UNROLL if count == vectors else MOST_UNROLL  # no loop is left
        return cycles * choice.per_cycle

    fits = [
        t
        for t in range(1, 17)
        if (vectors % t == 0 or (lanes.get(last) and t <= 4 and t < vectors))
        and ((t * busy <= most(t) and t * choice.step_lines <= MOST_LINES) or t <= 1)
    ]
    good = [t for t in fits if t % copies == 0] or fits
    count = max(good) if vectors <= 16 or busy * max(good) <= most(max(good)) else 1
    count = min(count, max(4, copies)) if vectors > 16 else count
    if any(last in facts.deps[r] for a in facts.loads for g in a.at.guards for r, _ in g.dynamic):
        count = 1  # a step asks once for all its vectors whether they are in range
    pieces = (Piece(last, count),) if count > 1 else ()
    return (*pieces, *inner), choice.tile


def _short_reduction(facts: Facts, choice: Choice, lanes: Mapping[str, int]) -> tuple[Piece, ...]:
    """All reduced dims, where they are so short together that no loop is wanted."""
    rest = [d for d in reduction_order(facts, choice) if d not in choice.unrolled]
    counts = [-(-facts.extents[d] // lanes.get(d, 1)) for d in rest]
    points = math.prod(counts)
    if facts.nest.bounds or facts.carried or (points > 8 and not choice.flat):
        return ()
    if points * choice.step_lines > 3 * MOST_LINES:
        return ()
    return tuple(Piece(d, n) for d, n in zip(rest, counts, strict=True) if n > 1)


def _innermost(facts: Facts, choice: Choice) -> str | None:
    """The reduced dim of the innermost loop, where it can be unrolled."""
    bounded = {b.dim for b in facts.nest.bounds}
    lanes = {p.dim: p.count for p in choice.lanes}
    loops = [d for d in _ordered_loops(facts, choice) if lanes.get(d, 0) < facts.extents[d]]
    single = bounded | facts.carried
    if not loops or loops[-1] not in facts.reduced - choice.unrolled - single:
        return None
    return loops[-1] if facts.extents[loops[-1]] > 1 else None


def _copies(facts: Facts, choice: Choice, unroll: Sequence[Piece]) -> int:
    last = _innermost(facts, choice)
    count = next((p.count for p in unroll if p.dim == last), 1)
    return min(choice.copies, count)


def _ordered_loops(facts: Facts, choice: Choice) -> list[str]:
    """Every dim, outer first: kept ones, ordered ones, then reduced ones."""
    kept = [d for d in facts.kept if d not in facts.ordered]
    far = {d: reach(facts.stores or facts.loads, d) for d in kept}
    beside = columns_of(facts, choice)
    rows = sorted((d for d in kept if d not in beside), key=lambda d: -far[d])
    columns = sorted((d for d in kept if d in beside), key=lambda d: -far[d])
    if choice.order:
        return [*_in_order(kept, choice.order), *reduction_order(facts, choice)]
    through = is_map(facts, choice) or choice.flat  # memory is walked once, in its own order
    outer = [*rows, *columns] if through else [*columns, *rows]
    if through and len(choice.lanes) > 1 and not choice.end_lanes:
        outer.sort(key=lambda d: -far[d])  # lanes of several dims need not be what is nearest
    ordered = [d for d, _ in facts.nest.dims if d in facts.ordered and d not in facts.reduced]
    if ordered and not facts.carried:  # nothing stays in registers from one to the next
        least = max(reach(facts.loads, d) for d in ordered)
        above = [d for d in outer if reach(facts.loads, d) >= least]
        ordered += [d for d in outer if d not in above]
        outer = above
    return [*outer, *ordered, *reduction_order(facts, choice)]


def _in_order(dims: Sequence[str], order: Sequence[str]) -> list[str]:
    """Dims as they are ordered; those that have no place there innermost."""
    return sorted(dims, key=lambda d: order.index(d) if d in order else len(order))


def columns_of(facts: Facts, choice: Choice) -> frozenset[str]:
    """Dims that a product walks outside of the others: those of the lanes, and those that move
    its vectors but no single element, so that a panel of vectors is read again while it is near."""
    lanes = frozenset(p.dim for p in choice.lanes)
    inner = [a for a in facts.loads if a.dims & facts.reduced]
    vectors = [a for a in inner if a.ref in choice.packed]
    others = [a for a in inner if a.ref not in choice.packed]
    if not vectors:
        return lanes
    moved = frozenset.intersection(*(a.dims for a in vectors))
    return lanes | moved.difference(facts.reduced, *(a.dims for a in others))


def reach(accesses: Sequence[Access], dim: str) -> int:
    """The greatest stride along a dim."""
    return max((abs(a.stride(dim)) for a in accesses), default=0)


def reduction_order(facts: Facts, choice: Choice) -> list[str]:
    """Reduced dims, farthest stride outermost; lanes innermost; a bound's dims outside of it.

    Outermost of all are those on which masks of single lanes depend, so that masks leave the loop;
    but for masks that few tiles need.
    """
    lanes = {p.dim for p in choice.lanes}
    masked = {
        d
        for a in facts.loads
        if a.ref not in choice.packed
        for g in a.at.guards
        if g.form.dims & lanes and not _seldom_fails(facts, choice, g)
        for d in g.form.dims.union(*(facts.deps[r] for r, _ in g.dynamic))
    }
    rows = [
        a
        for a in facts.loads
        if a.dims & facts.reduced
        and lane_kind(a.strides, a.loose, choice.lanes) == "splat"
        and a.ref not in choice.packed
    ]
    chosen = rows or facts.loads
    order = [d for d, _ in facts.nest.dims if d in facts.reduced]
    order.sort(key=lambda d: (d in facts.nested, d in lanes, d not in masked, -reach(chosen, d)))
    bounds = {b.dim: {d for f in (*b.lo, *b.hi) for d in f.dims} for b in facts.nest.bounds}
    out: list[str] = []
    while order:
        ready = [d for d in order if not bounds.get(d, set()) & set(order) - {d}]
        out.append((ready or order)[0])
        order.remove(out[-1])
    return out


def _seldom_fails(facts: Facts, choice: Choice, guard: Guard) -> bool:
    """Whether a guard holds throughout most register tiles."""
    inside = {d: facts.extents[d] for d in guard.form.dims if d in facts.extents}
    inside |= {d: min(n, choice.step(d)) for d, n in inside.items() if d in facts.kept}
    span = sum(abs(guard.form.coefficient(d)) * (n - 1) for d, n in inside.items())
    return guard.form.is_affine and not guard.dynamic and 4 * span < guard.size


def bytes_moved(facts: Facts) -> float:
    """Bytes that a nest moves, each buffer once."""
    moved: dict[str, float] = {}
    for access in (*facts.loads, *facts.stores):
        points = math.prod(facts.extents[d] for d in access.dims) * access.bits / 8
        moved[access.buffer] = max(moved.get(access.buffer, 0.0), points)
    return sum(moved.values())


def streams(facts: Facts, choice: Choice, buffers: Mapping[str, Buffer], target: Target) -> bool:
    """Whether stores bypass the cache: whole aligned vectors, to more than the cache holds; and
    whole lines, where a reduction lies between one tile and the next."""
    stored = choice.end_lanes or choice.lanes
    lanes = {p.dim for p in stored}
    width = math.prod(p.count for p in stored)
    loaded = {a.buffer for a in facts.loads}
    for store in facts.stores:
        buffer = buffers[store.buffer]
        kind = lane_kind(store.strides, store.loose, stored)
        others = [c for a, c in store.at.form.terms if a not in lanes]
        aligned = all(c % width == 0 for c in others) and store.at.form.const % width == 0
        small = buffer.size * buffer.dtype.bytes <= target.l3 // 2
        if small or buffer.memory != "global" or store.combines or store.buffer in loaded:
            return False
        uneven = any(facts.extents[p.dim] % p.count for p in stored)
        run = width * (choice.step(stored[-1].dim) // stored[-1].count) if stored else 1
        if not is_map(facts, choice) and run * store.bits // 8 % LINE:
            return False
        if kind != "unit" or not aligned or uneven:
            return False
    return bool(facts.stores)
