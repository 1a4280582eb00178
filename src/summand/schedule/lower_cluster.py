"""Lower a cluster of the plan to a kernel: its tiles become the grid around its nests.

    cluster shared {i=4096} [e, s; y]   ->   kernel, grid i.t=1024: nest i=4 j; nest i=4 j

The last tile of a dim that the tile does not divide is moved back to end at the edge (`Let`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.dtypes import DType
from summand.ir.index import Form
from summand.ir.nodes import Var
from summand.loops.nodes import Stmt
from summand.rewrite.plan.nodes import Cluster, Graph, Stage, Tile
from summand.rewrite.plan.units import product
from summand.schedule.coordinates import Coord, Storage
from summand.schedule.lower_sums import Launched, NewBuffer, Sums, walks
from summand.schedule.pack_tile import Packer
from summand.schedule.task import Memory, NestBuilder, Task

Order = tuple[str, ...]


def lower_cluster(
    graph: Graph,
    cluster: Cluster,
    storage: dict[Var, Storage],
    orders: Mapping[Var, Order],
    tiles: Sequence[Tile],
    memory: Mapping[str, Memory],
    new_buffer: NewBuffer,
) -> list[Launched]:
    """The kernels of a cluster, each with the buffers that it is launched on."""
    stages = [s for s in cluster.stages if any(v.type.count for v in s.roots)]
    if not stages:
        return []
    cut = [t for t in tiles if t.tile < t.size]
    task = Task(graph, dict(storage), memory, made=frozenset(cluster.roots))
    walked = walks(cut, cluster)
    for w in walked:
        w.bind(task)
    if len(walked) > 1 and not cluster.summed and len(stages) > 1:
        held = Packer(task, orders, {w.tile.dim: w.tile.steps for w in walked}).held(stages)
        if held is not None:
            task = Task(graph, dict(storage), memory, made=frozenset(cluster.roots))
            walked = walks(cut, cluster, held)
            for w in walked:
                w.bind(task)
    for block in cluster.blocks:
        number = next((w.index for w in walked if w.tile.dim == block.dim), Form())
        task.at[block.place], task.inner[block.place] = Coord(number), 1
        task.blocks[block.dim] = number * block.size
    _place_scratch(task, stages, cluster.scratch, orders)
    sums = Sums(task, orders, {w.tile.dim: w for w in walked}, new_buffer)
    for stage in stages:
        if stage.sums:
            sums.add(stage)
    packer = Packer(task, orders, {w.tile.dim: w.steps for w in walked if w.steps > 1})
    parts = [packer.lower(stage, len(stages) > 1) for stage in stages]
    name = _name(graph, cluster)
    body: tuple[Stmt, ...] = tuple(stmt for part in parts for stmt in part)
    for w in reversed([w for w in walked if w.steps > 1]):
        body = w.around(body)
    body = (*sums.start, *packer.start, *body)
    for w in reversed([w for w in walked if w.steps == 1]):
        body = w.around(body)
    grid = tuple((f"{w.tile.dim}.t", w.parts) for w in walked if w.parts > 1 or w.steps == 1)
    kernel = task.kernel(name, grid, body)
    return [(kernel, task.kernel_buffers()), *sums.folds()]


def _place_scratch(
    task: Task, stages: Sequence[Stage], scratch: frozenset[Var], orders: Mapping[Var, Order]
) -> None:
    """Memory for the values that live within a tile. One whose last reader has run leaves its
    buffer to the next of the same size, so that a tile's values keep to the cache."""
    last = {a.var: k for k, stage in enumerate(stages) for a in stage.reads}
    free: dict[tuple[DType, int], list[str]] = {}
    busy: list[tuple[int, str, tuple[DType, int]]] = []
    made = 0
    for k, stage in enumerate(stages):
        for _, name, kind in [b for b in busy if b[0] < k]:
            free.setdefault(kind, []).append(name)
        busy = [b for b in busy if b[0] >= k]
        for var in (v for v in stage.roots if v in scratch):
            sizes = var.type.sizes
            dims = tuple((d, task.inner.get(d, sizes[d])) for d in orders[var])
            kind = (var.type.dtype, product(n for _, n in dims))
            if free.get(kind):
                name = free[kind].pop(0)
            else:
                name, made = f"s{made}", made + 1
                task.add_scratch(name, *kind)
            busy.append((last.get(var, k), name, kind))
            task.storage[var] = task.within(Storage.dense(name, var.type.dtype, dims))


def _name(graph: Graph, cluster: Cluster) -> str:
    eqn = graph.eqn(cluster.stages[-1].roots[0])
    return type(eqn.op).__name__.lower() if eqn else "copy"


def transposing_kernel(
    graph: Graph, var: Var, source: Storage, to: Storage, memory: Mapping[str, Memory]
) -> Launched:
    """A kernel that copies a value to memory of another order."""
    task = Task(graph, {}, memory)
    builder = NestBuilder.over(task, {d: var.type.sizes[d] for d, _ in to.strides})
    at = builder.point(var.type.dims)
    builder.store(to, at, builder.code.load_from(source, at))
    kernel = task.kernel("transpose", (), [builder.finish()])
    return kernel, task.kernel_buffers()
