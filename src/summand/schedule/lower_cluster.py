"""Lower a cluster of the plan to a kernel: its tiles become the grid and loops around its nests."""

from __future__ import annotations

from collections.abc import Mapping

from summand.ir.nodes import Var
from summand.loops.nodes import Kernel, Stmt
from summand.options import Target
from summand.rewrite.plan import Cluster, Graph
from summand.schedule.expressions import Storage
from summand.schedule.lower_stage import lower_stage
from summand.schedule.task import Memory, NestBuilder, Task

Launched = tuple[Kernel, tuple[str, ...]]


def lower_cluster(
    graph: Graph,
    cluster: Cluster,
    storage: dict[Var, Storage],
    memory: Mapping[str, Memory],
    target: Target,
) -> list[Launched]:
    """The kernels of a cluster, each with the buffers that it is launched on."""
    if all(v.type.count == 0 for v in cluster.roots):
        return []
    task = Task(graph, storage, memory)
    body: list[Stmt] = []
    for stage in cluster.stages:
        body += lower_stage(task, stage)
    kernel = task.kernel(_name(graph, cluster), (), body)
    return [(kernel, task.kernel_buffers())]


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
