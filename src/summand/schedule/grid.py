"""Which loops become independent tasks, and how many positions each task takes.

    rows m_o=171 (tiles)  ->  grid m_og=35, five tiles to a task

The number of tasks follows from the predicted cycles and from what usual numbers of threads make of
it: 49 tasks leave one of two threads idle for a task, and one of eight for seven. It never follows
from the threads there are, so results do not depend on them. Rows are spread first, outermost
first; lanes only where there are not enough rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from summand.loops.nodes import Loop
from summand.schedule.moves import Chain, is_free, may_repeat, parallelise, tile

TASK_CYCLES = 25_000.0  # least work of a task: about 7 µs
MOST_TASKS = 64
UNEVEN = 0.02  # share of the time lost to threads that wait, from which tasks are cut once more
THREADS = ((2, 0.5), (4, 0.3), (8, 0.2))  # numbers of threads, and how much each counts
PACKING_TASKS = 16
L3_BYTES = 12.0  # that one core reads from the last cache in a cycle
SEEN = 0.25  # share of the time for them that arithmetic does not hide
TAIL = 1.0  # tasks' worth of time that a thread waits in the end, where two share the work


@dataclass(frozen=True, slots=True)
class Operands:
    """Bytes of a contraction's operands: those that vary along rows only, and along lanes."""

    rows: float
    columns: float


@dataclass(frozen=True, slots=True)
class Unit:
    """A loop, or a nest dim in steps of `step` positions, that may be spread over tasks; each takes
    at least so many: those that store to one cache line, which no two cores can own at once."""

    dim: str
    count: int  # steps
    step: int = 1
    is_loop: bool = False
    least: int = 1


def task_goal(cycles: float, packing: bool = False) -> int:
    """How many tasks work of so many cycles is cut into; packing is cut into few."""
    if packing:
        return max(1, min(PACKING_TASKS, int(cycles * 3 / TASK_CYCLES)))
    return max(1, min(MOST_TASKS, int(cycles / TASK_CYCLES)))


def idle_share(tasks: int) -> float:
    """How much longer equal tasks take than if threads never waited for the last ones."""
    return sum(w * (-(-tasks // p) * p / tasks - 1) for p, w in THREADS)


def _block(unit: Unit, wanted: float, exact: bool, others: int = 1, twice: float = 4.0) -> int:
    """Steps to a task: about `count / wanted`, so that little is computed twice (where the last
    task is moved back) and the tasks, for each of as many as `others` of them, come out even."""
    count = unit.count
    ideal = max(unit.least, int(count / wanted))
    if wanted >= count:
        return min(unit.least, count)
    best, least = count, math.inf
    for block in dict.fromkeys((*_near(ideal, count), count)):
        if block < min(unit.least, count):
            continue
        waste = -(-count // block) * block / count - 1
        if exact and waste > 0:
            continue
        badness = waste * twice + abs(math.log(block / ideal)) * 0.25
        badness += 2 * idle_share(others * -(-count // block))
        if badness < least:
            best, least = block, badness
    if least == math.inf:  # no divisor near: the greatest below, or none
        best = max((b for b in range(1, min(ideal, 4096) + 1) if count % b == 0), default=count)
    return min(best, count)


def _near(ideal: int, count: int) -> list[int]:
    """Blocks around the ideal one: all of them where they are few, else those that cut evenly."""
    low, high = max(1, int(ideal * 0.6)), min(count, int(ideal * 1.2) + 1)
    if high - low < 128:
        return list(range(low, high + 1))
    tasks = range(max(1, count // high), count // low + 1)
    return [-(-count // n) for n in tasks if low <= -(-count // n) <= high][:128] or [ideal]


def contraction_tasks(
    most: int, cycles: float, operands: Operands, tiles: int, cache: int
) -> tuple[int, int]:
    """Into how many tasks a contraction is cut, `most` at most, and how many of them divide the
    `tiles` columns.

    More tasks end more evenly, but each reads its share of both operands again. What it reads of
    the rows should stay in the `cache`, and column blocks that are moved back compute some tiles
    twice.
    """
    best, least = (1, 1), math.inf
    for goal in sorted({most, *(g for g in (16, 32, 64) if g < most)}):
        for count in sorted({1, 2, 4, 8, 16, tiles}):
            share = goal / count
            if count > tiles or share < 0.6:
                continue
            moved = operands.columns * share + operands.rows * count
            if operands.rows / share > cache:  # read again for every panel
                moved += operands.rows * count
            block = _block(Unit("", tiles), count, False)
            twice = -(-tiles // block) * block / tiles - 1
            cost = SEEN * moved / L3_BYTES + cycles * (twice + TAIL / goal)
            if cost < least * 0.995:
                best, least = (goal, count), cost
    return best


def spread(chain: Chain, units: Sequence[Unit], goal: int) -> Chain:
    """Move pieces of the units into the grid until there are about `goal` tasks."""
    tasks, others = 1, math.prod(n for _, n in chain.kernel.grid)
    for unit in units:
        uneven = 1 < tasks <= goal and idle_share(tasks * others) > UNEVEN
        if tasks * 2 > goal and not uneven:
            break
        exact = unit.is_loop and not may_repeat(chain.nest)
        twice = 4.0 if may_repeat(chain.nest) else 0.0
        block = _block(unit, max(2.0, goal / tasks), exact, tasks * others, twice)
        count = -(-unit.count // block)
        if count < 2:
            continue
        if unit.is_loop:
            chain = parallelise(chain, unit.dim, block)
        else:
            size = min(block * unit.step, chain.nest.extents[unit.dim])
            before = {v.dim for v in chain.levels}
            chain = _outermost(tile(chain, unit.dim, size), before)
        tasks *= count
    return chain


def _outermost(chain: Chain, before: set[str]) -> Chain:
    """Send the loop that `tile` just made into the grid, and its origin above the other loops."""
    new = [v for v in chain.levels if v.dim not in before]
    old = [v for v in chain.levels if v.dim in before]
    loop = new[0]
    assert isinstance(loop, Loop)
    return parallelise(replace(chain, levels=(*new, *old)), loop.dim)


def free_units(
    chain: Chain,
    order: Sequence[str],
    steps: Mapping[str, int],
    least: Mapping[str, int] = MappingProxyType({}),
) -> list[Unit]:
    """Units of the nest's dims in this order, as far as they may be independent tasks; `least`
    steps of each go together."""
    loops = {v.dim: v.extent for v in chain.levels if isinstance(v, Loop)}
    extents = chain.nest.extents
    out = []
    for dim in order:
        if dim in loops:
            out.append(Unit(dim, loops[dim], is_loop=True, least=least.get(dim, 1)))
        elif is_free(chain.nest, dim):
            step = min(steps.get(dim, 1), extents[dim])
            out.append(Unit(dim, -(-extents[dim] // step), step, least=least.get(dim, 1)))
    return out
