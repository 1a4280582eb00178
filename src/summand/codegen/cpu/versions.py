"""A body written twice: without its guards, for where they hold at every point, and with them.

    loop y                                  loop y
      loop a b: load u[y + b - 1]             when 0 <= y - 1 and y + 1 < 56:
        if 0 <= y + b - 1 < 56          ->      loop a b: load u[y + b - 1]
                                              else: loop a b: load … if …

One comparison for each guard, where all kept loops that it reads are open, decides for the whole
register block and the reductions inside. Windows are in range nearly everywhere, and a mask or a
chosen address for each vector costs as much as the arithmetic on it. What reads a table (a shift
for each channel), or fails in some steps of the reduction only, is decided in every step, for the
register block alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from summand.codegen.cpu.places import Places
from summand.codegen.cpu.plan import Access, NestPlan
from summand.codegen.cpu.text import Int, Value
from summand.loops.nodes import Guard, Load

POINTS = 1 << 12  # of a nest that is worth the code of two
MOST_GUARDS = 8
SEVERAL = 3  # vectors that one comparison decides for in a step
Guards = tuple[Guard, ...]


def is_large(plan: NestPlan) -> bool:
    """Whether a nest has so much work that code of two pays, with the loops around it."""
    around = max((hi + 1 for d, (_, hi) in plan.ranges.items() if d not in plan.extent), default=1)
    return math.prod(plan.extent.values()) * max(1, around) >= POINTS


def guards_of(plan: NestPlan) -> Guards:
    """The guards that one comparison can decide; none where two versions do not pay."""
    loads = [plan.load_access(r) for r, i in enumerate(plan.code) if isinstance(i, Load)]
    guards = tuple(dict.fromkeys(g for a in loads for g in a.guards))
    if not guards or len(guards) > MOST_GUARDS or not is_large(plan):
        return ()
    if any(g.dynamic or not g.form.is_affine for g in guards) or plan.end is not None:
        return ()
    return guards


def decided(plan: NestPlan, guards: Sequence[Guard], opened: Sequence[str]) -> bool:
    """Whether all kept loops that the guards read are open, and none of a reduction."""
    if plan.inner & set(opened):
        return False
    return all(plan.looped & g.form.dims - plan.inner <= set(opened) for g in guards)


def guards_of_a_step(writer: Places, accesses: Sequence[Access], opened: Sequence[str]) -> Guards:
    """The guards that one comparison can decide for a step of a reduction, where several vectors
    ask: those that read a table; and all, where the processor has no registers for masks."""
    plan = writer.plan
    inside = plan.inner & set(opened)
    late = frozenset[str]() if writer.fn.unit.has_masks else inside
    lanes = plan.lanes.offsets.keys()
    asking: dict[Guard, int] = {}
    for access in accesses if inside and plan.end is None else ():
        guards = writer.asked(access)
        dims = plan.registers_of(access) if guards else ()
        points = math.prod(-(-writer.size[d] // plan.lanes.volume.get(d, 1)) for d in dims)
        for guard in guards:
            computed = frozenset[str]().union(*(plan.deps[r] for r, _ in guard.dynamic))
            uniform = not computed & lanes and not computed & plan.registers
            asks = guard.dynamic or guard.form.dims & late
            if asks and uniform and guard.form.is_affine:
                asking[guard] = asking.get(guard, 0) + points
    return tuple(asking) if max(asking.values(), default=0) >= SEVERAL else ()


def hold_everywhere(writer: Places, guards: Sequence[Guard], opened: Sequence[str]) -> Value | bool:
    """Whether guards hold at all points of the register block and of the loops not yet open."""
    out: Value | bool = True
    for guard in guards:
        least, span = _reach(writer, guard, opened)
        if span >= guard.size or (isinstance(least, int) and not 0 <= least < guard.size - span):
            return False
        if isinstance(least, int):
            continue
        holds = writer.fn.pure(f"icmp ult i64 {least}, {guard.size - span}", "i1")
        if isinstance(out, Value):
            holds = writer.fn.pure(f"and i1 {out}, {holds}", "i1")
        out = holds
    return out


def _reach(writer: Places, guard: Guard, opened: Sequence[str]) -> tuple[Int, int]:
    """A guard's least value, and how far above it the greatest is."""
    plan, fn = writer.plan, writer.fn
    start = writer.computed(guard.dynamic)
    low, high = guard.form.const, guard.form.const
    for atom, c in guard.form.terms:
        assert isinstance(atom, str)
        span = 0
        if atom not in plan.extent:
            start = fn.add(start, fn.mul(writer.position[atom], c))
        elif atom in opened or atom not in plan.looped:
            start = fn.add(start, fn.mul(writer.position[atom], c))
            span = c * (writer.size[atom] - 1)
        else:
            span = c * (plan.extent[atom] - 1)
        low, high = low + min(0, span), high + max(0, span)
    return fn.add(start, low), high - low
