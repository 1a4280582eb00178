"""Cut a program into kernels: what is stored, what its readers evaluate, what runs together.

    %2 = exp %0; %3 = sum{j} %2; %4 = div %2 %3
      ->  cluster, shared dims {i}: [%2 and %3 in one nest; %4], %2 and %3 in scratch

Needs a Program without complex values, random bits, sorts and custom rules. Keeps every result.
First the values that must have memory are found (`stored.py`), then their computations are joined
into clusters (`clusters.py`), reductions over the tiles of these with them (`streams.py`), and
last those of each cluster into nests (`stages.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from summand.ir.nodes import Constant, Eqn, Program, Recur, Var
from summand.options import Options, Target
from summand.rewrite.plan.clusters import Group, join, solitary
from summand.rewrite.plan.nodes import (
    Cluster,
    Control,
    Graph,
    Item,
    Plan,
    Stage,
    Sum,
    is_control,
    unique_bodies,
)
from summand.rewrite.plan.remat import recomputed
from summand.rewrite.plan.stages import local_to_each, stages_of
from summand.rewrite.plan.stored import choose_stored
from summand.rewrite.plan.streams import find_streams, sum_of
from summand.rewrite.plan.units import Unit, unit_of
from summand.rewrite.recur.absorb import absorb
from summand.rewrite.recur.flatten import flatten_bodies
from summand.rewrite.recur.partial_folds import partial_folds

Orders = Mapping[Var, tuple[str, ...]]
UNKNOWN: Orders = MappingProxyType({})


def fuse(program: Program, target: Target, options: Options, orders: Orders = UNKNOWN) -> Plan:
    """The plan of a program. `orders`: of arrays in memory, as far as they are known."""
    flat = flatten_bodies(program)
    whole = unique_bodies(absorb(flat, target) if options.fuse else flat)
    cut = unique_bodies(partial_folds(whole, target)) if options.fuse else whole
    found = _fused(cut, target, options, orders)
    if found is None:
        found = _fused(whole, target, options, orders)
    assert found is not None
    return found


def _fused(program: Program, target: Target, options: Options, orders: Orders) -> Plan | None:
    """The plan, unless folds in parts of the program are not where their tasks are."""
    graph = Graph.of(program)
    chosen = choose_stored(graph, program, target)
    units = _units(graph, program, chosen.all)
    results = frozenset(program.results)
    groups = join(units, results, target, orders) if options.fuse else solitary(units)
    stored = chosen.all
    streams = find_streams(graph, groups, stored, chosen.soft, results, target)
    if streams.folds:
        stored |= streams.stored
        units = _units(graph, program, stored)
        groups = _streamed(graph, units, results, target, orders, streams.folds)
    if not all(_has_blocks(g) for g in groups):
        return None
    soft = chosen.soft - streams.stored
    dropped = None
    if options.remat:
        outside = sum(v.type.nbytes for v in (*program.params, *program.results))
        dropped = recomputed(groups, soft, target, outside)
    if dropped:
        groups = _without(graph, program, groups, stored - dropped)
    return Plan(program, tuple(_items(graph, groups, results, target)))


def _has_blocks(group: Group) -> bool:
    """Whether all folds in parts of a group are of dims that it shares, in blocks of one size."""
    blocks = {u.block for u in group.units if u.block is not None}
    shared = {d for d, _ in group.shared}
    sizes = {b.dim: b.size for b in blocks}
    return all(b.dim in shared and group.carries and sizes[b.dim] == b.size for b in blocks)


def _streamed(
    graph: Graph,
    units: Sequence[Unit],
    results: frozenset[Var],
    target: Target,
    orders: Orders,
    folds: Mapping[Var, Eqn],
) -> list[Group]:
    """Groups in which some reductions are summed tile by tile."""

    def find_sum(unit: Unit, group: Group) -> Sum | None:
        return sum_of(graph, unit, folds[unit.roots[0]], group)

    return join(units, results, target, orders, frozenset(folds), find_sum)


def _units(graph: Graph, program: Program, stored: frozenset[Var]) -> list[Unit]:
    units: list[Unit] = []
    for eqn in program.eqns:
        roots = tuple(o for o in eqn.outs if o in stored or is_control(eqn))
        if roots and not isinstance(eqn.op, Constant):
            units.append(unit_of(graph, stored.__contains__, eqn, roots, len(units)))
    return units


def _without(
    graph: Graph, program: Program, groups: Sequence[Group], stored: frozenset[Var]
) -> list[Group]:
    """The same groups when some values are not stored after all."""
    new = {u.eqn: u for u in _units(graph, program, stored)}
    out = []
    for group in groups:
        units = [new[u.eqn] for u in group.units if u.eqn in new]
        if units:
            out.append(Group(units, group.shared, group.fixed, sums=group.sums))
    return out


# ---- clusters


def _items(
    graph: Graph, groups: Sequence[Group], results: frozenset[Var], target: Target
) -> Iterable[Item]:
    readers: dict[Var, set[int]] = {}
    for k, group in enumerate(groups):
        for unit in group.units:
            for access in unit.reads:
                readers.setdefault(access.var, set()).add(k)
    for k, group in enumerate(groups):
        if is_control(group.units[0].eqn):
            yield Control(group.units[0].eqn)
            continue
        nests = _nests(group)
        private = {
            r for u in group.units for r in u.roots if r not in results and readers.get(r) == {k}
        }
        stages = tuple(
            _stage(graph, units, local, target, group.sums)
            for units, local in zip(nests, local_to_each(nests, private), strict=True)
        )
        scratch = frozenset(r for s in stages for r in s.roots if r in private)
        several = len(stages) > 1 or any(s.body or len(s.over) > 1 for s in stages)
        shared = tuple(sorted(group.shared)) if several else ()
        blocks = tuple(dict.fromkeys(u.block for u in group.units if u.block is not None))
        if blocks:
            shared = tuple(sorted(group.shared))
        yield Cluster(stages, shared, scratch if len(stages) > 1 else frozenset(), blocks)


def _nests(group: Group) -> list[list[Unit]]:
    """The nests of a group; those that sum over its tiles are last."""
    inside = [u for u in group.units if u.roots[0] not in group.sums]
    last = [u for u in group.units if u.roots[0] in group.sums]
    return [*stages_of(inside), *stages_of(last)]


def _stage(
    graph: Graph,
    units: Sequence[Unit],
    local: set[Var],
    target: Target,
    sums: Mapping[Var, Sum] = MappingProxyType({}),
) -> Stage:
    made = {r for u in units for r in u.roots}
    roots = tuple(r for u in units for r in u.roots if r not in local)
    eqn = units[0].eqn
    reads = tuple(dict.fromkeys(a for u in units for a in u.reads if a.var not in made))
    folds = tuple(f for u in units for f in u.folds)
    if units[0].carries:
        return Stage(roots, (), reads, folds, eqn, units[0].over)
    folds = tuple(dict.fromkeys(folds))
    if not isinstance(eqn.op, Recur):
        tiled = tuple(sums[r] for r in roots if r in sums)
        walked = units[0].walked
        return Stage(
            roots, (), reads, folds, local=_ordered(units, local), sums=tiled, walked=walked
        )
    body = tuple(_body_stages(graph, eqn.op.body, target))
    return Stage(roots, body, reads, folds, None, units[0].over)


def _ordered(units: Sequence[Unit], local: set[Var]) -> tuple[Var, ...]:
    return tuple(r for u in units for r in u.roots if r in local)


def _body_stages(graph: Graph, body: Program, target: Target) -> Iterable[Stage]:
    """The nests of a recurrence's body, in order."""
    chosen = choose_stored(graph, body, target)
    units = _units(graph, body, chosen.all)
    nests = stages_of(units)
    own = local_to_each(nests, chosen.all.difference(body.results))
    for nest, local in zip(nests, own, strict=True):
        yield _stage(graph, nest, local, target)
