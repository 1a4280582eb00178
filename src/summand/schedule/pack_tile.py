"""Copy what a product reads across the grain into scratch, once for each tile.

    nest t u d: S[u, t] += Q[t, d] · K[u, d]   ->   nest t d: QT[d, t] = Q[t, d]
                                                    nest t u d: S[u, t] += QT[d, t] · K[u, d]

Only where each element is read several times, all of them in one way, and the copy fits in the
cache beside the tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from summand.ir.nodes import Map, Reduce, Var
from summand.loops.nodes import Stmt
from summand.rewrite.plan.layout import Nest, Walk, best_lanes, is_scattered, nest_of
from summand.rewrite.plan.nodes import Stage
from summand.rewrite.plan.units import product
from summand.schedule.coordinates import Storage
from summand.schedule.lower_stage import lower_stage
from summand.schedule.task import NestBuilder, Task

Order = tuple[str, ...]
REUSE = 4  # reads of each element that pay for a copy
ROOM = 256 << 10  # bytes of one copy


@dataclass(slots=True)
class Packer:
    """Lowers the stages of one kernel, packing operands where that helps."""

    task: Task
    orders: Mapping[Var, Order]
    _packed: dict[tuple[Var, Order], Storage] = field(default_factory=dict)
    _made: int = 0

    def lower(self, stage: Stage, tiled: bool) -> tuple[Stmt, ...]:
        """The statements of a stage: copies of operands before it, of results behind it."""
        if not tiled or not self._is_plain(stage):
            return lower_stage(self.task, stage)
        nest = nest_of(stage, self.task.inner)
        lanes = best_lanes(nest, self.orders)
        reads = Counter(walk.var for walk in nest.walks)
        before: list[Stmt] = []
        after: list[Stmt] = []
        instead: dict[Var, Storage] = {}
        for walk in nest.walks:
            if reads[walk.var] > 1 or not self._pays(nest, walk, lanes, stage.carried is not None):
                continue
            if any(w.var is walk.var and w.moves != walk.moves for w in nest.walks):
                continue  # a copy of the tile would not have what the other read wants
            if walk.var not in stage.roots:
                before += self._pack(walk, lanes, instead)
            elif stage.carried is not None:
                after += self._unpack(walk, lanes, instead)
        task = self.task
        if instead:
            task = replace(task, storage={**task.storage, **instead})
        return (*before, *lower_stage(task, stage), *after)

    def _is_plain(self, stage: Stage) -> bool:
        eqn = self.task.graph.eqn(stage.roots[0])
        plain = eqn is not None and isinstance(eqn.op, Map | Reduce) and bool(stage.folds)
        return plain or stage.carried is not None

    def _pays(self, nest: Nest, walk: Walk, lanes: Order, carries: bool) -> bool:
        order = self.orders.get(walk.var, ())
        reuse = 1 if carries else REUSE
        if nest.points < reuse * walk.elements or not is_scattered(walk, lanes, order):
            return False
        if any(not plain for _, plain in walk.moves.values()):
            return False
        if len(walk.moves) != len(walk.var.type.dims):
            return False
        moved = {dim: name for name, (dim, _) in walk.moves.items()}
        if any(moved[d] != d and d in self.task.at for d in moved):
            return False
        return self._count(walk.var) * walk.var.type.dtype.bytes <= ROOM

    def _count(self, var: Var) -> int:
        return product(self.task.inner.get(d, n) for d, n in var.type.dims)

    def _pack(self, walk: Walk, lanes: Order, instead: dict[Var, Storage]) -> list[Stmt]:
        """The nest that makes a copy, unless there is one already."""
        var, order = walk.var, self._order(walk, lanes)
        known = self._packed.get((var, order))
        if known is not None:
            instead[var] = known
            return []
        packed = instead[var] = self._packed[(var, order)] = self._memory(var, order)
        return [self._copy(var, order, self.task.storage[var], packed)]

    def _unpack(self, walk: Walk, lanes: Order, instead: dict[Var, Storage]) -> list[Stmt]:
        """The nest that brings a result from the order of the lanes to its own."""
        order = self._order(walk, lanes)
        made = instead[walk.var] = self._memory(walk.var, order)
        return [self._copy(walk.var, self.orders[walk.var], made, self.task.storage[walk.var])]

    def _order(self, walk: Walk, lanes: Order) -> Order:
        inner = tuple(walk.moves[d][0] for d in lanes if d in walk.moves)
        return (*(d for d in self.orders[walk.var] if d not in inner), *inner)

    def _memory(self, var: Var, order: Order) -> Storage:
        task, sizes = self.task, var.type.sizes
        self._made += 1
        name = f"pack {self._made}"
        task.add_scratch(name, var.type.dtype, self._count(var))
        dims = tuple((d, task.inner.get(d, sizes[d])) for d in order)
        return task.within(Storage.dense(name, var.type.dtype, dims))

    def _copy(self, var: Var, order: Order, source: Storage, target: Storage) -> Stmt:
        sizes = var.type.sizes
        builder = NestBuilder.over(self.task, {d: sizes[d] for d in order})
        at = builder.point(var.type.dims)
        builder.store(target, at, builder.code.load_from(source, at))
        return builder.finish()
