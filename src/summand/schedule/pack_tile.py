"""Copy what a product reads across the grain into scratch, once for each tile or each task.

    nest t u d: S[u, t] += Q[t, d] · K[u, d]   ->   nest t d: QT[d, t] = Q[t, d]
                                                    nest t u d: S[u, t] += QT[d, t] · K[u, d]

Only where each element is read several times and the copy fits in the cache beside the tile. Of
what no tile has a part of its own, the whole is copied before the loop over a task's tiles; so is
what is read in several ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from summand.ir.nodes import Map, Reduce, Reindex, Var
from summand.loops.nodes import Stmt
from summand.rewrite.plan.layout import Nest, Walk, best_lanes, is_scattered, nest_of
from summand.rewrite.plan.nodes import Stage
from summand.rewrite.plan.units import product
from summand.schedule.coordinates import Storage
from summand.schedule.cost import PAGE
from summand.schedule.lower_stage import lower_stage
from summand.schedule.pack import LINE
from summand.schedule.task import NestBuilder, Task

Order = tuple[str, ...]
REUSE = 4  # reads of each element that pay for a copy
ROOM = 256 << 10  # bytes of one copy
FEW_WAYS = 4  # of the first cache, which one value may fill


@dataclass(slots=True)
class Packer:
    """Lowers the stages of one kernel, packing operands where that helps. `stepped`: in how many
    steps a task walks tiled dims. `start` has the copies that it makes before."""

    task: Task
    orders: Mapping[Var, Order]
    stepped: Mapping[str, int] = field(default_factory=dict)
    start: list[Stmt] = field(default_factory=list)
    _packed: dict[tuple[Var, Order, frozenset[str]], Storage] = field(default_factory=dict)
    _made: int = 0

    def lower(self, stage: Stage, tiled: bool) -> tuple[Stmt, ...]:
        """The statements of a stage: copies of operands before it, of results behind it."""
        if not tiled or not self._is_plain(stage):
            return lower_stage(self.task, stage)
        nest = self._nest(stage)
        lanes = best_lanes(nest, self.orders)
        before: list[Stmt] = []
        after: list[Stmt] = []
        instead: dict[Var, Storage] = {}
        for walk in nest.walks:
            if walk.var in instead or not self._pays(nest, walk, lanes, stage.carried is not None):
                continue
            away = self._away(stage, walk.var)
            if (away and not self._lasts(walk.var, away)) or not self._fits(walk.var, away):
                continue  # a copy of the tile would not have what is read elsewhere
            if walk.var not in stage.roots:
                before += self._pack(nest, walk, lanes, away, instead)
            elif stage.carried is not None:
                after += self._unpack(nest, walk, lanes, instead)
        task = self.task
        if instead:
            task = replace(task, storage={**task.storage, **instead})
        return (*before, *lower_stage(task, stage), *after)

    def held(self, stages: Sequence[Stage]) -> frozenset[str] | None:
        """The tiled dims along which copied operands move; None where nothing is copied."""
        found: set[str] | None = None
        for stage in stages:
            if self._is_plain(stage) and stage.carried is None:
                nest = self._nest(stage)
                lanes = best_lanes(nest, self.orders)
                for walk in nest.walks:
                    own = walk.var in self.task.made or self._away(stage, walk.var)
                    if not own and self._pays(nest, walk, lanes, False):
                        found = (found or set()) | (walk.moves.keys() & self.task.at.keys())
        return None if found is None else frozenset(found)

    def _nest(self, stage: Stage) -> Nest:
        """The stage's nest, as far as operands are copied for each tile anew."""
        nest = nest_of(stage, self.task.inner)
        made = self.task.made
        walks = (w if w.var in made else w.shared_out(self.stepped) for w in nest.walks)
        return replace(nest, walks=tuple(walks))

    def _is_plain(self, stage: Stage) -> bool:
        eqn = self.task.graph.eqn(stage.roots[0])
        plain = eqn is not None and isinstance(eqn.op, Map | Reduce | Reindex)
        plain = plain and bool(stage.folds)
        return plain or stage.carried is not None

    def _pays(self, nest: Nest, walk: Walk, lanes: Order, carries: bool) -> bool:
        order = self.orders.get(walk.var, ())
        reuse = 1 if carries else REUSE
        across = is_scattered(walk, lanes, order) or _crowds(nest, walk, order)
        if nest.points < reuse * walk.elements or not across:
            return False
        if any(not plain for _, plain in walk.moves.values()):
            return False
        return len(walk.moves) == len(walk.var.type.dims)

    def _away(self, stage: Stage, var: Var) -> frozenset[str]:
        """Tiled dims along which a value is read elsewhere than at the tile's own positions."""
        every = [a for a in stage.reads if a.var == var]
        own = {d for d, _ in var.type.dims if all(a.is_identity(d) for a in every)}
        return frozenset(var.type.names & self.task.at.keys() - own)

    def _fits(self, var: Var, away: frozenset[str]) -> bool:
        inner = self.task.inner
        count = product(n if d in away else inner.get(d, n) for d, n in var.type.dims)
        return count * var.type.dtype.bytes <= ROOM

    def _lasts(self, var: Var, away: frozenset[str]) -> bool:
        """Whether a copy, whole along the dims `away`, serves all tiles of a task."""
        moved = var.type.names - away
        return bool(self.stepped) and var not in self.task.made and not moved & self.stepped.keys()

    def _pack(
        self,
        nest: Nest,
        walk: Walk,
        lanes: Order,
        away: frozenset[str],
        instead: dict[Var, Storage],
    ) -> list[Stmt]:
        """The nest that makes a copy, unless there is one already."""
        var, order = walk.var, self._order(nest, walk, lanes)
        known = self._packed.get((var, order, away))
        if known is not None:
            instead[var] = known
            return []
        task = self.task.without(away)
        packed = instead[var] = self._packed[var, order, away] = self._memory(task, var, order)
        copy = _copy(task, var, order, self.task.storage[var], packed)
        if self._lasts(var, away):
            self.start.append(copy)
            return []
        return [copy]

    def _unpack(
        self, nest: Nest, walk: Walk, lanes: Order, instead: dict[Var, Storage]
    ) -> list[Stmt]:
        """The nest that brings a result from the order of the lanes to its own."""
        order = self._order(nest, walk, lanes)
        made = instead[walk.var] = self._memory(self.task, walk.var, order)
        return [
            _copy(self.task, walk.var, self.orders[walk.var], made, self.task.storage[walk.var])
        ]

    def _order(self, nest: Nest, walk: Walk, lanes: Order) -> Order:
        """Dims of the lanes innermost; without any, all that a step of a recurrence reads."""
        inner = tuple(walk.moves[d][0] for d in lanes if d in walk.moves)
        if not inner:
            inner = tuple(d for d in self.orders[walk.var] if d not in _stepped(nest, walk))
        return (*(d for d in self.orders[walk.var] if d not in inner), *inner)

    def _memory(self, task: Task, var: Var, order: Order) -> Storage:
        sizes = var.type.sizes
        dims = tuple((d, task.inner.get(d, sizes[d])) for d in order)
        self._made += 1
        name = f"pack {self._made}"
        task.add_scratch(name, var.type.dtype, product(n for _, n in dims))
        return task.within(Storage.dense(name, var.type.dtype, dims))


