"""A module while it is lowered: kernels, each emitted once, and the program's buffers.

At the end temporaries get their places in the arena by their lifetimes over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from summand.dtypes import DType
from summand.errors import Loc
from summand.ir.nodes import Var
from summand.loops.nodes import (
    Branch,
    Copy,
    Foreign,
    Kernel,
    Launch,
    Layout,
    Module,
    Place,
    Repeat,
    Rounds,
    Step,
)
from summand.options import Options, Target
from summand.rewrite.plan.memory import Life, arena_offsets, check_fits, memory_limit
from summand.schedule.choose import Scheduled, schedule_kernel
from summand.schedule.task import Memory

Kind = Literal["param", "result", "arena", "constant"]


@dataclass(slots=True)
class Unfinished:
    """A module that grows: kernels (each once), buffers, and what is known about them."""

    target: Target
    options: Options
    kernels: list[Kernel] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    kinds: dict[str, tuple[Kind, int]] = field(default_factory=dict)
    dims: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    scheduled: bool = True
    made: Callable[[Kernel], None] | None = None
    _seen: dict[Kernel, tuple[tuple[int, ...], Scheduled]] = field(default_factory=dict)
    _launches: int = 0
    limit: int = field(default_factory=memory_limit)

    def add(self, kind: Kind, name: str, var: Var, number: int = 0, loc: Loc | None = None) -> str:
        """A buffer for a value."""
        check_fits(str(var.type), var.type.nbytes, loc, self.limit)
        self.memory[name] = Memory(var.type.dtype, var.type.count)
        self.kinds[name] = (kind, number)
        return name

    def temporary(self, dtype: DType, size: int) -> str:
        """A buffer in the arena that no value of the program has."""
        name = f"t{len(self.memory)}"
        self.memory[name] = Memory(dtype, size)
        self.kinds[name] = ("arena", 0)
        return name

    def constant(self, name: str, dtype: DType, data: bytes) -> str:
        """A buffer of known contents."""
        self.memory[name] = Memory(dtype, len(data) // dtype.bytes, data)
        self.kinds[name] = ("constant", 0)
        return name

    def launch(
        self, kernel: Kernel, buffers: tuple[str, ...], in_rounds: bool = False
    ) -> list[Step]:
        """Launches of a kernel as it is scheduled; equal kernels are emitted once. `in_rounds`: of
        one that is launched for each position of its grid's dim."""
        key = replace(kernel, name="", note="")
        found = self._seen.get(key)
        if found is None:
            scheduled = Scheduled((key,))
            if self.scheduled:
                scheduled = schedule_kernel(key, self.target, in_rounds)
            numbers = tuple(self._emit(k, kernel) for k in scheduled.kernels)
            found = (numbers, scheduled)
            self._seen[key] = found
        numbers, scheduled = found
        self._launches += 1
        names = {b.name: n for b, n in zip(kernel.params, buffers, strict=True)}
        for extra in scheduled.temporaries:
            name = f"l{self._launches}.{extra.name}"
            self.memory[name] = Memory(extra.dtype, extra.size)
            self.kinds[name] = ("arena", 0)
            names[extra.name] = name
        return [
            Launch(n, tuple(names[p.name] for p in k.params))
            for n, k in zip(numbers, scheduled.kernels, strict=True)
        ]

    def _emit(self, kernel: Kernel, origin: Kernel) -> int:
        """Number a scheduled kernel; its own name tells which part of its origin it is."""
        number = len(self.kernels)
        name = f"k{number}_{origin.name}{kernel.name}"
        self.kernels.append(replace(kernel, name=name, note=origin.note))
        if self.made is not None:
            self.made(self.kernels[-1])
        return number

    def finish(
        self, steps: Sequence[Step], params: Sequence[Layout], results: Sequence[Layout]
    ) -> Module:
        """The module, with temporaries placed in the arena."""
        lives: dict[str, Life] = {}
        for name, (first, last) in buffer_lives(steps).items():
            if self.kinds[name][0] == "arena":
                memory = self.memory[name]
                lives[name] = Life(first, last, memory.size * memory.dtype.bytes)
        offsets, arena = arena_offsets(lives)
        places = []
        for name, (kind, number) in self.kinds.items():
            memory = self.memory[name]
            if kind == "arena" and name not in offsets:
                continue  # never used
            where = offsets[name] if kind == "arena" else number
            dims = self.dims.get(name, ())
            places.append(Place(name, memory.dtype, memory.size, kind, where, memory.data, dims))
        return Module(
            tuple(self.kernels), tuple(steps), tuple(places), tuple(params), tuple(results), arena
        )


def buffer_lives(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    """First and last use of each buffer. A branch or loop is one step: whatever is used inside
    lives through all of it."""
    lives: dict[str, tuple[int, int]] = {}
    for k, step in enumerate(steps):
        for name in _used(step):
            first, _ = lives.get(name, (k, k))
            lives[name] = (first, k)
    return lives


def _used(step: Step) -> list[str]:
    match step:
        case Launch():
            return list(step.buffers)
        case Copy():
            return [step.source, step.target]
        case Foreign():
            return [name for name, _ in (*step.args, *step.outs)]
        case Branch():
            inner = [n for s in (*step.then, *step.other) for n in _used(s)]
            return [step.flag, *inner]
        case Repeat():
            return [step.flag, *(n for s in (*step.test, *step.body) for n in _used(s))]
        case Rounds():
            return [n for s in step.body for n in _used(s)]
        case _:
            assert_never(step)
