"""Facts about one nest and its schedule that code generation asks for again and again.

    nest i=512 j=512 k=512, schedule lanes(j,16) tile(i,6)(j,4) unroll(k,2) loops i j k
      step        i: 6, j: 64, k: 2           how far each loop goes at a time
      registers   i, j, k                     dims along which a body holds several points
      sinks       fold 2, store 0             what must happen, each with the loops that it needs

A *sink* is something that a nest does: a store, a fold over looped dims, a carried state. Folds
over dims that are all held in registers are plain values. The nest is written by running sinks
inside loops (`nest.py`); values are evaluated where a sink asks for them (`values.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from summand.codegen.cpu.choice import array_dims, looped_dims, state_elements, steps_of
from summand.codegen.cpu.lanes import Lanes
from summand.ir.index import Form, Quasi
from summand.loops.code import Code, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Buffer,
    Carry,
    Fold,
    Guard,
    Last,
    Load,
    Nest,
    Piece,
    Ref,
    Schedule,
    Store,
)

Point = Mapping[str, int]  # place inside the registers' block, along each dim
Ranges = Mapping[str, tuple[int, int]]  # least and greatest value of each dim
Sink = int  # a fold's or carry's position in the code; stores are numbered after the code


@dataclass(frozen=True, slots=True)
class Access:
    """An address taken apart. `own`: affine terms of the nest's dims; `outer`: of all others."""

    buffer: Buffer
    own: tuple[tuple[str, int], ...]
    outer: Form
    quasi: tuple[tuple[Quasi, int], ...]
    const: int
    dynamic: tuple[tuple[Ref, int], ...]
    guards: tuple[Guard, ...]
    dims: frozenset[str]

    @property
    def key(self) -> tuple[str, tuple[tuple[str, int], ...], Form]:
        """Accesses of one key share their pointers."""
        return (self.buffer.name, self.own, self.outer)

    def pattern(self, lanes: Lanes) -> tuple[int, ...]:
        """What the affine terms add in each lane."""
        total = [0] * lanes.count
        for d, c in self.own:
            along = lanes.offsets.get(d)
            if along is not None:
                total = [a + c * b for a, b in zip(total, along, strict=True)]
        return tuple(total)

    def contiguous(self, lanes: Lanes) -> bool:
        """Whether the affine terms go from lane to lane by one element."""
        return self.pattern(lanes) == tuple(range(lanes.count))


