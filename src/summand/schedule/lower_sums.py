"""The tile loops of a cluster, and what is summed over them.

    cluster shared {b, i}, c summed over i:   grid b.t i.t=4:  c' = 0; loop i.s: nest e; c' += …
                                              kernel: c = fold add {i.t} c'

Dims that nothing sums are the grid. A summed one is walked in order within a task, which adds to
its results in place. Where that leaves too few tasks it is cut into parts, or where a result is
narrower than its sum: then each part has sums of its own, and a second kernel folds them in order.
How many parts there are follows from the shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from summand.dtypes import DType, accumulator
from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import SCALAR_OP, Reduce, Var, identity_of
from summand.loops.nodes import Fold, Guard, Kernel, Let, Loop, Stmt, When
from summand.rewrite.plan.layout import Nest, improved, nest_of
from summand.rewrite.plan.nodes import Cluster, Stage, Sum, Tile
from summand.rewrite.plan.units import product
from summand.schedule.coordinates import ZERO, Coord, Storage
from summand.schedule.expressions import combine_of
from summand.schedule.task import NestBuilder, Task

Order = tuple[str, ...]
Launched = tuple[Kernel, tuple[str, ...]]
NewBuffer = Callable[[DType, int], str]
TASKS = 16  # that a kernel with sums should have
FEWER = 8  # the same where the sums of all of them would take more than
MOST_BYTES = 4 << 20
MOST_TASKS = 64  # into which tiles are gathered that nothing sums


@dataclass(frozen=True, slots=True)
class Walked:
    """A tiled dim: `parts` in the grid, `steps` in order within each."""

    tile: Tile
    parts: int
    steps: int

    @property
    def index(self) -> Form:
        """Which tile this is."""
        grid, step = Form.of(f"{self.tile.dim}.t"), Form.of(f"{self.tile.dim}.s")
        if self.steps == 1:
            return grid
        return grid * self.steps + step if self.parts > 1 else step

    def bind(self, task: Task) -> None:
        """Bind the dim: its position is the tile's origin plus the position within the tile."""
        dim, tile, size = self.tile.dim, self.tile.tile, self.tile.size
        if self.parts > 1 or self.steps == 1:
            task.outer[f"{dim}.t"] = self.parts
        if self.steps > 1:
            task.outer[f"{dim}.s"] = self.steps
        task.first[dim] = task.origin[dim] = self.index * tile
        if size % tile:
            task.outer[f"{dim}.o"] = size - tile + 1
            task.origin[dim] = Form.of(f"{dim}.o")
        task.inner[dim] = task.tile[dim] = tile
        origin = task.origin[dim]
        task.at[dim] = Coord(origin + Form.of(dim) if tile > 1 else origin)

    def around(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """The statements of a tile within the loop over the tiles of one part."""
        dim, tile, size = self.tile.dim, self.tile.tile, self.tile.size
        if size % tile:
            body = (Let(f"{dim}.o", self.index * tile, 0, size - tile, body),)
        if self.parts * self.steps > self.tile.steps:
            body = (When((Guard(self.index, self.tile.steps),), body),)
        return (Loop(f"{dim}.s", self.steps, body),) if self.steps > 1 else body


def walks(
    tiles: Sequence[Tile], cluster: Cluster, held: frozenset[str] | None = None
) -> list[Walked]:
    """How the tiles are walked: those that nothing sums are tasks, and of the others first those
    whose sums take the fewest bytes, until there are tasks enough. Where operands are copied that
    move along the dims `held` only, a task walks the other dims and copies them once."""
    folded = dict.fromkeys(cluster.summed, 0)
    if held is not None:
        folded = {t.dim: 0 for t in tiles if t.dim not in held}
    for stage in cluster.stages:
        for root, found in zip(stage.roots, stage.sums):
            for d in found.dims:
                folded[d] += root.type.nbytes
    parts = {t.dim: t.steps for t in tiles if t.dim not in folded}
    for t in sorted(tiles, key=lambda t: (folded.get(t.dim, 0), t.dim)):
        if t.dim in folded:
            wanted = TASKS if folded[t.dim] * TASKS <= MOST_BYTES else FEWER
            wanted = wanted if held is None else MOST_TASKS
            tasks = product(parts.values())
            cut = min(t.steps, -(-wanted // tasks)) if 2 * tasks <= wanted else 1
            steps = -(-t.steps // cut)
            parts[t.dim] = -(-t.steps // steps)
    return [Walked(t, parts[t.dim], -(-t.steps // parts[t.dim])) for t in tiles]


# ---- what is summed


@dataclass(slots=True)
class Sums:
    """The sums of one kernel: statements before its loops, and kernels that fold parts."""

    task: Task
    orders: Mapping[Var, Order]
    walked: Mapping[str, Walked]
    new_buffer: NewBuffer
    start: list[Stmt] = field(default_factory=list)
    _parted: list[tuple[Var, Reduce, Storage, Storage, tuple[str, ...]]] = field(
        default_factory=list
    )

    def add(self, stage: Stage) -> None:
        """Find memory for the sums of a stage, and set it to the identity where tiles add to it."""
        for root, found in zip(stage.roots, stage.sums, strict=True):
            if not isinstance(found.fold.op, Reduce):
                raise InternalError("lower: a sum over tiles that is no reduction")
            self._add(root, found, found.fold.op, nest_of(stage, self.task.inner))

    def _add(self, root: Var, found: Sum, op: Reduce, nest: Nest) -> None:
        over = [self.walked[d] for d in found.dims if d in self.walked]
        parts = tuple(w.tile.dim for w in over if w.parts > 1)
        again = any(w.steps > 1 for w in over)
        whole = self.task.storage[root]
        wide = accumulator(whole.dtype)
        order = improved(root, [nest], dict(self.orders)) if parts or again else ()
        # what is added to in the order of rows that lie apart had better be near, and moved at last
        if parts or (again and (wide != whole.dtype or order != self.orders[root])):
            self.task.storage[root] = self._memory(root, order, wide, parts)
            self._parted.append((root, op, whole, self.task.storage[root], parts))
        if again:
            self.task.combines[root] = SCALAR_OP[op.monoid.name]
            self.start += self._identity(root, found, op)

    def _memory(self, root: Var, order: Order, dtype: DType, parts: tuple[str, ...]) -> Storage:
        """Memory of its own for each part, in the order that suits the stage."""
        sizes, count = root.type.sizes, root.type.count
        counts = [self.walked[d].parts for d in parts]
        name = self.new_buffer(dtype, count * product(counts))
        storage = Storage.dense(name, dtype, tuple((d, sizes[d]) for d in order))
        base, step = ZERO, count
        for d, n in zip(parts, counts, strict=True):
            base, step = base + Form.of(f"{d}.t") * step, step * n
        return Storage(name, dtype, storage.strides, base)

    def _identity(self, root: Var, found: Sum, op: Reduce) -> tuple[Stmt, ...]:
        task = self.task.without(found.dims)
        to = task.storage[root]
        builder = NestBuilder.over(task, {d: root.type.sizes[d] for d, _ in to.strides})
        (value,) = identity_of(op.monoid, (to.dtype,))
        number = value.real if isinstance(value, complex) else value
        start = builder.code.const(number, to.dtype)
        builder.store(to, builder.point(root.type.dims), start, guards=task.own(root))
        body: tuple[Stmt, ...] = (builder.finish(),)
        for w in self.walked.values():
            if w.steps > 1 and w.tile.dim in task.at:
                body = w.around(body)
        return body

    def folds(self) -> list[Launched]:
        """The kernels that fold the parts, in order."""
        return [self._folding(*parted) for parted in self._parted]

    def _folding(
        self, root: Var, op: Reduce, whole: Storage, parted: Storage, parts: tuple[str, ...]
    ) -> Launched:
        task = Task(self.task.graph, {}, self.task.memory)
        builder = NestBuilder.over(task, {d: root.type.sizes[d] for d, _ in whole.strides})
        at = builder.point(root.type.dims)
        dims = tuple(f"{d}.t" for d in parts)
        for d, name in zip(parts, dims, strict=True):
            builder.add(name, self.walked[d].parts)
        ref = builder.code.load_from(parted, at)
        if dims:
            ref = builder.code.emit(
                Fold(combine_of(op.monoid, (parted.dtype,)), dims, (ref,), parted.dtype)
            )
        builder.store(whole, at, ref)
        return task.kernel("sums", (), [builder.finish()]), task.kernel_buffers()
