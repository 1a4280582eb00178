"""Which values are computed again by each of their readers in place of being kept.

    e = exp x, read in the kernel that makes it and in a later one (the backward pass)
      ->   kept: written once and read by each;  or computed again from x, which is there anyway

Soft values (maps with several readers that cost more than a read) are decided here, after fusion
has put their readers into kernels: by the bytes that keeping them moves against the arithmetic
that it saves. Forward and backward are one program, so what the backward pass reads of the forward
pass is decided by the same rule. Reductions are always kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from summand.ir.nodes import Var
from summand.options import Target
from summand.rewrite.plan.clusters import Group
from summand.rewrite.plan.costs import move_cycles, slot_cycles
from summand.rewrite.plan.units import Unit, product

KEEP = 10.0  # slots that reading a value again from scratch is worth
LANES = 16  # elements of a shared dim that a tile holds at least, where a recurrence runs in it


def recomputed(
    groups: Sequence[Group],
    soft: frozenset[Var],
    target: Target,
    outside: int = 0,
) -> frozenset[Var]:
    """Soft values that each reader evaluates again. What is larger than the `outside` bytes of all
    parameters and results does not pass for something that a cache would hold."""
    makers = {r: unit for group in groups for unit in group.units for r in unit.roots}
    slow = target.dram_bytes_per_cycle / 2  # it pushes out what others would hold
    dropped: dict[Var, Again] = {}
    count = -1
    while count < len(dropped):  # what is not kept is read no more, but what it is made from
        count = len(dropped)
        readers = _readers(groups, dropped)
        for k, group in enumerate(groups):
            for unit in group.units:
                for root in unit.roots:
                    if root not in soft or root in dropped:
                        continue
                    far = outside and root.type.nbytes > outside
                    here = replace(target, l3=0, dram_bytes_per_cycle=slow) if far else target
                    again = Again.of(unit, makers, dropped)
                    found = readers.get(root, [])
                    if not _keep(root, again, k, found, groups, here):
                        dropped[root] = again
    return frozenset(dropped)


def _readers(groups: Sequence[Group], dropped: Mapping[Var, Again]) -> dict[Var, list[int]]:
    """The group of every unit that reads a value, or evaluates what reads it."""
    readers: dict[Var, list[int]] = {}
    for k, group in enumerate(groups):
        for unit in group.units:
            if all(r in dropped for r in unit.roots):
                continue
            reads: dict[Var, None] = {}
            for var in dict.fromkeys(a.var for a in unit.reads):
                known = dropped.get(var)
                found = (var,) if known is None else sorted(known.inputs, key=_number)
                reads |= dict.fromkeys(found)
            for var in reads:
                readers.setdefault(var, []).append(k)
    return readers


def _number(var: Var) -> int:
    return var.id


@dataclass(frozen=True, slots=True)
class Again:
    """What evaluating a value again takes: slots, and values with memory."""

    slots: float
    inputs: frozenset[Var]

    @staticmethod
    def of(unit: Unit, makers: Mapping[Var, Unit], dropped: Mapping[Var, Again]) -> Again:
        """With all that is not kept either."""
        slots, inputs = unit.slots, set[Var]()
        for var in dict.fromkeys(a.var for a in unit.reads):
            known = dropped.get(var)
            if known is None:
                inputs.add(var)
            else:
                slots += known.slots * max(unit.points / max(makers[var].points, 1), 1.0)
                inputs |= known.inputs
        return Again(slots, frozenset(inputs))


def _keep(
    var: Var,
    once: Again,
    own: int,
    readers: Sequence[int],
    groups: Sequence[Group],
    target: Target,
) -> bool:
    """Whether keeping a soft value costs less than evaluating it in every reader."""
    apart = [k for k in dict.fromkeys(readers) if k != own]
    once_more = slot_cycles(once.slots, var.type.dtype.bits, target)
    if not apart:
        if _fits(var, groups[own], target):
            return once.slots * (len(readers) - 1) >= KEEP * var.type.count
        moved = move_cycles(var.type.nbytes, target) / 2
        return moved * (1 + len(readers)) < once_more * (len(readers) - 1)
    again = 0.0
    for k in apart:
        known = {a.var for u in groups[k].units for a in u.reads} | {
            r for u in groups[k].units for r in u.roots
        }
        more = sum(v.type.nbytes for v in once.inputs - known)
        again += once_more + move_cycles(more, target) / 2
    stored = move_cycles(var.type.nbytes, target) / 2 * (1 + len(apart))
    if own not in readers:  # evaluated in its own kernel for others only
        stored += once_more
    if len(groups[own].units) == 1:  # a kernel for this value alone
        stored += move_cycles(sum(v.type.nbytes for v in once.inputs), target) / 2
    return stored < again


def _fits(var: Var, group: Group, target: Target) -> bool:
    """Whether a tile's piece of a value stays in cache. The tile of a recurrence that takes its
    lanes from a shared dim cannot be smaller than they are."""
    if not group.carries:
        return True
    shared = dict(group.shared)
    piece = product(n for d, n in var.type.dims if d not in shared)
    lanes = min(LANES, product(n for d, n in var.type.dims if d in shared))
    return piece * lanes * var.type.dtype.bytes <= target.l2 // 2
