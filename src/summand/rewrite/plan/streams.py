"""Reductions that are summed tile by tile, beside the values that they fold.

    kernel {i}: e{i,j} = exp …; s{i} = sum{j} e        kernel {i}: for each tile of i:
    kernel: c{j} = sum{i} (e · w)                  ->     e (scratch); s; c += sum{i of the tile} …

A value that later reductions fold over shared dims of its cluster would have to be kept whole.
Summed as the tiles go by, it lives within a tile. A reduction may fold a shared dim itself, or read
the cluster's values in a window that slides along it (the adjoint of such a read): then each tile
adds what its own elements give, where an element out of range gives nothing.

What a reduction's result is finished with moves along where it is linear in it; else the bare
reduction is stored, and finished in a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summand.ir.index import Form
from summand.ir.nodes import SCALAR_OP, Eqn, Map, Reduce, Reindex, Var
from summand.options import Target
from summand.rewrite.plan.clusters import TILING_LOSS, Group, is_heavy
from summand.rewrite.plan.costs import inputs, move_cycles, slot_cycles
from summand.rewrite.plan.nodes import Graph, Sum
from summand.rewrite.plan.units import Unit, product, unit_of

BOUND = 0.06  # of moving what is read: the price of tiles that have an order and divide their dims
PERHAPS = 4  # so much less room is counted for what may be computed again in place of being held
MOST_UNITS = 64  # of a group for which that is worth joining all of a program once more
ROWS = 32  # positions of the folded dims that one tile is taken to hold


@dataclass(frozen=True, slots=True)
class Streams:
    """Roots to sum tile by tile, with their reductions; and values that need memory for that."""

    folds: Mapping[Var, Eqn]
    stored: frozenset[Var]


def find_streams(
    graph: Graph,
    groups: Sequence[Group],
    stored: frozenset[Var],
    soft: frozenset[Var],
    results: frozenset[Var],
    target: Target,
) -> Streams:
    """What is worth summing beside the group that makes what it folds. `soft` ones of what is
    stored may still be computed again by their readers."""
    search = _Search(graph, stored, soft, results, target)
    readers: dict[Var, list[Unit]] = {}
    for group in groups:
        for unit in group.units:
            for var in dict.fromkeys(a.var for a in unit.reads):
                readers.setdefault(var, []).append(unit)
    for group in groups:
        if not search.visit(group, group, readers):
            core = _core(group, readers)
            if core is not None:
                search.visit(core, group, readers)
    return Streams(search.folds, frozenset(search.kept))


def _core(group: Group, readers: Mapping[Var, Sequence[Unit]]) -> Group | None:
    """The part of a group that makes what others read of its largest values, if that needs nothing
    from the rest: the rest may be summed over tiles of all dims, too."""
    widest = max(group.made, key=lambda v: (v.type.count, v.id))
    names = {d for d, _ in group.shared}
    units = [u for u in group.units if u.space <= frozenset(widest.type.dims) | set(u.folds)]
    units = [u for u in units if names < {d for d, _ in u.tileable}]
    made = {r for u in units for r in u.roots}
    rest = {r for u in group.units for r in u.roots} - made
    needs = any(a.var in rest for u in units for a in u.reads)
    if not made or not rest or needs or widest not in made:
        return None
    return Group.of_all(units, readers)


class _Search:
    def __init__(
        self,
        graph: Graph,
        stored: frozenset[Var],
        soft: frozenset[Var],
        results: frozenset[Var],
        target: Target,
    ) -> None:
        self.graph = graph
        self.stored = stored
        self.soft = soft
        self.results = results
        self.target = target
        self.folds: dict[Var, Eqn] = {}
        self.kept: set[Var] = set()

    def visit(self, group: Group, whole: Group, readers: Mapping[Var, Sequence[Unit]]) -> bool:
        """Sum the readers of one group's values, where that saves more than it costs. The group is
        `whole` as it is, or a part of it."""
        if group.fixed or not group.shared or not all(u.is_nest for u in group.units):
            return False
        inside = {u.number for u in group.units}
        before = {u.number for u in whole.units}
        known: dict[Var, _Reader | None] = {}
        saved, wanted = 0.0, dict[Var, _Reader]()
        scratch = sum(self._held(v, group) for v in group.private)
        for var in sorted(group.made - self.results, key=lambda v: v.id):
            outside = [u for u in readers.get(var, ()) if u.number not in inside]
            if not outside or not self._is_large(var):
                continue
            for unit in outside:
                root = unit.roots[0]
                if root not in known:
                    known[root] = None if root in self.folds else self._reader(unit, group)
            found = {u.roots[0]: r for u in outside if (r := known[u.roots[0]]) is not None}
            if len(found) < len({u.roots[0] for u in outside}):
                if group is whole:
                    continue
                return False
            far = sum(u.number not in before for u in outside)
            scratch += self._held(var, group)
            saved += move_cycles(var.type.nbytes, self.target) * (1 + far) / 2 if far else 0.0
            wanted.update(found)
        if not wanted or scratch > self.target.l2 * 3 // 4:
            return False
        read = sum(v.type.nbytes for v in group.reads if v not in group.made)
        bound = move_cycles(read, self.target) * BOUND
        if saved <= bound + sum(self._loss(r, group) for r in wanted.values()):
            return False
        for reader in wanted.values():
            self.folds.update((u.roots[0], s.fold) for u, s in reader.sums)
            self.kept |= reader.stored
        return True

    def _held(self, var: Var, group: Group) -> float:
        """Bytes of a value that a tile is expected to hold."""
        perhaps = var in self.soft and len(group.units) <= MOST_UNITS
        return _piece(var, group) / (PERHAPS if perhaps else 1)

    def _is_large(self, var: Var) -> bool:
        return var.type.nbytes > self.target.l2 // 2

    def _loss(self, reader: _Reader, group: Group) -> float:
        """Cycles that a product loses without a tiling of its own, and those of adding to its
        results for each tile."""
        lost = 0.0
        for unit, found in reader.sums:
            if is_heavy(unit):
                lost += TILING_LOSS * slot_cycles(unit.points, 32, self.target)
                if len(found.dims) > 1 and {d for d, _ in unit.folds} <= set(found.dims):
                    # a tile holds one position of most of them: a load and a store at each point
                    lost += 2 * slot_cycles(unit.points, 32, self.target)
            steps = product(-(-n // ROWS) for d, n in group.shared if d in found.dims)
            lost += steps * unit.roots[0].type.nbytes / 16
        return lost

    def _reader(self, unit: Unit, group: Group) -> _Reader | None:
        """How a unit that reads the group's values is summed, or None where it cannot be."""
        if len(unit.roots) != 1 or not isinstance(unit.eqn.op, Map | Reduce | Reindex):
            return None
        root = unit.roots[0]
        ends = reductions(self.graph, self.stored, root)
        parts = [(unit, e) for e in ends]
        raised: frozenset[Var] = frozenset()
        if len(ends) != 1 or not _is_linear(self.graph, self.stored, root, ends[0]):
            raised = frozenset(e.outs[0] for e in ends if len(e.outs) == 1)
            if len(raised) < len(ends) or root in raised:
                return None
            known = self.stored | raised
            rest = unit_of(self.graph, known.__contains__, unit.eqn, unit.roots, unit.number)
            if any(a.var in group.made and self._is_large(a.var) for a in rest.reads):
                return None
            parts = [(unit_of(self.graph, known.__contains__, e, e.outs, 0), e) for e in ends]
        sums: list[tuple[Unit, Sum]] = []
        held: set[Var] = set(raised)
        for part, end in parts:
            if not any(a.var in group.made for a in part.reads):
                continue
            found = sum_of(self.graph, part, end, group)
            if found is None:
                return None
            sums.append((part, found))
            if any(found.slides(d) for d in found.dims):
                held |= {a.var for a in part.reads if a.var in group.made}
        return _Reader(tuple(sums), frozenset(held)) if sums else None


