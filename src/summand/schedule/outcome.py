"""What a kernel is predicted to do: operations, bytes and cycles, for `explain` and for decisions.

predict(matmul 1024)  ->  flops 2.1e9, bytes 12.6e6, pipe 6.7e7 cycles, cycles 7.3e7
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from summand.ir.index import Form
from summand.ir.prims import PRIMS
from summand.loops.nodes import Apply, Fold, Guard, Kernel, Let, Loop, Nest, Schedule, Stmt, When
from summand.options import Target
from summand.schedule.accesses import Facts, analyse
from summand.schedule.cost import (
    MOST_PLACES,
    build_model,
    score,
    share_within,
)
from summand.schedule.slots import operation_slots, readers_of


@dataclass(frozen=True, slots=True)
class Prediction:
    """Totals of one kernel. Cycles are those of one core; tasks share them out.

    `pipe` is the least that the arithmetic can take, every slot of a full vector used; `memory` the
    least that moving the bytes can take.
    """

    flops: float
    bytes: int
    pipe: float
    cycles: float
    tasks: int

    memory: float = 0.0

    @property
    def is_memory_bound(self) -> bool:
        """Whether moving the bytes takes longer than computing."""
        return self.memory > self.pipe


def predict(kernel: Kernel, target: Target) -> Prediction:
    """Predicted operations, bytes touched in global memory, and cycles of a scheduled kernel."""
    tasks = math.prod(n for _, n in kernel.grid)
    bits = {b.name: b.dtype.bits for b in (*kernel.params, *kernel.scratch)}
    outer = dict(kernel.grid)
    flops = pipe = cycles = 0.0
    touched: dict[str, int] = {}
    for nest, loops, runs in _nests(kernel.body, outer, tasks):
        facts = analyse(nest, bits)
        extents = tuple({**loops, **facts.extents}.items())
        within = {b.dim: share_within(b, extents) for b in nest.bounds}
        flops += runs * _flops(facts, within)
        pipe += runs * _pipe(facts, within, target)
        cycles += runs * nest_cycles(facts, nest.schedule or Schedule(), target)
        for access in (*facts.loads, *facts.stores):
            elements = _elements(access.at.form, {**loops, **facts.extents})
            touched[access.buffer] = max(touched.get(access.buffer, 0), elements)
    moved = 0
    for buffer in kernel.params:
        elements = min(buffer.size, touched.get(buffer.name, 0))
        moved += elements * buffer.dtype.bytes
    memory = moved / target.dram_bytes_per_cycle if moved > target.l2 else 0.0
    return Prediction(flops, moved, pipe, max(cycles, memory), tasks, memory)


def predicted_cycles(launched: Sequence[Kernel], target: Target) -> tuple[float, float]:
    """Cycles that scheduled kernels take, launched one after the other; and what they take at
    least: arithmetic in full vectors, or moving the bytes."""
    found = [predict(kernel, target) for kernel in launched]
    cycles = sum(p.cycles / max(1, min(p.tasks, target.threads)) for p in found)
    return cycles, sum(max(p.pipe / target.threads, p.memory) for p in found)


def _nests(
    body: tuple[Stmt, ...], sizes: dict[str, int], runs: float
) -> Iterator[tuple[Nest, dict[str, int], float]]:
    """Each nest, how many places each outer dim takes, and how often the nest runs."""
    for stmt in body:
        match stmt:
            case Nest():
                yield stmt, sizes, runs
            case Loop():
                inner = {**sizes, stmt.dim: stmt.extent}
                yield from _nests(stmt.body, inner, runs * stmt.extent)
            case Let():
                inner = {**sizes, stmt.dim: stmt.hi - stmt.lo + 1}
                yield from _nests(stmt.body, inner, runs)
            case When():
                share = math.prod(_share_held(g, sizes) for g in stmt.guards)
                yield from _nests(stmt.body, sizes, runs * share)
            case _:
                assert_never(stmt)


def _share_held(guard: Guard, sizes: Mapping[str, int]) -> float:
    """At which share of all places a guard holds; 1 where that is not looked into."""
    names = sorted(guard.form.dims)
    known = not guard.dynamic and all(d in sizes for d in names)
    if not known or math.prod(sizes[d] for d in names) > MOST_PLACES:
        return 1.0
    places = list(itertools.product(*(range(sizes[d]) for d in names)))
    values = [guard.form.evaluate(dict(zip(names, at, strict=True))) for at in places]
    return sum(0 <= v < guard.size for v in values) / max(1, len(values))


def _elements(form: Form, extents: dict[str, int]) -> int:
    """Different elements that an address can reach, at most: an interval or a count of points."""
    known = {d: extents.get(d, 1) for d in form.dims}
    if any(n == 0 for n in known.values()):
        return 0
    lo, hi = form.range(known)
    return hi - lo + 1


def _points(facts: Facts, ref: int, within: Mapping[str, float]) -> float:
    deps = facts.deps[ref]
    instr = facts.nest.code[ref]
    if isinstance(instr, Fold):
        deps = deps | frozenset(instr.dims)
    return math.prod(facts.extents[d] * within.get(d, 1.0) for d in deps)


def _flops(facts: Facts, within: Mapping[str, float]) -> float:
    total = 0.0
    for ref, instr in enumerate(facts.nest.code):
        if isinstance(instr, Apply):
            total += PRIMS[instr.fn].flops * _points(facts, ref, within)
        elif isinstance(instr, Fold):
            total += _points(facts, ref, within)
    return total


def _pipe(facts: Facts, within: Mapping[str, float], target: Target) -> float:
    readers = readers_of(facts)
    total = 0.0
    for ref, instr in enumerate(facts.nest.code):
        lanes = target.lanes(max(32, instr.dtype.bits))
        total += operation_slots(facts, ref, readers) * _points(facts, ref, within) / lanes
    return total / target.fma_per_cycle


def nest_cycles(facts: Facts, schedule: Schedule, target: Target) -> float:
    """Cycles of one run of a nest under its schedule."""
    lanes = {p.dim: p.count for p in schedule.lanes}
    tile = {p.dim: p.count for p in schedule.tile}
    steps = {d: tile.get(d, 1) * lanes.get(d, 1) for d in (*tile, *lanes)}
    pieces = (*schedule.unroll, *schedule.tile) if facts.carried else schedule.unroll
    held = {p.dim for p in pieces if p.count * lanes.get(p.dim, 1) >= facts.extents[p.dim]}
    unrolled = frozenset(held & (facts.reduced if facts.carried else facts.nested))
    dims = tuple(d for d in tile if d not in unrolled)
    model = build_model(facts, schedule.lanes, unrolled, dims, target)
    one = score(model, [tile[d] for d in dims], target)
    tiles = math.prod(-(-facts.extents[d] // steps.get(d, 1)) for d in facts.tiled)
    return tiles * one.cycles
