"""The default schedule of every kernel: lanes, register tile, packing, order of loops, tasks.

    kernel from lowering (no schedule)  ->  packing kernels, the kernel with grid and schedules

A kernel of one nest may still be tiled and packed (`_whole`); one of several nests keeps the tile
loops and the grid that lowering gave it, and each of its nests gets a schedule. The choice is
analytic (`cost.py`): no search, no measurement, and the same on every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from summand.ir.index import Form
from summand.loops.nodes import Buffer, Kernel, Let, Loop, Nest, Ref, Schedule, Stmt, When
from summand.options import Target
from summand.schedule.accesses import Access, Facts, analyse
from summand.schedule.ahead import (
    TASKS,
    coarsen,
    copy_ahead,
    fetch_ahead,
    rows_ahead,
    several_reads,
    stream_ahead,
    tile_loop,
)
from summand.schedule.beside import side_by_side
from summand.schedule.block import block_reduction, blockable_folds, blocks_of, blocks_wanted
from summand.schedule.copies import copies_wanted, is_scatter, private_copies
from summand.schedule.grid import (
    Operands,
    Unit,
    contraction_tasks,
    free_units,
    spread,
    task_goal,
)
from summand.schedule.guards import narrowed
from summand.schedule.moves import (
    Chain,
    chain_of,
    folded_dims,
    is_free,
    nests_of,
    separate,
)
from summand.schedule.nests import (
    best_form,
    build_schedule,
    bytes_moved,
    is_map,
    is_plain,
    memory_floor,
    packed_bytes,
    reach,
    reduction_order,
    scheduled_nest,
    simplified,
    streams,
)
from summand.schedule.order import fetched_again, held_up
from summand.schedule.pack import (
    LINE,
    is_driven_out,
    pack_in_task,
    slab_bytes,
)
from summand.schedule.pack_steps import pack_for_steps
from summand.schedule.panels import (
    apart,
    lane_dims,
    packed_ahead,
    packed_order,
    tile_cycles,
    tile_loops,
)
from summand.schedule.partials import find_cut, split_reduction
from summand.schedule.registers import Choice, Limits, width_of
from summand.schedule.rims import cut_rims
from summand.schedule.staged import walk
from summand.schedule.tails import cut_tails, shorten_last
from summand.schedule.together import in_phases, independent

LONG_TILE = 1000.0  # cycles between two stores to a line that two cores share, which then are cheap
FEWEST_TASKS = 16  # with fewer than half of these a long reduction is split
MOST_PARTS = 32
ROW_BYTES = 1024  # rows at least this far apart are read one after the other
ROWS = 8  # that are read together
LONG_ROW = 1024  # elements of a scatter's row that tasks may share out
MOST_COPIES = 1.3  # of an operand that tasks pack for themselves
AGAIN = 0.3  # of the arithmetic's time, for fetching strips once for each tile
SLAB_BYTES = 4.0  # what a byte costs that each task copies before it reads it


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Kernels to launch in this order, and the global temporaries between them.

    Parameters keep the names of the original kernel's; others are the `temporaries`.
    """

    kernels: tuple[Kernel, ...]
    temporaries: tuple[Buffer, ...] = ()


def schedule_kernel(kernel: Kernel, target: Target, in_rounds: bool = False) -> Scheduled:
    """Choose grid, packing and the schedule of every nest. `in_rounds`: the grid has one dim, and
    each position of it is a launch, which is spread over tasks."""
    chain = chain_of(kernel)
    if in_rounds and chain is not None and not chain.levels and is_plain(chain.nest):
        return _whole(chain, target, packing=False)
    if kernel.grid:
        return _each_nest(kernel, target, packing=not in_rounds)
    parts = separate(kernel)
    done = [_schedule_one(k, target) for k in parts]
    temporaries = tuple(t for s in done for t in s.temporaries)
    if len(done) > 1 and independent(parts):
        merged = in_phases([s.kernels for s in done])
        if merged is not None:
            return Scheduled(merged, temporaries)
    return Scheduled(tuple(k for s in done for k in s.kernels), temporaries)