class NestPlan:
    """A nest under a schedule. `ranges` are those of the dims bound further out."""

    def __init__(
        self, nest: Nest, schedule: Schedule, ranges: Ranges, buffers: Mapping[str, Buffer]
    ) -> None:
        self.nest = nest
        self.schedule = schedule
        self.code = nest.code
        self.extent = nest.extents
        self.ranges = {**ranges, **{d: (0, max(n - 1, 0)) for d, n in nest.dims}}
        self._buffers = buffers
        facts = Code(nest)
        self.deps = facts.deps
        self.store_deps = [facts.store_dims(s) for s in nest.stores]
        self.lanes = Lanes.of(schedule.lanes)
        self.end = Lanes.of(schedule.end_lanes) if schedule.end_lanes else None
        self.step = steps_of(schedule)
        self.inner = self._inner_dims()
        self.loops = self._loop_order()
        self.looped = frozenset(self.loops)
        self.array_dims = array_dims(nest, self.deps, self.looped)
        self.registers = frozenset(
            d for d, n in self.extent.items() if min(self.step.get(d, 1), n) > 1
        )
        self.at_registers = [self._register_dims(d) for d in self.deps]
        self.store_registers = [self._register_dims(d) for d in self.store_deps]
        self.uses = self._count_uses()
        self.unsteady = self._find_unsteady()
        self._accesses: dict[tuple[int, str], Access] = {}
        self._reach: dict[Sink, tuple[frozenset[Sink], frozenset[Sink]]] = {}
        self._below: dict[Ref, frozenset[Sink]] = {}
        self._loads: dict[Sink, tuple[Ref, ...]] = {}

    # ---- dims

    def _inner_dims(self) -> frozenset[str]:
        """Dims along which something is folded or carried."""
        found: set[str] = set()
        for instr in self.code:
            if isinstance(instr, Fold):
                found |= set(instr.dims)
            if isinstance(instr, Carry):
                found.add(instr.dim)
        return frozenset(found)

    def _loop_order(self) -> tuple[str, ...]:
        """Looped dims, outer first, those that a schedule forgets added; one step is no loop."""
        named = list(self.schedule.loops)
        for inner in (False, True):
            for d in self.extent:
                if d not in named and (d in self.inner) is inner:
                    last = next((k for k, e in enumerate(named) if e in self.inner), len(named))
                    named.insert(len(named) if inner else last, d)
        looped = looped_dims(self.nest, self.step)
        return tuple(d for d in named if d in looped)

    def array_elements(self, carry: Sink) -> int:
        """Elements that the state of a carry takes in memory."""
        return state_elements(self.nest, self.array_dims[carry])

    def _register_dims(self, dims: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(self.registers & frozenset(dims)))

    def registers_of(self, access: Access) -> tuple[str, ...]:
        """The dims of the register block along which an access moves."""
        return self._register_dims(access.dims)

    def width(self, dims: frozenset[str], lanes: Lanes) -> int:
        """Lanes of a value that depends on `dims`: all, or one where no lane dim is among them."""
        return lanes.count if dims & lanes.offsets.keys() else 1

    # ---- points

    def points(
        self, pieces: Sequence[Piece], size: Mapping[str, int], base: Mapping[str, int]
    ) -> list[dict[str, int]]:
        """Points of pieces (outer first) counted in units of `base`, inside `size`."""
        unit = dict(base)
        axes: list[list[tuple[str, int]]] = []
        for piece in reversed(pieces):
            d, one = piece.dim, unit.get(piece.dim, 1)
            axes.insert(0, [(d, q * one) for q in range(piece.count) if q * one < size[d]])
            unit[d] = one * piece.count
        found = []
        for choice in itertools.product(*axes):
            point: dict[str, int] = {}
            for d, v in choice:
                point[d] = point.get(d, 0) + v
            if all(v < size[d] for d, v in point.items()):
                found.append(point)
        return found

    def tile_points(self, size: Mapping[str, int], dims: frozenset[str]) -> list[dict[str, int]]:
        """Points of the register tile along some dims."""
        pieces = [p for p in self.schedule.tile if p.dim in dims]
        return self.points(pieces, size, self.lanes.volume)

    def unroll_points(self, size: Mapping[str, int], dims: frozenset[str]) -> list[dict[str, int]]:
        """Points of what is unrolled along some dims, in units of lanes and tile."""
        base = dict(self.lanes.volume)
        for piece in self.schedule.tile:
            base[piece.dim] = base.get(piece.dim, 1) * piece.count
        pieces = [p for p in self.schedule.unroll if p.dim in dims]
        return self.points(pieces, size, base)

    def block_points(
        self, size: Mapping[str, int], dims: frozenset[str]
    ) -> list[list[dict[str, int]]]:
        """Points along some dims: for each place of what is unrolled, those of the tile."""
        tile = self.tile_points(size, dims)
        found = []
        for u in self.unroll_points(size, dims):
            sums = [{**t, **{d: t.get(d, 0) + v for d, v in u.items()}} for t in tile]
            found.append([p for p in sums if all(v < size[d] for d, v in p.items())])
        return found

    def fold_points(self, dims: Iterable[str], size: Mapping[str, int]) -> list[dict[str, int]]:
        """Points in registers of some dims, in order: of a fold inside the registers."""
        wanted = list(dims)
        axes = [range(0, size[d], self.lanes.volume.get(d, 1)) for d in wanted]
        return [dict(zip(wanted, c, strict=True)) for c in itertools.product(*axes)]

    # ---- what reads what

    def _count_uses(self) -> list[int]:
        uses = [0] * len(self.code)
        for instr in self.code:
            for r in refs(instr):
                uses[r] += 1
        for store in self.nest.stores:
            for r in self.store_refs(store):
                uses[r] += 1
        return uses

    def store_refs(self, store: Store) -> tuple[Ref, ...]:
        """Values that a store reads."""
        of_guards = (r for g in store.at.guards for r, _ in g.dynamic)
        return (store.value, *(r for r, _ in store.at.dynamic), *of_guards)

    def is_product(self, r: Ref) -> bool:
        """Whether a value is a float product that one sum alone reads: it becomes an FMA."""
        instr = self.code[r]
        if not isinstance(instr, Apply) or instr.fn != "mul" or not instr.dtype.is_float:
            return False
        return self.uses[r] == 1

    def loops_fold(self, r: Ref) -> bool:
        """Whether a value is a fold over looped dims, hence a sink."""
        instr = self.code[r]
        return isinstance(instr, Fold) and bool(self.looped & set(instr.dims))

    # ---- sinks

    def store_sink(self, number: int) -> Sink:
        """The sink of store `number`."""
        return len(self.code) + number

    def sink_refs(self, sink: Sink) -> tuple[Ref, ...]:
        """Values that a sink evaluates."""
        if sink >= len(self.code):
            return self.store_refs(self.nest.stores[sink - len(self.code)])
        instr = self.code[sink]
        return refs(instr)

    def point_dims(self, sink: Sink) -> frozenset[str]:
        """The dims at whose points a sink runs."""
        if sink >= len(self.code):
            return self.store_deps[sink - len(self.code)]
        instr = self.code[sink]
        folded = frozenset(instr.dims) if isinstance(instr, Fold) else frozenset[str]()
        return self.deps[sink] | folded

    def folded(self, sink: Sink) -> frozenset[str]:
        """Looped dims after whose loops alone the sink's result is known."""
        instr = self.code[sink] if sink < len(self.code) else None
        if isinstance(instr, Fold):
            return self.looped & frozenset(instr.dims)
        if isinstance(instr, Carry):
            return self.looped & {instr.dim}
        return frozenset()

    def needs(self, sink: Sink) -> frozenset[str]:
        """The loops inside which a sink runs."""
        if sink >= len(self.code):
            return self.looped & self.store_deps[sink - len(self.code)]
        return self.looped & self.deps[sink] | self.folded(sink)

    @cached_property
    def sinks(self) -> tuple[Sink, ...]:
        """All that the stores call for, in the order of the code."""
        found: set[Sink] = set()
        todo = [self.store_sink(k) for k in range(len(self.nest.stores))]
        while todo:
            sink = todo.pop()
            if sink not in found:
                found.add(sink)
                todo += self.waits(sink)  # running states join the loops of those that read them
        return tuple(sorted(found))

    def waits(self, sink: Sink) -> frozenset[Sink]:
        """Folds and carries whose *results* a sink reads, directly or through plain values."""
        return self._reached(sink)[0]

    def carries(self, sink: Sink) -> frozenset[Sink]:
        """Looped carries whose running states a sink reads."""
        return self._reached(sink)[1]

    def _reached(self, sink: Sink) -> tuple[frozenset[Sink], frozenset[Sink]]:
        if sink not in self._reach:
            self._reach[sink] = self._find_reached(self.sink_refs(sink))
        return self._reach[sink]

    def below(self, r: Ref) -> frozenset[Sink]:
        """Folds and carries whose results a value reads."""
        if r not in self._below:
            self._below[r] = self._find_reached((r,))[0]
        return self._below[r]

    def _find_reached(self, start: Sequence[Ref]) -> tuple[frozenset[Sink], frozenset[Sink]]:
        waits: set[Sink] = set()
        carries: set[Sink] = set()
        seen: set[Ref] = set()
        todo = list(start)
        while todo:
            r = todo.pop()
            if r in seen:
                continue
            seen.add(r)
            instr = self.code[r]
            if self.loops_fold(r):
                waits.add(r)
            elif isinstance(instr, Last) and self.folded(instr.carry):
                waits.add(instr.carry)
            else:
                if isinstance(instr, Carry) and self.folded(r):
                    carries.add(r)
                todo += refs(instr)
        return frozenset(waits), frozenset(carries)

    def plain_below(self, roots: Sequence[Ref]) -> list[Ref]:
        """Values and all that they read, up to the sinks among them, in the order of the code."""
        seen: set[Ref] = set()
        todo = list(roots)
        while todo:
            r = todo.pop()
            if r not in seen:
                seen.add(r)
                if not self.loops_fold(r):
                    todo += refs(self.code[r])
        return sorted(seen)

    def loads(self, sink: Sink) -> tuple[Ref, ...]:
        """Loads that a sink's values read, those of other sinks not counted."""
        if sink not in self._loads:
            below = self.plain_below(self.sink_refs(sink))
            self._loads[sink] = tuple(r for r in below if isinstance(self.code[r], Load))
        return self._loads[sink]

    def _find_unsteady(self) -> list[bool]:
        """Values that read what the nest's own ordered stores change from point to point."""
        stored = {s.buffer for s in self.nest.stores} if self.nest.ordered else set()
        unsteady = [isinstance(i, Load) and i.buffer in stored for i in self.code]
        changed = any(unsteady)
        while changed:
            new = [u or any(unsteady[a] for a in refs(i)) for u, i in zip(unsteady, self.code)]
            changed = new != unsteady
            unsteady = new
        return unsteady

    # ---- accesses

    def load_access(self, r: Ref) -> Access:
        """The address of a load."""
        instr = self.code[r]
        assert isinstance(instr, Load)
        return self._access(r, instr.buffer, instr.at, self.deps[r])

    def store_access(self, number: int) -> Access:
        """The address of a store."""
        store = self.nest.stores[number]
        sink = self.store_sink(number)
        return self._access(sink, store.buffer, store.at, self.store_deps[number])

    def _access(self, name: int, buffer: str, at: Address, dims: frozenset[str]) -> Access:
        known = self._accesses.get((name, buffer))
        if known is None:
            known = self._accesses[(name, buffer)] = self._take_apart(buffer, at, dims)
        return known

    def _take_apart(self, buffer: str, at: Address, dims: frozenset[str]) -> Access:
        own: list[tuple[str, int]] = []
        outer: list[tuple[str | Quasi, int]] = []
        quasi: list[tuple[Quasi, int]] = []
        sizes = {d: hi + 1 for d, (lo, hi) in self.ranges.items() if lo >= 0}
        form = at.form if at.form.is_affine else at.form.simplify(sizes)
        for atom, c in form.terms:
            if isinstance(atom, str):
                if atom in self.extent:
                    own.append((atom, c))
                else:
                    outer.append((atom, c))
            elif atom.form.dims & self.extent.keys():
                quasi.append((atom, c))
            else:
                outer.append((atom, c))
        rank = {d: k for k, d in enumerate(self.loops)}
        own.sort(key=lambda t: (rank.get(t[0], -1), t[0]))
        guards = tuple(g for g in at.guards if not self.always(g))
        return Access(
            self._buffers[buffer],
            tuple(own),
            Form(tuple(outer)),
            tuple(quasi),
            form.const,
            at.dynamic,
            guards,
            dims,
        )

    def always(self, guard: Guard) -> bool:
        """Whether a guard holds at all points of the box."""
        if guard.dynamic:
            return False
        lo, hi = guard.form.interval(self.ranges)
        return lo >= 0 and hi < guard.size
