"""Put the units of a cluster into nests: several values of one nest share its loads and its loop.

    e{i,j} = exp z; s{i} = sum{j} e; y{i,j} = e / s   ->   nest [e, s]; nest [y]

A unit joins the nest of one that it reads where both run over the same dims and the value is there
when it is needed: inside the reduction, or after it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from summand.ir.nodes import Reduce, Var
from summand.rewrite.plan.units import Unit, product

MOST_HELD = 64  # elements of a dim that a step of a recurrence sums in registers
MOST_POINTS = 1024  # and of all such dims together


def local_values(units: Sequence[Unit], private: set[Var]) -> set[Var]:
    """Those of a cluster's own values that only the nest that makes them reads."""
    nests = stages_of(sorted(units, key=lambda u: u.number))
    return set().union(*local_to_each(nests, private))


def local_to_each(nests: Sequence[Sequence[Unit]], private: Set[Var]) -> list[set[Var]]:
    """For each nest the private values that it makes and no other one reads: they need no memory
    at all."""
    readers: dict[Var, set[int]] = {}
    for k, nest in enumerate(nests):
        for var in {a.var for u in nest for a in u.reads}:
            readers.setdefault(var, set()).add(k)
    return [
        {r for u in nest for r in u.roots if r in private and readers.get(r, {k}) == {k}}
        for k, nest in enumerate(nests)
    ]


@dataclass(slots=True)
class _Nest:
    units: list[Unit]
    space: frozenset[tuple[str, int]]
    folds: frozenset[tuple[str, int]]
    inside: set[Var] = field(default_factory=set)  # roots with all dims of the space
    after: set[Var] = field(default_factory=set)  # roots that exist when the folds have ended


def stages_of(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units of one nest each, in order. Each reads only earlier ones and its own."""
    nests: list[_Nest] = []
    where: dict[Var, int] = {}
    for unit in units:
        earliest = 0
        for access in unit.reads:
            earliest = max(earliest, where.get(access.var, 0))
        place = None
        if unit.is_nest:
            place = next((k for k in range(earliest, len(nests)) if _joins(nests[k], unit)), None)
        if place is None:
            place = len(nests)
            nests.append(_Nest([], unit.space, frozenset(unit.folds)))
        _add(nests[place], unit)
        for root in unit.roots:
            where[root] = place
    return [n.units for n in nests]


def _add(nest: _Nest, unit: Unit) -> None:
    nest.units.append(unit)
    block = unit.block
    nest.folds |= {(d, block.size if block and d == block.dim else n) for d, n in unit.folds}
    for root in unit.roots:
        full = frozenset(root.type.dims) == nest.space and not unit.folds
        over = nest.units[0].over if nest.units[0].carries else ()
        if over:
            full = set(over) <= root.type.names
        (nest.inside if full else nest.after).add(root)


def _joins(nest: _Nest, unit: Unit) -> bool:
    """Whether a unit can be computed in a nest that exists."""
    if nest.units[0].carries:
        return _joins_steps(nest, unit)
    if unit.block is not None or not all(u.is_nest for u in nest.units):
        return False
    folds = frozenset(unit.folds)
    if folds and nest.folds and folds != nest.folds:
        return False
    out = frozenset(unit.out)
    late = bool(nest.folds) and not folds and out == nest.space - nest.folds
    if not late and unit.space != nest.space:
        return False
    if folds and not nest.folds and nest.space - folds != out:
        return False
    made = nest.inside | nest.after
    reads = [a for a in unit.reads if a.var in made]
    if not reads and not _shares(nest, unit):
        return False
    for access in reads:
        if not all(access.is_identity(d) for d, _ in access.at):
            return False
        if not late and access.var not in nest.inside:
            return False
    return True


def _joins_steps(nest: _Nest, unit: Unit) -> bool:
    """Whether a unit can be computed step by step in the nest of a recurrence: from what the nest
    has at each step, folded within a step or over all of them."""
    over = nest.units[0].over
    names = {d for d, _ in unit.space}
    if not unit.space <= nest.space or not names.issuperset(over):
        return False
    summed = {d for d, _ in unit.folds} & set(over)
    if summed and (len(over) > 1 or not _folds_by_parts(unit)):
        return False
    block = unit.block
    folds = {d: block.size if block and d == block.dim else n for d, n in unit.folds}
    held = {d: n for d, n in {**dict(nest.folds), **folds}.items() if d not in over}
    if held and (max(held.values()) > MOST_HELD or product(held.values()) > MOST_POINTS):
        return False
    reads = [a for a in unit.reads if a.var in nest.inside or a.var in nest.after]
    return bool(reads) and all(
        a.var in nest.inside and all(a.is_identity(d) for d, _ in a.at) for a in reads
    )


def _folds_by_parts(unit: Unit) -> bool:
    """Whether a unit is one reduction by a scalar op and nothing else."""
    op = unit.eqn.op
    if not isinstance(op, Reduce) or op.monoid.combine is not None:
        return False
    return len(unit.folds) == len(op.dims)


def _shares(nest: _Nest, unit: Unit) -> bool:
    """Whether a unit reads what the nest reads, at the same place and over all its dims."""
    mine = {a for a in unit.reads if len(a.at) == len(unit.space)}
    return any(a in mine for u in nest.units for a in u.reads)