def _schedule_one(kernel: Kernel, target: Target) -> Scheduled:
    chain = chain_of(kernel)
    if chain is None or chain.levels or not is_plain(chain.nest):
        return _each_nest(kernel, target)
    return _whole(chain, target)


# ---- kernels of several nests


def _each_nest(kernel: Kernel, target: Target, packing: bool = True) -> Scheduled:
    buffers = {b.name: b for b in (*kernel.params, *kernel.scratch)}
    dim = None
    if several_reads(kernel):
        kernel, dim = coarsen(kernel, TASKS)
        dim = dim or tile_loop(kernel)
    before: tuple[Kernel, ...] = ()
    temporaries: tuple[Buffer, ...] = ()
    if packing:  # a round reads what the one before has made
        before, kernel, temporaries = pack_for_steps(kernel, target)
    runs = math.prod(n for _, n in kernel.grid)
    kernel = replace(kernel, body=_scheduled(kernel.body, buffers, target, runs))
    if dim is not None:
        kernel = fetch_ahead(kernel, dim, target)
    return Scheduled((*before, kernel), temporaries)


def _scheduled(
    body: tuple[Stmt, ...],
    buffers: Mapping[str, Buffer],
    target: Target,
    runs: int = 1,
) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for stmt in body:
        match stmt:
            case Nest():
                out.append(_scheduled_piece(stmt, buffers, target, runs))
            case Loop() | Let():
                often = runs * stmt.extent if isinstance(stmt, Loop) else runs
                inner = _scheduled(stmt.body, buffers, target, often)
                out.append(replace(stmt, body=inner))
            case When():
                inner = _scheduled(stmt.body, buffers, target, runs)
                out.append(replace(stmt, body=inner))
            case _:
                assert_never(stmt)
    return tuple(out)


def _scheduled_piece(nest: Nest, buffers: Mapping[str, Buffer], target: Target, runs: int) -> Stmt:
    narrow = narrowed(nest, target.lanes(32)) if is_plain(nest) else nest
    if isinstance(narrow, Nest):
        return scheduled_nest(narrow, buffers, target, runs)
    assert isinstance(narrow, Loop)
    inner = _scheduled(narrow.body, buffers, target, runs * narrow.extent)
    return replace(narrow, body=inner)


# ---- kernels of one nest


def _whole(
    chain: Chain, target: Target, part: frozenset[str] = frozenset(), packing: bool = True
) -> Scheduled:
    """Choose everything for a kernel that is one nest. `part`: its reduction is split already.
    Without `packing` it stays one kernel."""
    bits = {b.name: b.dtype.bits for b in chain.kernel.params}
    if chain.nest.ordered and not folded_dims(chain.nest):
        chain = _batches_in_tasks(chain)
    nest = simplified(chain.nest)
    limits = Limits(part, may_pack=packing, floor=memory_floor(analyse(nest, bits), target))
    facts, choice = best_form(nest, bits, limits, target)
    parts = None if part or not packing else _in_parts(chain.kernel, facts, choice, target)
    if parts is None and packing:
        parts = _in_copies(chain, facts, choice, target)
    if parts is not None:
        return parts
    facts, choice = side_by_side(facts, choice, bits, target)
    chain = chain.with_nest(facts.nest)
    if not facts.extents:
        return Scheduled((chain.with_nest(replace(facts.nest, schedule=Schedule())).kernel_of(),))
    chain = tile_loops(chain, facts, choice, target)
    inside, least = _packed_in_tasks(chain, facts, choice, target)
    whole, chosen = facts, choice
    chain, facts, choice = apart(chain, facts, choice)
    outside = [r for r in choice.packed if r not in inside]
    chain, before, temporaries = packed_ahead(chain, facts, choice, outside, target)
    chain = _in_tasks(chain, whole, chosen, target, least)
    for ref in inside:
        order = packed_order(facts, choice, ref)
        aligned = width_of(facts, target)
        chain = _copied_in_task(chain, ref, order, aligned, target, lane_dims(choice))
    chain = _slabs(_blocks(chain, facts, choice, target), facts, choice, target, temporaries)
    final = analyse(chain.nest, bits | {b.name: b.dtype.bits for b in chain.kernel.scratch})
    buffers = {b.name: b for b in (*chain.kernel.params, *chain.kernel.scratch)}
    bypass = packing and streams(final, choice, buffers, target)  # a round reads what one has made
    schedule = build_schedule(final, choice, bypass)
    nest = stream_ahead(replace(chain.nest, schedule=schedule), buffers, target)
    around = {v.dim: v.extent for v in chain.levels if isinstance(v, Loop)}
    kernel = chain.with_nest(rows_ahead(nest, buffers, target, around)).kernel_of()
    # panels are all as wide, so little was won there; nor where memory is waited for
    if not chosen.packed and chosen.cycles >= limits.floor:
        kernel = shorten_last(kernel, chosen.cycles, target)
    kernel = cut_tails(cut_rims(kernel, target))
    return Scheduled((*before, kernel), tuple(temporaries))