def _stepped(nest: Nest, walk: Walk) -> frozenset[str]:
    """A value's dims along which a recurrence goes step by step."""
    return frozenset(walk.moves[d][0] for d in nest.sequential if d in walk.moves)


def _crowds(nest: Nest, walk: Walk, order: Order) -> bool:
    """Whether what one step of a recurrence reads lies in lines that meet in one set of the first
    cache: each is driven out before the next step reads its neighbour."""
    steps = _stepped(nest, walk)
    if not order or order[-1] not in steps:
        return False
    held = {dim: nest.extents.get(d, 1) for d, (dim, _) in walk.moves.items()}
    rows, stride, lines = 1, walk.var.type.dtype.bytes, 0.0
    for dim in reversed(order):
        if dim not in steps:
            share = math.gcd(stride, PAGE) / PAGE if stride >= LINE else 0.0
            rows *= held.get(dim, 1)
            lines = max(lines, rows * share)
        stride *= walk.var.type.sizes[dim]
    return lines > FEW_WAYS


def _copy(task: Task, var: Var, order: Order, source: Storage, target: Storage) -> Stmt:
    sizes = var.type.sizes
    builder = NestBuilder.over(task, {d: sizes[d] for d in order})
    at = builder.point(var.type.dims)
    builder.store(target, at, builder.code.load_from(source, at))
    return builder.finish()
