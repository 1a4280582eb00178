"""Put a lowered module and its object files together into an artifact.

    Module(kernels, steps, places) + objects   ->   Artifact(objects, code words, slots, ports)

    Repeat(test, flag, body)   ->   L: test; unless flag -> E; body; back -> L; E:
    Rounds(count, body)        ->   L: body; turn count -> L
    Branch(flag, then, other)  ->   unless flag -> L; then; jump -> E; L: other; E:

Every place of the module gets a slot, which holds its address while the program runs. Kernels that
have no task at all (a zero-size grid) are not launched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from summand.errors import InternalError
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
from summand.runtime.artifact import Artifact, Host, Port, RangeCheck, Region
from summand.runtime.pool_code import BACK, COPY, END, HOST, JUMP, LAUNCH, TURN, UNLESS


def assemble(module: Module, objects: Sequence[bytes], scratch: int) -> Artifact:
    """The artifact of a module; `scratch` is the bytes that one thread needs for its kernels."""
    words = _Words(module, {p.name: i for i, p in enumerate(module.places)})
    words.steps(module.steps)
    words.code.append(END)
    places = list(enumerate(module.places))
    params = sorted(((p.number, i) for i, p in places if p.kind == "param"))
    results = sorted(((p.number, i) for i, p in places if p.kind == "result"))
    return Artifact(
        objects=tuple(objects),
        functions=tuple(k.name for k in module.kernels),
        code=tuple(words.code),
        launches=tuple(words.launches),
        slots=len(places),
        args=words.args,
        params=_params(module, dict(params)),
        results=tuple(_result(module, i, number) for number, i in results),
        regions=tuple(
            Region(i, p.number, p.size * p.dtype.bytes, p.name)
            for i, p in places
            if p.kind == "arena"
        ),
        constants=tuple((i, p.data) for i, p in places if p.kind == "constant"),
        arena=module.arena,
        scratch=scratch,
        checks=tuple(RangeCheck(c.number, c.size, c.message) for c in module.checks),
        hosts=tuple(words.hosts),
    )


def launched(steps: Sequence[Step]) -> Iterator[Launch]:
    """Every launch of some steps, in the order in which they are numbered."""
    for step in _flat(steps):
        match step:
            case Launch():
                yield step
            case Rounds():
                yield from step.body
            case Copy() | Foreign():
                pass
            case _:
                assert_never(step)


def rounds(steps: Sequence[Step]) -> dict[int, int]:
    """In how many launches kernels run their grid, for those that do so in rounds."""
    found = (step for step in _flat(steps) if isinstance(step, Rounds))
    return {launch.kernel: step.count for step in found for launch in step.body}


def _flat(steps: Sequence[Step]) -> Iterator[Launch | Rounds | Copy | Foreign]:
    """The steps, with those of branches and loops in their place."""
    for step in steps:
        match step:
            case Branch():
                yield from _flat((*step.then, *step.other))
            case Repeat():
                yield from _flat((*step.test, *step.body))
            case _:
                yield step


def tasks(kernel: Kernel) -> int:
    """Number of tasks of a kernel's grid."""
    count = 1
    for _, size in kernel.grid:
        count *= size
    return count


@dataclass(slots=True)
class _Words:
    """The program's words as they are written."""

    module: Module
    slots: dict[str, int]
    code: list[int] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)  # the kernel of each launch
    args: int = 0
    hosts: list[Host] = field(default_factory=list)

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Launch():
                    self.launch(step)
                case Branch():
                    self.branch(step)
                case Repeat():
                    self.repeat(step)
                case Rounds():
                    self.rounds(step)
                case Copy():
                    place = self.module.places[self.slots[step.source]]
                    size = place.size * place.dtype.bytes
                    self.code += [COPY, self.slots[step.source], self.slots[step.target], size]
                case Foreign():
                    self.code += [HOST, len(self.hosts)]
                    self.hosts.append(
                        Host(step.name, self.operands(step.args), self.operands(step.outs))
                    )
                case _:
                    assert_never(step)

    def launch(self, step: Launch, rounds: int = 1) -> None:
        count = tasks(self.module.kernels[step.kernel]) // rounds
        number = len(self.launches)
        self.launches.append(step.kernel)
        if not count:
            return
        buffers = [self.slots[b] for b in step.buffers]
        self.code += [LAUNCH, step.kernel, count, self.args, number, len(buffers), *buffers]
        self.args += len(buffers)

    def operands(self, buffers: Sequence[tuple[str, Layout]]) -> tuple[Port, ...]:
        return tuple(
            _port(self.module.places[self.slots[name]], self.slots[name], layout.dims)
            for name, layout in buffers
        )

    def branch(self, step: Branch) -> None:
        to_other = self._hole(UNLESS, self.slots[step.flag])
        self.steps(step.then)
        to_end = self._hole(JUMP)
        self.code[to_other] = len(self.code)
        self.steps(step.other)
        self.code[to_end] = len(self.code)

    def repeat(self, step: Repeat) -> None:
        top = len(self.code)
        self.steps(step.test)
        to_end = self._hole(UNLESS, self.slots[step.flag])
        self.steps(step.body)
        self.code += [BACK, top]
        self.code[to_end] = len(self.code)

    def rounds(self, step: Rounds) -> None:
        top = len(self.code)
        for launch in step.body:
            self.launch(launch, step.count)
        self.code += [TURN, step.count, top]

    def _hole(self, *words: int) -> int:
        """Write words and a target that is filled in later; where the target stands."""
        self.code += [*words, 0]
        return len(self.code) - 1


def _params(module: Module, slots: dict[int, int]) -> tuple[Port, ...]:
    """Ports of all parameters, in their order."""
    for number in range(len(module.params)):
        if number not in slots:
            raise InternalError(f"assemble: parameter {number} has no place")
    layouts = enumerate(module.params)
    return tuple(_port(module.places[slots[n]], slots[n], layout.dims) for n, layout in layouts)


def _result(module: Module, slot: int, number: int) -> Port:
    """The port of a result; hidden ones (of checks) are flat."""
    place = module.places[slot]
    if number < len(module.results):
        return _port(place, slot, module.results[number].dims)
    return _port(place, slot, ((place.name, place.size),))


def _port(place: Place, slot: int, dims: tuple[tuple[str, int], ...]) -> Port:
    shape = tuple(n for _, n in dims)
    return Port(slot, place.dtype.storage, shape, tuple(d for d, _ in dims), place.name)
