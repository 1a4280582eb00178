"""What all recurrences need of a task: scratch for states, copies of the last ones, names."""

from __future__ import annotations

from collections.abc import Mapping

from summand.ir.nodes import Eqn, Var
from summand.loops.nodes import Stmt
from summand.rewrite.plan.nodes import Stage
from summand.rewrite.plan.units import product
from summand.schedule.coordinates import Coord, Storage
from summand.schedule.task import NestBuilder, Task


def fresh(name: str, task: Task) -> str:
    """A name for a loop that no loop around it has."""
    while name in task.outer:
        name += "'"
    return name


def extents_of(task: Task, var: Var) -> tuple[tuple[str, int], ...]:
    """A value's dims in the order of the task's scratch, as large as a tile."""
    last = len(task.rank)
    dims = sorted(var.type.dims, key=lambda x: (task.rank.get(x[0], last), x[0]))
    return tuple((d, task.inner.get(d, n)) for d, n in dims)


def local_memory(task: Task, var: Var, like: Var | None = None) -> Storage:
    """Scratch for a value that lives within a task: as large as a tile of it."""
    return scratch_of(task, f"{var}", like or var, extents_of(task, like or var))


def scratch_of(task: Task, name: str, var: Var, dims: tuple[tuple[str, int], ...]) -> Storage:
    """Scratch of these dims for elements of a value."""
    task.add_scratch(name, var.type.dtype, product(n for _, n in dims))
    return task.within(Storage.dense(name, var.type.dtype, dims))


def copy_last(task: Task, out: Var, whole: Storage, last: dict[str, Coord]) -> Stmt:
    """Copy the state at one position to its result."""
    builder = NestBuilder.over(task, out.type.sizes)
    at = builder.point(out.type.dims)
    builder.store(task.storage[out], at, builder.code.load_from(whole, {**at, **last}))
    return builder.finish()


def store_others(builder: NestBuilder, eqn: Eqn, stage: Stage, sizes: Mapping[str, int]) -> None:
    """Store what else a nest computes from the states that it carries."""
    for dim, n in sizes.items():
        builder.reuse(dim, n, dim)
    for root in stage.roots:
        if root not in eqn.outs:
            at = builder.point(root.type.dims)
            builder.store(builder.task.storage[root], at, builder.code.value(root, at))
