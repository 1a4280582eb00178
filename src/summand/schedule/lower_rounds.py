"""Lower a recurrence whose steps are launched one by one: a kernel for each nest of a step.

    %9 = recur over t: u = f(u[t-1] and its neighbours)
      ->  launch u0 = start;  rounds t: launch u[t % 2] = f(u[(t+1) % 2]);  launch result = u[…]

It is lowered as a loop within a task, whose statements then become kernels of their own. Scratch
lies in the arena, and the recurrence's dim is the outermost one of the grids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from summand.errors import InternalError
from summand.ir.nodes import Var
from summand.loops.nodes import Kernel, Loop, Stmt
from summand.rewrite.plan.nodes import Cluster, Graph, Stage, is_launched
from summand.schedule.coordinates import Storage
from summand.schedule.lower_stage import lower_stage
from summand.schedule.lower_sums import Launched, NewBuffer
from summand.schedule.moves import buffers_of, nests_of
from summand.schedule.task import Memory, Task


@dataclass(frozen=True, slots=True)
class Parts:
    """What is launched once before the first round, `count` times, and once after the last."""

    count: int
    first: tuple[Launched, ...]
    rounds: tuple[Launched, ...]
    last: tuple[Launched, ...]


def is_in_rounds(graph: Graph, cluster: Cluster) -> bool:
    """Whether a cluster is a recurrence that is launched step by step."""
    made = (graph.eqn(v) for s in cluster.stages for v in s.roots)
    return any(eqn is not None and is_launched(eqn) for eqn in made)


def lower_rounds(
    graph: Graph,
    stage: Stage,
    storage: Mapping[Var, Storage],
    memory: Mapping[str, Memory],
    new_buffer: NewBuffer,
) -> Parts:
    """The kernels of a recurrence."""
    task = Task(graph, dict(storage), memory, made=frozenset(stage.roots), between=new_buffer)
    stmts = lower_stage(task, stage)
    (at,) = (k for k, stmt in enumerate(stmts) if isinstance(stmt, Loop))
    loop = stmts[at]
    assert isinstance(loop, Loop)
    return Parts(
        loop.extent,
        tuple(_kernel(task, "start", stmt) for stmt in stmts[:at]),
        tuple(_kernel(task, "step", stmt, (loop.dim, loop.extent)) for stmt in loop.body),
        tuple(_kernel(task, "last", stmt) for stmt in stmts[at + 1 :]),
    )


def _kernel(task: Task, name: str, stmt: Stmt, *grid: tuple[str, int]) -> Launched:
    """A statement as a kernel, with the buffers that it touches."""
    touched = {b for nest in nests_of((stmt,)) for b in buffers_of(nest)}
    if any(b.name in touched for b in task.scratch.values()):
        raise InternalError("lower: scratch between two kernels")
    found = {name: buffer for name, buffer in task.globals.items() if buffer.name in touched}
    buffers = tuple(task.moved.get(name, name) for name in found)
    return Kernel(name, tuple(found.values()), (), grid, (stmt,)), buffers