def _batches_in_tasks(chain: Chain) -> Chain:
    """Independent scatters (or recurrences) beside each other become tasks, before their dims can
    end up in registers."""
    nest = chain.nest
    apart = [
        d
        for d, _ in nest.dims
        if is_free(nest, d)
        and any(s.at.dynamic for s in nest.stores)
        and all(
            abs(s.at.form.coefficient(d)) > abs(f) for s in nest.stores for _, f in s.at.dynamic
        )
    ]
    goal = task_goal(math.prod(nest.extents.values()))
    return spread(chain, free_units(chain, apart, {}), goal) if apart else chain


def _in_parts(kernel: Kernel, facts: Facts, choice: Choice, target: Target) -> Scheduled | None:
    """The reduction split over tasks, where there are too few results to spread."""
    goal = task_goal(_work(facts, choice, target))
    kept = [d for d in facts.kept if d not in facts.ordered]
    tasks = math.prod(-(-facts.extents[d] // choice.step(d)) for d in kept)
    if is_column_stream(facts, choice, target):
        tasks = math.prod(facts.extents[d] for d in kept if reach(facts.loads, d) != 1)
    plain = not choice.packed and not any(a.loose for a in facts.loads)
    again = fetched_again(facts, choice.steps, target) if plain else 0.0
    if again > AGAIN * choice.cycles:
        tasks = 1  # all tiles read the same strips, part by part
    if goal < 4 or tasks * 2 > min(goal, FEWEST_TASKS):
        return None
    results = sum(math.prod(facts.extents[d] for d in s.dims) for s in facts.stores)
    cut = find_cut(facts, min(goal, MOST_PARTS) // tasks)
    if cut is None or results * cut.parts > _work(facts, choice, target) / 5:
        return None
    split = split_reduction(kernel, facts, cut)
    alone = frozenset((split.part,))
    done = [_whole(Chain(k, (), nests_of(k.body)[0]), target, alone) for k in split.kernels]
    kernels = tuple(k for s in done for k in s.kernels)
    inner = tuple(t for s in done for t in s.temporaries)
    return Scheduled(kernels, (*split.temporaries, *inner))


def _in_copies(chain: Chain, facts: Facts, choice: Choice, target: Target) -> Scheduled | None:
    """A scatter that each task does into a copy of its own, where one task would do all of it."""
    if not is_scatter(facts.nest):
        return None
    work, parts = _work(facts, choice, target), 1
    goal = task_goal(work)
    apart = [d for d in facts.kept if d not in _row_dims(facts) and is_free(facts.nest, d)]
    tasks = math.prod(-(-facts.extents[d] // choice.step(d)) for d in apart)
    if facts.reduced and tasks * 2 > min(goal, FEWEST_TASKS):
        return None
    if not (chain.levels or chain.kernel.grid or _is_long(facts, _dims_below(facts))):
        parts = copies_wanted(facts.nest, chain.kernel, work, goal)
    if parts < 2:
        return _in_pieces(chain, facts.nest, target)
    split = private_copies(chain.kernel, facts.nest, parts)
    done = [schedule_kernel(k, target) for k in split.kernels]
    return Scheduled(tuple(k for s in done for k in s.kernels), split.temporaries)


def _in_pieces(chain: Chain, nest: Nest, target: Target) -> Scheduled | None:
    """A scatter by one task that computes what it reads before, if it had better."""
    if len(nest.ordered) != 1:
        return None
    (dim,) = nest.ordered
    extent = nest.extents[dim]
    pieces = walk(nest, dim, Form(), extent, extent)
    if not pieces.scratch:
        return None
    kernel = replace(chain.with_nest(nest).kernel_around(pieces.body), scratch=pieces.scratch)
    return _each_nest(kernel, target)


def _work(facts: Facts, choice: Choice, target: Target) -> float:
    """Cycles of one core, arithmetic or memory."""
    return max(choice.cycles, bytes_moved(facts) / target.dram_bytes_per_cycle)


def is_column_stream(facts: Facts, choice: Choice, target: Target) -> bool:
    """Whether a reduction reads a large array once, its rows (along the lanes) one below another.

    Column by column it would touch a page for each vector; so it is walked in blocks of rows.
    """
    lanes = {p.dim for p in choice.lanes}
    if is_map(facts, choice) or lanes & facts.reduced or not blockable_folds(facts):
        return False
    for load in facts.loads:
        points = math.prod(facts.extents.values())
        span = sum((n - 1) * abs(load.stride(d)) for d, n in facts.extents.items())
        once = all(d in load.dims for d, n in facts.extents.items() if n > 1) and span + 1 >= points
        near = min((abs(load.stride(d)) * load.bits // 8 for d in facts.reduced), default=0)
        size = points * load.bits // 8
        if once and not load.loose and near >= ROW_BYTES and size > 2 * target.l2:
            return True
    return False


def _packed_in_tasks(
    chain: Chain, facts: Facts, choice: Choice, target: Target
) -> tuple[tuple[int, ...], int]:
    """Packed operands of which each task reads a piece of its own: the task packs it in scratch.
    And how many tasks there must be for that.

    It saves a launch, and a trip through memory that is far.
    """
    found: list[int] = []
    lanes = lane_dims(choice)
    wholes = packed_bytes(facts, choice)
    room = target.l2 * 5 // 8
    least = math.ceil(max(wholes.values(), default=0) / room)
    spread_out = _in_tasks(chain, facts, choice, target, least)
    tasks = math.prod(n for _, n in spread_out.kernel.grid)
    for load in facts.loads:
        if load.ref in wholes:
            slab = slab_bytes(spread_out, load.ref, load.bits // 8, lanes)
            few = slab is not None and slab * tasks < MOST_COPIES * wholes[load.ref]
            if slab is not None and few and slab <= room:
                found.append(load.ref)
    return tuple(found), least if found else 1


def _bytes(facts: Facts, load: Access) -> int:
    return math.prod(facts.extents[d] for d in load.strides) * load.bits // 8


def _copied_in_task(
    chain: Chain,
    ref: Ref,
    order: Sequence[str],
    aligned: int,
    target: Target,
    lanes: frozenset[str],
) -> Chain:
    """The operand in scratch, copied in this order at the start of the task."""
    name = f"slab{len(chain.kernel.scratch)}"
    earlier = len(chain.before)
    chain = pack_in_task(chain, ref, order, name, aligned, lanes).chain
    buffers = {b.name: b for b in (*chain.kernel.params, *chain.kernel.scratch)}
    copied = _scheduled(chain.before[earlier:], buffers, target, 100)
    copied = tuple(copy_ahead(n) if isinstance(n, Nest) else n for n in copied)
    return replace(chain, before=(*chain.before[:earlier], *copied))


def _in_tasks(chain: Chain, facts: Facts, choice: Choice, target: Target, least: int = 1) -> Chain:
    """Spread the loops over tasks: rows, farthest outermost; columns where that saves traffic.

    About `least` tasks are made at least, so that what each packs stays in its cache.
    """
    lanes = {p.dim for p in choice.lanes}
    kept = [d for d in facts.kept if d not in facts.ordered and d not in _row_dims(facts)]
    kept.sort(key=lambda d: (_read_by_all(facts, d), -reach(facts.stores, d)))
    loops = {v.dim for v in chain.levels}
    names = [f"{d}_o" if f"{d}_o" in loops else d for d in kept]
    goal = task_goal(_work(facts, choice, target))
    together = {n: _in_a_line(facts, d, choice) for n, d in zip(names, kept, strict=True)}

    def units(names: Sequence[str]) -> list[Unit]:
        return free_units(chain, names, choice.steps, together)

    if choice.order:
        ordered = [n for d in choice.order for n, k in zip(names, kept, strict=True) if k == d]
        return spread(chain, units(ordered), goal)
    rows = [n for n, d in zip(names, kept, strict=True) if d not in lanes]
    apart = [d for d in kept if d not in lanes and not _read_by_all(facts, d)]
    if math.prod(facts.extents[d] for d in apart) >= FEWEST_TASKS:
        rows = [n for n, d in zip(names, kept, strict=True) if d in apart]
    columns = [n for n, d in zip(names, kept, strict=True) if d in lanes]
    once = is_map(facts, choice) or choice.flat or is_column_stream(facts, choice, target)
    if goal > 1 and not once:
        tiles = math.prod(-(-facts.extents[d] // choice.step(d)) for d in kept if d in lanes)
        sizes = {b.name: b.size for b in chain.kernel.params}
        first = next((d for d in kept if d not in lanes), None)
        operands = _operand_bytes(facts, lanes, first, sizes, target)
        goal, share = contraction_tasks(goal, choice.cycles, operands, tiles, target.l2 // 2)
        goal = max(goal, least)
        chain = spread(chain, units(columns), share)
        goal = max(1, goal // math.prod(n for _, n in chain.kernel.grid))
        chain = spread(chain, units(rows), goal)
        if len(chain.kernel.grid) > 0:
            return chain
    return spread(chain, units([*rows, *columns]), goal)


def _in_a_line(facts: Facts, dim: str, choice: Choice) -> int:
    """How many tiles along a dim store to one cache line, where they do so often."""
    if tile_cycles(facts, choice) > LONG_TILE:
        return 1
    moved = (abs(s.stride(dim)) * s.bits // 8 * choice.step(dim) for s in facts.stores)
    return max((-(-LINE // m) for m in moved if m), default=1)


def _read_by_all(facts: Facts, dim: str) -> int:
    """Bytes of a reduction's operands that every piece of a dim reads whole; or any part of, where
    the address is computed from it."""

    def everywhere(a: Access) -> bool:
        return dim not in a.dims or (dim in a.loose and not a.stride(dim))

    loads = [a for a in facts.loads if a.dims & facts.reduced and everywhere(a)]
    return sum(_bytes(facts, a) for a in loads)


def _row_dims(facts: Facts) -> frozenset[str]:
    """Dims of a scatter's rows, where these are so short that every task had better move whole
    ones: finding a row's place costs as much as a few vectors. Not where each is a sum."""
    dims = _dims_below(facts)
    return frozenset() if facts.reduced or _is_long(facts, dims) else dims


def _is_long(facts: Facts, row: frozenset[str]) -> bool:
    return math.prod(facts.extents[d] for d in row) >= LONG_ROW


def _dims_below(facts: Facts) -> frozenset[str]:
    """Kept dims whose steps are shorter than those of computed places."""
    computed = [(s.at.form, abs(f)) for s in facts.nest.stores for _, f in s.at.dynamic]
    return frozenset(d for f, step in computed for d in facts.kept if 0 < f.coefficient(d) < step)


def _blocks(chain: Chain, facts: Facts, choice: Choice, target: Target) -> Chain:
    """Cut the reduction into blocks where the panels that it walks overflow the cache."""
    lanes = {p.dim for p in choice.lanes}
    folds = blockable_folds(facts)
    if is_map(facts, choice) or lanes & facts.reduced or not folds:
        return chain
    walked = 0.0
    for load in facts.loads:
        if not load.dims & facts.reduced:
            continue
        steps = math.prod(facts.extents[d] for d in load.dims & facts.reduced)
        if load.dims & lanes:
            tile = math.prod(choice.step(d) for d in load.dims if d not in facts.reduced)
            walked += steps * tile * load.bits / 8
        elif load.ref not in choice.packed and is_driven_out(facts, load, lanes, target):
            walked += slab_bytes(chain, load.ref, load.bits // 8) or 0
    bounded = {b.dim for b in facts.nest.bounds}
    order = [d for d in reduction_order(facts, choice) if d not in choice.unrolled]
    wanted = blocks_wanted(walked, target.l2)
    bits = {b.name: b.dtype.bits for b in (*chain.kernel.params, *chain.kernel.scratch)}
    cycles = tile_cycles(facts, choice)
    near = held_up(analyse(chain.nest, bits), choice.steps, lane_dims(choice), cycles, target)
    if (few := blocks_wanted(near, target.l1)) > wanted:
        wanted, order = few, [d for d in order if d not in bounded]
    if order and is_column_stream(facts, choice, target):
        wanted = max(wanted, facts.extents[order[0]] // ROWS)
    blocks = blocks_of([(d, facts.extents[d]) for d in order], wanted) if wanted > 1 else ()
    if not blocks:
        return chain
    inner = [p.dim for p in choice.lanes]
    chain = block_reduction(chain, facts, folds, blocks, inner)
    buffers = {b.name: b for b in (*chain.kernel.params, *chain.kernel.scratch)}
    return replace(
        chain,
        start=_scheduled(chain.start, buffers, target),
        finish=_scheduled(chain.finish, buffers, target),
    )


def _slabs(
    chain: Chain, whole: Facts, choice: Choice, target: Target, packed: Sequence[Buffer]
) -> Chain:
    """Copy to scratch what a task reads many times over from places that are pages apart.

    Blocks of the reduction have changed the code: only the chain's own nest numbers its loads.
    """
    lanes = {p.dim for p in choice.lanes}
    if is_map(whole, choice) or lanes & whole.reduced:
        return chain
    buffers = {b.name: b for b in chain.kernel.params}
    facts = analyse(chain.nest, {n: b.dtype.bits for n, b in buffers.items()})
    facts = replace(facts, extents=whole.extents)
    for load in facts.loads:
        if load.buffer in {b.name for b in packed} or not is_driven_out(facts, load, lanes, target):
            continue
        ref = _own_ref(chain, load)
        slab = slab_bytes(chain, ref, load.bits // 8)
        if slab is None or slab > target.l2 // 2:
            continue
        order = [d for d, _ in chain.nest.dims if d in load.dims]
        order.sort(key=lambda d: -abs(load.stride(d)))
        name = f"slab{len(chain.kernel.scratch)}"
        chain = pack_in_task(chain, ref, order, name, 1).chain
        scratch = {b.name: b for b in chain.kernel.scratch}
        copied = _scheduled(chain.before, buffers | scratch, target, 100)
        copied = tuple(copy_ahead(n) if isinstance(n, Nest) else n for n in copied)
        chain = replace(chain, before=copied)
    return chain


def _own_ref(chain: Chain, load: Access) -> Ref:
    """A load's place in the chain's own code, which blocks have cut off behind the reduction."""
    loads = analyse(chain.nest).loads
    return next(a.ref for a in loads if (a.buffer, a.strides) == (load.buffer, load.strides))


def _operand_bytes(
    facts: Facts, lanes: set[str], first: str | None, most: Mapping[str, int], target: Target
) -> Operands:
    """Bytes of a reduction's operands that do not vary along the lanes, and of those that do: no
    more than their buffers have, where places are computed. Tasks that divide the `first` row dim
    each read a part of what moves along it."""
    sizes = [0.0, 0.0]
    shared = first is not None and facts.extents[first] >= FEWEST_TASKS
    for load in facts.loads:
        moves = shared and first in load.dims and bool(load.dims & lanes)
        if load.dims & facts.reduced and not moves:
            places = math.prod(facts.extents[d] for d in load.dims)
            known = min(places, most.get(load.buffer, places)) if load.loose else places
            row = not load.dims & lanes
            copied = SLAB_BYTES if row and is_driven_out(facts, load, lanes, target) else 1.0
            sizes[not row] += known * copied * load.bits / 8
    return Operands(sizes[0], sizes[1])
