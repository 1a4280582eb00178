"""Which loops become independent tasks, and how many positions each task takes.

    rows m_o=171 (tiles)  ->  grid m_og=35, five tiles to a task

The number of tasks follows from the predicted cycles alone, so results do not depend on the number
of threads. Rows are spread first, outermost first; lanes only where there are not enough rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.loops.nodes import Loop
from summand.schedule.moves import Chain, is_free, may_repeat, parallelise, tile

TASK_CYCLES = 25_000.0  # least work of a task: about 7 µs
MOST_TASKS = 32
PACKING_TASKS = 16
L3_BYTES = 12.0  # that one core reads from the last cache in a cycle


@dataclass(frozen=True, slots=True)
class Operands:
    """Bytes of a contraction's operands: those that vary along rows only, and along lanes."""

    rows: float
    columns: float


@dataclass(frozen=True, slots=True)
class Unit:
    """A loop, or a nest dim in steps of `step` positions, that may be spread over tasks."""

    dim: str
    count: int  # steps
    step: int = 1
    is_loop: bool = False


def task_goal(cycles: float, packing: bool = False) -> int:
    """How many tasks work of so many cycles is cut into; packing is cut into few."""
    if packing:
        return max(1, min(PACKING_TASKS, int(cycles * 3 / TASK_CYCLES)))
    return max(1, min(MOST_TASKS, int(cycles / TASK_CYCLES)))


def _block(unit: Unit, wanted: float, exact: bool) -> int:
    """Steps to a task: about `count / wanted`, so that little is computed twice."""
    count = unit.count
    ideal = max(1, int(count / wanted))
    if wanted >= count:
        return 1
    best, least = count, math.inf
    for block in _near(ideal, count):
        waste = -(-count // block) * block / count - 1
        if exact and waste > 0:
            continue
        badness = waste * 4 + abs(math.log(block / ideal)) * 0.25
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


def columns_goal(goal: int, cycles: float, operands: Operands, tiles: int, cache: int) -> int:
    """Of `goal` tasks, how many divide the `tiles` columns of a contraction.

    Each task reads its share of both operands; what it reads of the rows should stay in the
    `cache`, and column blocks that are moved back compute some tiles twice.
    """
    best, least = 1, math.inf
    for count in sorted({1, 2, 4, 8, 16, tiles}):
        share = goal / count
        if count > tiles or share < 0.6:
            continue
        moved = operands.columns * share + operands.rows * count
        if operands.rows / share > cache:  # read again for every panel
            moved += operands.rows * count
        block = _block(Unit("", tiles), count, False)
        twice = -(-tiles // block) * block / tiles - 1
        cost = moved / L3_BYTES + cycles * twice
        if cost < least * 0.95:
            best, least = count, cost
    return best


def spread(chain: Chain, units: Sequence[Unit], goal: int) -> Chain:
    """Move pieces of the units into the grid until there are about `goal` tasks."""
    tasks = 1
    for unit in units:
        if tasks * 2 > goal:
            break
        exact = unit.is_loop and not may_repeat(chain.nest)
        block = _block(unit, goal / tasks, exact)
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


def free_units(chain: Chain, order: Sequence[str], steps: dict[str, int]) -> list[Unit]:
    """Units of the nest's dims in this order, as far as they may be independent tasks."""
    loops = {v.dim: v.extent for v in chain.levels if isinstance(v, Loop)}
    extents = chain.nest.extents
    out = []
    for dim in order:
        if dim in loops:
            out.append(Unit(dim, loops[dim], is_loop=True))
        elif is_free(chain.nest, dim):
            step = min(steps.get(dim, 1), extents[dim])
            out.append(Unit(dim, -(-extents[dim] // step), step))
    return out
