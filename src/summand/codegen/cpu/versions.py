"""A body written twice: without its guards, for where they hold at every point, and with them.

    loop y                                  loop y
      loop a b: load u[y + b - 1]             when 0 <= y - 1 and y + 1 < 56:
        if 0 <= y + b - 1 < 56          ->      loop a b: load u[y + b - 1]
                                              else: loop a b: load … if …

One comparison for each guard, where all kept loops that it reads are open, decides for the whole
register block and the reductions inside. Windows are in range nearly everywhere, and a mask or a
chosen address for each vector costs as much as the arithmetic on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from summand.codegen.cpu.places import Places
from summand.codegen.cpu.plan import NestPlan
from summand.codegen.cpu.text import Int, Value
from summand.loops.nodes import Guard, Load

POINTS = 1 << 12  # of a nest that is worth the code of two
MOST_GUARDS = 8


def guards_of(plan: NestPlan) -> tuple[Guard, ...]:
    """The guards that one comparison can decide; none where two versions do not pay."""
    loads = [plan.load_access(r) for r, i in enumerate(plan.code) if isinstance(i, Load)]
    guards = tuple(dict.fromkeys(g for a in loads for g in a.guards))
    if not guards or len(guards) > MOST_GUARDS or math.prod(plan.extent.values()) < POINTS:
        return ()
    if any(g.dynamic or not g.form.is_affine for g in guards) or plan.end is not None:
        return ()
    return guards


def decided(plan: NestPlan, guards: Sequence[Guard], opened: Sequence[str]) -> bool:
    """Whether all kept loops that the guards read are open, and no other ones."""
    if plan.inner & set(opened):
        return False
    return all(plan.looped & g.form.dims - plan.inner <= set(opened) for g in guards)


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
    start: Int = 0
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
