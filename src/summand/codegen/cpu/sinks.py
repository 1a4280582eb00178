"""Sinks at all points of the register block: accumulate, store, prefetch.

store y[64*i + j] = 3      ->  for each point (i, j) of the block: a store of value 3 there
fold add {k} 2             ->  for each point: accumulator (i, j) += value 2 at (i, j, k)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.codegen.cpu import memory
from summand.codegen.cpu.memory import Mask, Place
from summand.codegen.cpu.ops import emit_fold_op, emit_op, join_nan, joins_nan
from summand.codegen.cpu.plan import NestPlan, Point, Sink
from summand.codegen.cpu.states import States
from summand.codegen.cpu.text import Function, Int, Value, split_type
from summand.codegen.cpu.values import Key
from summand.loops.nodes import Carry, Fold, Ref, Store

LINE = 64  # bytes of a cache line


class Sinks(States):
    """Runs sinks whose loops are all open. `streaming`: whether stores may bypass the cache."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: dict[str, Int],
        bases: dict[str, Value],
        streaming: bool,
        arrays: Value | None,
    ) -> None:
        super().__init__(fn, plan, outer, bases, arrays)
        self.streaming = streaming
        self._unjoined: dict[Key, Value] = {}  # by accumulator: a value whose NaN it has not yet

    def run(self, sinks: Sequence[Sink]) -> None:
        """Run sinks at all points of the block."""
        if self.plan.end is not None and not self.plan.inner & set(self.open):
            stores = [s for s in sinks if s >= len(self.plan.code)]
            self._run_in_end_lanes(stores)
            sinks = [s for s in sinks if s < len(self.plan.code)]
        done: set[Key] = set()
        dims = frozenset[str]().union(*(self.plan.point_dims(s) for s in sinks))
        turns = self.plan.block_points(self.size, dims)
        if all(s >= len(self.plan.code) for s in sinks):
            turns = [self._sparing([p for points in turns for p in points], sinks)]
        self._prefetch(sinks, [p for points in turns for p in points])
        for turn, points in enumerate(turns):
            for p in points:  # all sinks at one point: what they share need not live long
                for sink in sinks:
                    self._run_at(sink, p, turn, done)
        for slot, value in self._unjoined.items():
            self._join(slot, value, value)
        self._unjoined.clear()

    def _sparing(self, points: list[dict[str, int]], sinks: Sequence[Sink]) -> list[dict[str, int]]:
        """Points in an order that keeps few loads alive: dims that few read vary fastest."""
        loads = [self.plan.deps[r] for s in sinks for r in self.plan.loads(s)]
        readers = {d: sum(d in deps for deps in loads) for p in points for d in p}
        dims = sorted(readers, key=lambda d: -readers[d])
        return sorted(points, key=lambda p: [p.get(d, 0) for d in dims])

    def _run_at(self, sink: Sink, p: Point, turn: int, done: set[Key]) -> None:
        if sink >= len(self.plan.code):
            number = sink - len(self.plan.code)
            at = self.plan.store_registers[number]
            key: Key = (sink, *(p.get(d, 0) for d in at))
            if key not in done:
                done.add(key)
                self._store(number, p)
            return
        instr = self.plan.code[sink]
        if isinstance(instr, Carry):
            self.store_state(sink, p)
            return
        assert isinstance(instr, Fold)
        at = self.plan.at_registers[sink]
        here = (sink, *(p.get(d, 0) for d in at))
        key = (*here, tuple(p.get(d, 0) for d in instr.dims))
        if key in done:
            return
        done.add(key)
        slot = (*here, turn % self.plan.schedule.copies)
        if joins_nan(self.fn, instr.combine.fn or "", instr.dtype, self.fold_width(sink)):
            self._accumulate_extreme(sink, instr, p, slot)
        else:
            self.acc[slot] = self.accumulate(sink, p, self.acc[slot])

    def _accumulate_extreme(self, sink: Sink, fold: Fold, p: Point, slot: Key) -> None:
        """A greatest or least value; the NaNs of two steps join the accumulator at once."""
        lanes = self.fold_width(sink)
        (value,) = self.addends(sink, p)
        (acc,) = self.acc[slot]
        name = fold.combine.fn or ""
        picked = emit_fold_op(self.fn, name, acc, value, fold.dtype, lanes, nan=False)
        self.acc[slot] = [Value(picked.name, picked.type, fold.dtype)]
        before = self._unjoined.pop(slot, None)
        if before is None:
            self._unjoined[slot] = value
        else:
            self._join(slot, before, value)

    def _join(self, slot: Key, one: Value, two: Value) -> None:
        (acc,) = self.acc[slot]
        assert acc.dtype is not None
        lanes = split_type(acc.type)[1]
        self.acc[slot] = [join_nan(self.fn, acc, one, two, acc.dtype, lanes)]

    def _run_in_end_lanes(self, stores: Sequence[Sink]) -> None:
        """Stores after a reduction, in the lanes of the end, at all its points."""
        end = self.plan.end
        assert end is not None
        if not stores:
            return
        self.lanes = end
        done: set[Key] = set()
        for sink in stores:
            deps = self.plan.point_dims(sink)
            dims = sorted(deps & {*end.offsets, *self.plan.lanes.offsets})
            inside: list[dict[str, int]] = [{}]
            for d in dims:
                places = range(0, self.size[d], end.volume.get(d, 1))
                inside = [{**q, d: v} for q in inside for v in places]
            for turn in self.plan.block_points(self.size, deps.difference(dims)):
                for r in turn:
                    for q in inside:
                        self._run_at(sink, {**r, **q}, 0, done)
        self.lanes = self.plan.lanes

    # ---- stores

    def _store(self, number: int, p: Point) -> None:
        store = self.plan.nest.stores[number]
        access = self.plan.store_access(number)
        value = self.deep_value(store.value, p)
        place = self.place(access, p)
        mask = self.access_mask(access, p, place)
        if place.lanes > 1:
            value = self.widened(value)
            mask = self._without_copies(mask, access.dims, place.lanes)
        if store.combine is not None:
            self._combine_store(store, place, value, mask)
            return
        streaming = self.streaming and mask.free and self._aligned(number, place)
        memory.store(self.fn, place, value, mask, streaming)

    def _combine_store(self, store: Store, place: Place, value: Value, mask: Mask) -> None:
        fn_name = store.combine
        assert fn_name is not None
        dtype = place.dtype

        def combine(old: Value, new: Value, lanes: int) -> Value:
            # As in a fold: of the two only the new one is tested for NaN, which need not wait.
            both = (new, old) if fn_name in ("max", "min") else (old, new)
            typed = [Value(v.name, v.type, dtype) for v in both]
            return emit_op(self.fn, fn_name, typed, dtype, lanes)

        memory.combine_store(self.fn, place, value, mask, combine)

    def _without_copies(self, mask: Mask, dims: frozenset[str], lanes: int) -> Mask:
        """Of lanes that differ only along dims that a store does not depend on, keep the first."""
        copies = [along for d, along in self.lanes.offsets.items() if d not in dims]
        if not copies:
            return mask
        first = tuple(all(along[k] == 0 for along in copies) for k in range(lanes))
        static = mask.static or (True,) * lanes
        kept = tuple(a and b for a, b in zip(first, static, strict=True))
        return Mask(kept, mask.uniform, mask.lanes)

    def _aligned(self, number: int, place: Place) -> bool:
        """Whether a vector's address is a multiple of its size, given that its buffer's is."""
        access = self.plan.store_access(number)
        lanes = place.lanes
        if not place.contiguous or lanes == 1 or access.quasi or access.dynamic:
            return False
        if lanes * place.dtype.bytes < 16 or (place.offset + place.pattern[0]) % lanes:
            return False
        for d, c in access.own:
            at = self.position[d]
            factor = at if isinstance(at, int) else self.multiple.get(d, 1)
            if c * factor % lanes:
                return False
        return all(c % lanes == 0 and isinstance(a, str) for a, c in access.outer.terms)

    # ---- prefetch

    def _prefetch(self, sinks: Sequence[Sink], points: Sequence[Point]) -> None:
        """Ask for the lines that buffers' later rounds will read, in the innermost loop."""
        ahead = {b: distance for b, distance in self.plan.schedule.prefetch if distance}
        if not ahead or not self.open or self.open[-1] != self.plan.loops[-1]:
            return
        loads = sorted({r for s in sinks for r in self.plan.loads(s)})
        self._ask(loads, points, ahead)

    def ask_before(self, folds: Sequence[Sink]) -> None:
        """Ask for what stores read besides the results of folds, before these are computed."""
        now = {b: 0 for b, distance in self.plan.schedule.prefetch if distance == 0}
        if not now:
            return
        waiting = [s for s in self.plan.sinks if self.plan.waits(s) & set(folds)]
        loads = {r for s in waiting for r in self.plan.loads(s)}
        known = [r for r in sorted(loads) if self.plan.deps[r] & self.plan.looped <= set(self.open)]
        self._ask(known, self.block(), now)

    def _ask(self, loads: Sequence[Ref], points: Sequence[Point], ahead: Mapping[str, int]) -> None:
        """Prefetch instructions for the elements that lie so far ahead of those of some loads."""
        wanted: dict[tuple[str, int], tuple[Value, set[int]]] = {}
        for r in loads:
            access = self.plan.load_access(r)
            distance = ahead.get(access.buffer.name)
            if distance is None or access.dynamic:
                continue
            for p in points:
                place = self.place(access, p)
                key = (place.pointer.name, access.buffer.dtype.bytes)
                found = wanted.setdefault(key, (place.pointer, set()))[1]
                found.add(place.offset + min(place.pattern) + distance)
        self.fn.unit.declare("llvm.prefetch.p0", "void", ("ptr", "i32", "i32", "i32"))
        for (_, size), (pointer, offsets) in wanted.items():
            for at in _in_lines(sorted(offsets), LINE // size):
                where = self.fn.at(pointer, at, f"i{8 * size}")
                self.fn.do(f"call void @llvm.prefetch.p0(ptr {where}, i32 0, i32 2, i32 1)")


def _in_lines(offsets: Sequence[int], line: int) -> list[int]:
    """Of elements in order, the first and last of every run that is no longer than a line."""
    out: list[int] = []
    first: int | None = None
    for at, following in zip(offsets, (*offsets[1:], None), strict=True):
        if first is None or at - first >= line:
            first = at
            out.append(at)
        elif following is None or following - first >= line:
            out.append(at)
    return out
