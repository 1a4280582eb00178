"""Let a task hold several tiles, and ask early for what the next one reads.

    grid i.t=2048                       grid i.tg=32
      nest … a[8192*i.t + …]      ->      loop i.t=64
      nest … a[8192*i.t + …]                nest … a[524288*i.tg + 8192*i.t + …]
                                            nest …   the same, prefetch a 16384 ahead

A kernel of several nests alternates between memory and arithmetic; with the next tile on its way
while this one is computed, its time is the greater of the two and no longer their sum. Tasks are
claimed in any order, so only tiles of one task can be fetched ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from summand.ir.index import Form
from summand.loops.nodes import Buffer, Guard, Kernel, Let, Load, Loop, Nest, Schedule, Stmt, When
from summand.options import Target
from summand.schedule.accesses import Access, Facts, analyse
from summand.schedule.beside import LONG
from summand.schedule.cost import PAGE, lane_kind, pipes_of
from summand.schedule.moves import nests_of, substitute
from summand.schedule.pack import LINE, WAYS, sets_met

TASKS = 32  # tasks that remain
AHEAD = 24  # vectors between asking for a line of a copied slab and reading it
LEAST_BYTES = 2048  # that one tile reads; for less, asking costs more than waiting
MOST_ROWS = 16  # of a register tile, each asked for by an instruction of its own
LEAST_STEPS = 8  # of a run, to bring the next one
MOST_AGAIN = 4  # tiles that read the same elements, each asking for the next ones
LONG_RUN = 16 << 10  # bytes: of shorter ones, finding the stream takes a good part of the time
FAR_BYTES = 32 << 10  # between asking for what a tile reads and reading it
NEAR_BYTES = 4096  # the same where one array is only read, line after line


def substitute_body(body: tuple[Stmt, ...], values: Mapping[str, Form]) -> tuple[Stmt, ...]:
    """Statements with forms in place of dims."""
    out: list[Stmt] = []
    for stmt in body:
        match stmt:
            case Nest():
                out.append(substitute(stmt, values))
            case Loop():
                out.append(replace(stmt, body=substitute_body(stmt.body, values)))
            case Let():
                inner = substitute_body(stmt.body, values)
                out.append(replace(stmt, form=stmt.form.substitute(values), body=inner))
            case When():
                guards = tuple(
                    Guard(g.form.substitute(values), g.size, g.dynamic) for g in stmt.guards
                )
                out.append(When(guards, substitute_body(stmt.body, values)))
            case _:
                assert_never(stmt)
    return tuple(out)


def coarsen(kernel: Kernel, tasks: int) -> tuple[Kernel, str | None]:
    """Run several steps of the innermost grid dim in each task, so that about `tasks` remain.

    Returns the kernel and the loop's dim, or None where the number of steps has no fitting divisor.
    """
    total = math.prod(n for _, n in kernel.grid)
    if not kernel.grid or total < 2 * tasks:
        return kernel, None
    dim, extent = kernel.grid[-1]
    wanted = total // tasks
    steps = max((s for s in range(1, min(wanted, extent) + 1) if extent % s == 0), default=1)
    if steps == 1:
        return kernel, None
    outer = f"{dim}g"
    used = {d for d, _ in kernel.grid} | _bound_dims(kernel.body)
    while outer in used:
        outer += "g"
    at = Form.of(outer) * steps + dim
    body = (Loop(dim, steps, substitute_body(kernel.body, {dim: at})),)
    return replace(kernel, grid=(*kernel.grid[:-1], (outer, extent // steps)), body=body), dim


def _bound_dims(body: tuple[Stmt, ...]) -> set[str]:
    """All dims that a body binds."""
    out: set[str] = set()
    for stmt in body:
        match stmt:
            case Nest():
                out |= stmt.extents.keys()
            case Loop() | Let():
                out |= {stmt.dim} | _bound_dims(stmt.body)
            case When():
                out |= _bound_dims(stmt.body)
            case _:
                assert_never(stmt)
    return out


def tile_loop(kernel: Kernel) -> str | None:
    """The dim of the loop in which a task walks its tiles, where there is one around nests."""
    loops = [s for s in kernel.body if isinstance(s, Loop) and len(nests_of(s.body)) > 1]
    return loops[0].dim if len(loops) == 1 else None


def fetch_ahead(kernel: Kernel, dim: str, target: Target) -> Kernel:
    """In the last nest that reads an operand of the tile, prefetch the same of a later tile."""
    last: dict[str, int] = {}
    found: list[dict[str, int]] = []

    def look(body: tuple[Stmt, ...], moves: Mapping[str, int]) -> None:
        for stmt in body:
            if isinstance(stmt, Nest):
                ahead = _ahead(kernel, stmt, moves, target)
                last.update(dict.fromkeys(ahead, len(found)))
                found.append(ahead)
            else:
                look(stmt.body, _moved(stmt, moves))

    def visit(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for stmt in body:
            if isinstance(stmt, Nest):
                number = next(counter)
                wanted = tuple((b, s) for b, s in found[number].items() if last[b] == number)
                schedule = replace(stmt.schedule or Schedule(), prefetch=wanted)
                out.append(replace(stmt, schedule=schedule))
            else:
                out.append(replace(stmt, body=visit(stmt.body)))
        return tuple(out)

    look(kernel.body, {dim: 1})
    counter = iter(range(len(found)))
    return replace(kernel, body=visit(kernel.body))


def _moved(stmt: Loop | Let | When, moves: Mapping[str, int]) -> Mapping[str, int]:
    """How far the dims in sight move from one tile to the next, within a statement."""
    if not isinstance(stmt, Let):
        return moves
    return {**moves, stmt.dim: sum(stmt.form.coefficient(d) * n for d, n in moves.items())}


def _ahead(kernel: Kernel, nest: Nest, moves: Mapping[str, int], target: Target) -> dict[str, int]:
    """Operands that the nest reads once through, and their elements from one tile to the next."""
    if nest.schedule is None or not nest.schedule.loops:
        return {}
    made = {s.buffer for n in nests_of(kernel.body) for s in n.stores}
    bits = {b.name: b.dtype.bits for b in kernel.params if b.name not in made}
    facts = analyse(nest, {b.name: b.dtype.bits for b in kernel.params})
    out: dict[str, int] = {}
    total = 0
    for load in facts.loads:
        distance = sum(load.at.form.coefficient(d) * n for d, n in moves.items())
        if load.buffer in bits and distance and _once(load, facts.extents):
            size = math.prod(facts.extents.values()) * load.bits // 8
            if size >= LEAST_BYTES and load.buffer not in out:
                tiles = -(-FAR_BYTES // size)
                out[load.buffer] = distance * tiles
                total += size * tiles
    return out if total <= target.l2 // 2 else {}


def _once(load: Access, extents: Mapping[str, int]) -> bool:
    """Whether every point of the nest reads an element of its own."""
    if load.loose or load.guarded:
        return False
    return all(load.stride(d) for d, n in extents.items() if n > 1)


def several_reads(kernel: Kernel) -> bool:
    """Whether the kernel has several nests and reads global memory."""
    nests = nests_of(kernel.body)
    params = {b.name for b in kernel.params}
    loads = [i for n in nests for i in n.code if isinstance(i, Load) and i.buffer in params]
    return len(nests) > 1 and bool(loads)


def stream_ahead(nest: Nest, buffers: Mapping[str, Buffer], target: Target) -> Nest:
    """A scheduled nest that asks early for what it reads once from large arrays, line by line.

    The processor finds the next line of one stream by itself (not all do so in time), not of
    several at once; and where nothing is stored it could fetch more than it does. Of streams that a
    reduction walks side by side it fetches enough.
    """
    schedule = nest.schedule
    if schedule is None or not schedule.loops:
        return nest
    facts = analyse(nest, {b.name: b.dtype.bits for b in buffers.values()})
    walked = [a for a in facts.loads if lane_kind(a.strides, a.loose, schedule.lanes) == "unit"]
    streams = len({(a.buffer, a.at) for a in walked})
    single = streams == 1 and not facts.reduced
    unrolled = facts.reduced.difference(schedule.loops)
    beside = any(abs(a.stride(d)) * a.bits // 8 >= LONG for a in walked for d in unrolled)
    if beside or (single and pipes_of(target).finds_stream):
        return nest
    ahead = NEAR_BYTES if streams == 1 and facts.reduced else FAR_BYTES
    wanted: dict[str, int] = {}
    for load in walked:
        buffer = buffers[load.buffer]
        large = buffer.memory == "global" and buffer.size * load.bits // 8 > 2 * target.l2
        if large and _once(load, facts.extents) and load.buffer not in wanted:
            wanted[load.buffer] = _distance(load, facts, schedule, ahead)
    found = tuple((b, d) for b, d in wanted.items() if d)
    return replace(nest, schedule=replace(schedule, prefetch=found))


def rows_ahead(
    nest: Nest,
    buffers: Mapping[str, Buffer],
    target: Target,
    around: Mapping[str, int],
) -> Nest:
    """A scheduled product that reads single elements: prefetch the next rows where they are short
    and pages apart, else those of the next register tile.

    No processor follows rows from page to page by itself, nor does it find the next of several rows
    side by side in time. What the loops `around` the nest (and their steps) read several times is
    near already: it is asked for only where that takes little beside the arithmetic.
    """
    schedule = nest.schedule
    if schedule is None or schedule.prefetch or not schedule.loops:
        return nest
    facts = analyse(nest, {name: b.dtype.bits for name, b in buffers.items()})
    lanes = {p.dim for p in schedule.lanes}
    loops = [d for d in schedule.loops if d in facts.reduced]
    found = _read_after(facts, buffers, target) if loops else {}
    for load in facts.loads:
        buffer = buffers[load.buffer]
        if buffer.memory != "global" or load.loose or not load.dims & facts.reduced:
            continue
        rows = math.prod(p.count for p in schedule.tile if p.dim in load.dims)
        cycles = math.prod(p.count for p in schedule.tile) / max(1.0, target.fma_per_cycle)
        held = math.prod(facts.extents[d] for d in load.dims) * load.bits // 8
        again = math.prod(n for d, n in around.items() if d not in load.at.form.dims)
        if again >= MOST_AGAIN and held <= target.l2 // 2 and 2 * rows > cycles:
            continue
        single = not load.dims & lanes and rows <= MOST_ROWS
        distance = _next_row(load, facts, schedule) if single else 0
        if not distance and buffer.size * load.bits // 8 > target.l2 // 2:
            distance = _next_tile(load, facts, schedule, target)
        if distance:
            found[load.buffer] = distance
    return replace(nest, schedule=replace(schedule, prefetch=tuple(sorted(found.items()))))


def _next_row(load: Access, facts: Facts, schedule: Schedule) -> int:
    """Elements to the next row, where rows are short and pages apart; else 0."""
    size = load.bits // 8
    loops = [d for d in schedule.loops if d in facts.reduced]
    far = [d for d in loops if abs(load.stride(d)) * size >= PAGE]
    inside = [d for d in facts.reduced if d not in far]
    run = sum((facts.extents[d] - 1) * abs(load.stride(d)) for d in inside) * size
    steps = math.prod(facts.extents[d] for d in inside)
    if not far or run >= PAGE or steps < LEAST_STEPS or facts.extents[far[-1]] < LEAST_STEPS:
        return 0
    return load.stride(far[-1])


def _read_after(facts: Facts, buffers: Mapping[str, Buffer], target: Target) -> dict[str, int]:
    """What is read after the reduction from arrays that the second cache does not hold."""
    found = {}
    for load in facts.loads:
        buffer = buffers[load.buffer]
        large = buffer.memory == "global" and buffer.size * load.bits // 8 > target.l2
        if large and not load.loose and not load.dims & facts.reduced:
            found[load.buffer] = 0
    return found


def _next_tile(load: Access, facts: Facts, schedule: Schedule, target: Target) -> int:
    """How far ahead the elements of a later tile are; 0 where the processor finds them by itself,
    has them already, or where asking would take longer than the arithmetic.

    Of all tiles one after the other, few may read the same elements.
    """
    held = _held(schedule)
    kept = [d for d in schedule.loops if d not in facts.reduced]
    moving = [d for d in kept if load.stride(d)]
    again = kept[len(moving) :]
    rounds = math.prod(-(-facts.extents[d] // held.get(d, 1)) for d in again)
    if not moving or kept[: len(moving)] != moving or rounds > MOST_AGAIN:
        return 0
    size = load.bits // 8
    own = {d: n for d, n in held.items() if load.stride(d) and d not in facts.reduced}
    near = math.prod(n for d, n in own.items() if abs(load.stride(d)) * size < LINE)
    lines = -(-near * size // LINE) * math.prod(own.values()) // near
    reads = math.prod(own.values()) * size
    run = near * size
    for d in sorted(load.dims & facts.reduced, key=lambda d: abs(load.stride(d))):
        reads *= facts.extents[d]
        if abs(load.stride(d)) * size <= max(run, LINE):
            run = max(run, abs(load.stride(d)) * size * facts.extents[d])
    alone = lines == 1 and run >= LONG_RUN  # a stream that the processor follows
    if 2 * lines > math.prod(p.count for p in schedule.tile) or alone:
        return 0
    if reads > target.l2 // 2 or _meets_next(load, facts, held, moving[-1]):
        return 0
    far = [(n, abs(load.stride(d)) * size) for d, n in own.items()]
    sets = math.prod(sets_met(step, n) for n, step in far if step >= LINE)
    if 2 * lines > sets * WAYS:  # they would drive out those that are read now
        return 0
    distance, ahead = 0, FAR_BYTES if run < PAGE else FAR_BYTES // 2
    for d in reversed(moving):
        tiles = -(-ahead // reads)
        rounds = -(-facts.extents[d] // held.get(d, 1))
        distance = tiles * held.get(d, 1) * load.stride(d) if tiles < rounds else 0
        if 2 * tiles <= rounds:
            break
        reads *= rounds
    return distance if abs(distance) * size >= LINE else 0


def _meets_next(load: Access, facts: Facts, held: Mapping[str, int], dim: str) -> bool:
    """Whether a tile reads some of what the next one along a dim does, as windows do."""
    step = abs(load.stride(dim)) * held.get(dim, 1)
    walked = {d: facts.extents[d] if d in facts.reduced else held.get(d, 1) for d in load.dims}
    others = ((n, abs(load.stride(d))) for d, n in walked.items() if d != dim)
    return sum((n - 1) * stride for n, stride in others if stride <= step) >= step


def _held(schedule: Schedule) -> dict[str, int]:
    """Positions of each dim that a register tile covers."""
    held = {p.dim: p.count for p in schedule.lanes}
    for piece in schedule.tile:
        held[piece.dim] = held.get(piece.dim, 1) * piece.count
    return held


def copy_ahead(nest: Nest) -> Nest:
    """A scheduled nest that copies rows from far apart: prefetch a good many vectors ahead."""
    schedule = nest.schedule
    if schedule is None or not schedule.loops:
        return nest
    facts = analyse(nest)
    lanes = math.prod(p.count for p in schedule.lanes)
    far = {a.buffer: AHEAD * lanes * a.bits // 8 for a in facts.loads}
    found = {a.buffer: _distance(a, facts, schedule, far[a.buffer]) for a in facts.loads}
    wanted = tuple((b, d) for b, d in found.items() if d)
    return replace(nest, schedule=replace(schedule, prefetch=wanted))


def _distance(load: Access, facts: Facts, schedule: Schedule, far: int) -> int:
    """Elements between a load and the one that comes about `far` bytes of it later, or 0."""
    held = {p.dim: p.count for p in schedule.lanes}
    for piece in (*schedule.tile, *schedule.unroll):
        held[piece.dim] = held.get(piece.dim, 1) * piece.count
    run = math.prod(n for d, n in held.items() if load.stride(d)) * load.bits // 8
    for dim in reversed(schedule.loops):
        rounds = -(-facts.extents[dim] // held.get(dim, 1))
        ahead = -(-far // run)
        if ahead * 2 <= rounds and load.stride(dim):
            return ahead * held.get(dim, 1) * load.stride(dim)
        if load.stride(dim):
            run *= rounds
    return 0