@dataclass(frozen=True, slots=True)
class _Reader:
    sums: tuple[tuple[Unit, Sum], ...]
    stored: frozenset[Var]


def _piece(var: Var, group: Group) -> int:
    shared = {d for d, _ in group.shared}
    return product(n for d, n in var.type.dims if d not in shared) * var.type.dtype.bytes


# ---- the reductions of a unit


def reductions(graph: Graph, stored: frozenset[Var], root: Var) -> list[Eqn]:
    """The outermost reductions that a value's expression evaluates, itself included."""
    found: dict[Eqn, None] = {}
    seen: set[Var] = set()
    waiting = [root]
    while waiting:
        var = waiting.pop()
        eqn = graph.eqn(var)
        if eqn is None or var in seen or (var in stored and var != root):
            continue
        seen.add(var)
        if isinstance(eqn.op, Reduce):
            found[eqn] = None
        else:
            waiting += reversed(inputs(eqn))
    return list(found)


def _is_linear(graph: Graph, stored: frozenset[Var], root: Var, end: Eqn) -> bool:
    """Whether sums of parts, each finished as `root` is, make the root: a renamed reduction, or a
    sum times what does not depend on it."""
    var = root
    while True:
        eqn = graph.eqn(var)
        if eqn is None or eqn is end:
            return eqn is end
        match eqn.op:
            case Reindex(arg, index):
                names = [None if isinstance(i, Var) else i.as_dim() for _, i in index]
                if None in names or len(set(names)) < len(names):
                    return False
                if arg.type.count != var.type.count:
                    return False
                var = arg
            case Map("neg", (arg,)) if _is_sum(end):
                var = arg
            case Map("mul", (a, b)) if _is_sum(end):
                with_end = [
                    x for x in (a, b) if x not in stored and end in reductions(graph, stored, x)
                ]
                if len(with_end) != 1 or with_end[0].type.dtype != var.type.dtype:
                    return False
                var = with_end[0]
            case _:
                return False


