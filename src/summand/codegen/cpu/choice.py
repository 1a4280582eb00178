"""The schedule under which a nest is written: its own where that keeps its order, else plain loops.

Also what follows from a schedule alone: how far each loop goes, which dims are loops at all, and
which carried states lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from summand.loops.code import Code, refs
from summand.loops.nodes import Carry, Fold, Instr, Load, Nest, Ref, Schedule

STATE_BYTES = 8  # of an element of a state in memory, whatever its type


def default_schedule(nest: Nest) -> Schedule:
    """Plain loops in the order of the dims; folds that do not commute order their own."""
    loops = [d for d, _ in nest.dims]
    for instr in nest.code:
        if isinstance(instr, Fold) and not instr.combine.commutative:
            places = sorted(loops.index(d) for d in instr.dims)
            for at, d in zip(places, instr.dims, strict=True):
                loops[at] = d
    return Schedule(loops=tuple(loops))


def fits(nest: Nest, schedule: Schedule) -> bool:
    """Whether a schedule keeps the order in which the nest's folds and carries must run."""
    stored = {s.buffer for s in nest.stores}
    if nest.ordered and any(isinstance(i, Load) and i.buffer in stored for i in nest.code):
        return False  # later points may read what earlier ones store
    spread = {p.dim for p in (*schedule.lanes, *schedule.end_lanes)}
    blocked = {p.dim for p in schedule.tile}
    for instr in nest.code:
        if isinstance(instr, Fold) and not instr.combine.commutative:
            if spread & set(instr.dims) or schedule.copies > 1:
                return False
            if not _in_order(nest, schedule, instr):
                return False
        if isinstance(instr, Carry) and instr.dim in spread | blocked:
            return False
    steps = steps_of(schedule)
    plain = all(steps.get(d, 1) == 1 for d, _ in nest.dims)
    return plain or not array_dims(nest, Code(nest).deps, looped_dims(nest, steps))


def _in_order(nest: Nest, schedule: Schedule, fold: Fold) -> bool:
    """Whether loops, then what is held in registers, walk a fold's dims in the fold's order.

    A dim may be both looped and unrolled only as the last loop and the outermost in registers.
    """
    wanted = [d for d in fold.dims if nest.extents[d] > 1]
    held = [p.dim for p in (*schedule.tile, *schedule.unroll) if p.dim in wanted]
    steps = steps_of(schedule)
    loops = [d for d in schedule.loops if d in wanted and steps.get(d, 1) < nest.extents[d]]
    loops += [d for d in wanted if d not in loops and d not in held]  # those it forgets
    both = [d for d in dict.fromkeys(held) if d in loops]
    inner = [d for d in dict.fromkeys(held) if d not in loops]
    if both and (both != loops[-1:] or held[0] != both[0]):
        return False
    return [*loops, *inner] == wanted and len(held) == len(set(held))


def steps_of(schedule: Schedule) -> dict[str, int]:
    """How far each dim's loop goes at a time, where that is more than one position."""
    step: dict[str, int] = {}
    for piece in (*schedule.lanes, *schedule.tile, *schedule.unroll):
        step[piece.dim] = step.get(piece.dim, 1) * piece.count
    return step


def looped_dims(nest: Nest, steps: Mapping[str, int]) -> frozenset[str]:
    """Dims of more than one step. An empty dim is a loop, too: it never runs."""
    return frozenset(d for d, n in nest.dims if n > steps.get(d, 1) or not n)


def array_dims(
    nest: Nest, deps: Sequence[frozenset[str]], looped: frozenset[str]
) -> dict[Ref, tuple[str, ...]]:
    """Carries that vary along loops inside their own, as a fold that reads them folds those.

    Plain loops take any order around folds; there, all that a carry varies along may be inside.
    """
    found: dict[Ref, tuple[str, ...]] = {}
    folds = [(f, i) for f, i in enumerate(nest.code) if isinstance(i, Fold)]
    plain = bool(folds) and all(d in looped for d, n in nest.dims if n > 1)
    for r, carry in enumerate(nest.code):
        if not isinstance(carry, Carry) or carry.dim not in looped:
            continue
        inside = {d for f, fold in folds if carry.dim in deps[f] for d in fold.dims}
        if plain:
            inside = set(nest.extents)
        dims = tuple(d for d, _ in nest.dims if d in inside & looped & deps[r] - {carry.dim})
        if dims:
            found[r] = dims
    return found


def values_below(code: Sequence[Instr], start: Sequence[Ref]) -> set[Ref]:
    """Values, and all that they read."""
    seen: set[Ref] = set()
    todo = list(start)
    while todo:
        r = todo.pop()
        if r not in seen:
            seen.add(r)
            todo += refs(code[r])
    return seen


def chosen_schedule(nest: Nest) -> Schedule:
    """The nest's schedule where it has one that fits, else plain loops."""
    if nest.schedule is not None and fits(nest, nest.schedule):
        return nest.schedule
    return default_schedule(nest)


def array_bytes(nest: Nest) -> int:
    """Bytes for the states of a nest's carries that lie in memory."""
    if not any(isinstance(i, Carry) for i in nest.code):
        return 0
    looped = looped_dims(nest, steps_of(chosen_schedule(nest)))
    found = array_dims(nest, Code(nest).deps, looped)
    return sum(state_elements(nest, dims) for dims in found.values()) * STATE_BYTES


def state_elements(nest: Nest, dims: Sequence[str]) -> int:
    """Elements of a state in memory: three for each position of the loops inside."""
    return 3 * prod(nest.extents[d] for d in dims)