def _is_sum(eqn: Eqn) -> bool:
    op = eqn.op
    return isinstance(op, Reduce) and op.monoid.name == "sum" and op.monoid.combine is None


# ---- whether one is a sum over tiles


def sum_of(graph: Graph, unit: Unit, fold: Eqn, group: Group) -> Sum | None:
    """The reduction as a sum over the group's tiles, or None where it is no such thing."""
    op = fold.op
    if not isinstance(op, Reduce) or op.monoid.combine is not None:
        return None
    if op.monoid.name not in SCALAR_OP or len(unit.roots) != 1 or 0 in dict(unit.space).values():
        return None
    shared = {d for d, _ in group.shared}
    at = _positions(unit, group, shared)
    if at is None or any(a.var in group.sums for a in unit.reads):
        return None
    out = {d for d, _ in unit.out}
    dims = tuple(sorted(d for d, f in at.items() if d not in out or f.as_dim() != d))
    if not dims:
        return None
    folded = {name for name, _ in unit.folds if name.removesuffix("'") in op.dims}
    for d in dims:
        if at[d].as_dim() in folded:
            continue
        slides = at[d].is_affine and not at[d].dims & shared
        if not slides or not _is_sum(fold) or not _vanishes(graph, op.args[0], group.made):
            return None
    return Sum(fold, dims, tuple((d, at[d]) for d in dims))


def _positions(unit: Unit, group: Group, shared: set[str]) -> dict[str, Form] | None:
    """Where a unit reads the group's values along shared dims: one place for all of them."""
    at: dict[str, Form] = {}
    for access in unit.reads:
        if access.var not in group.made:
            continue
        for dim, form in access.at:
            if dim in shared and (form is None or at.setdefault(dim, form) != form):
                return None
    return at


def _vanishes(graph: Graph, var: Var, made: set[Var]) -> bool:
    """Whether a summand is zero where a read of the group's values gives zero."""
    if var in made:
        return True
    eqn = graph.eqn(var)
    match eqn.op if eqn else None:
        case Reindex(arg, index, mode, fill):
            plain = not any(isinstance(i, Var) for _, i in index)
            return (
                plain
                and (mode == "trusted" or (mode == "fill" and fill == 0))
                and _vanishes(graph, arg, made)
            )
        case Map("mul", args):
            return any(_vanishes(graph, a, made) for a in args)
        case Map("neg", (arg,)):
            return _vanishes(graph, arg, made)
        case _:
            return False
