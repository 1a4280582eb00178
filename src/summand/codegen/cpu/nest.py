"""Write one nest: loops, accumulators, stores.

    nest i j k, loops i j k           loop i (6 at a time, then the rest)
      2: fold add {k} 1                 loop j (64 at a time, then the rest)
      store c[512*i + j] = 2              accumulators of the tile's points = 0
                                          loop k: all points of the tile, unrolled
                                          store the points

`scope` is the whole algorithm: given the sinks that must still run inside the loops that are open,
open the next loop around all sinks that can share it, and run what needs no more loops. A sink that
reads the result of a fold waits until the fold's loops have closed; if it needs one of those loops
itself, the loop is opened again. So a nest may hold several passes over one dim, nested folds,
carries and stores at any depth, and every schedule, plain loops included, is written by one rule.

A loop whose extent its step does not divide is written twice: the rest is a body of its own with
fewer points (and lanes masked).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from summand.codegen.cpu.places import UNBOUNDED
from summand.codegen.cpu.plan import Access, NestPlan, Point, Sink
from summand.codegen.cpu.sinks import Sinks
from summand.codegen.cpu.text import Function, Int, Value
from summand.codegen.cpu.values import Key
from summand.codegen.cpu.versions import (
    decided,
    guards_of,
    guards_of_a_step,
    hold_everywhere,
    is_large,
)
from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.prims import PRIMS
from summand.loops.code import refs
from summand.loops.nodes import Apply, Bound, Carry, Const, Fold, Guard, Ref

LONG = 8.0  # operations that one of several chains does before the next one's turn comes
MOST_BESIDE = 4  # values that wait in registers for the other chains
MOST_HOISTED = 12  # values kept in registers across a loop that reduces nothing


class NestWriter(Sinks):
    """Writes a nest into a function. `streaming`: whether its stores may bypass the cache."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: Mapping[str, Int],
        bases: Mapping[str, Value],
        streaming: bool = False,
        arrays: Value | None = None,
    ) -> None:
        super().__init__(fn, plan, dict(outer), dict(bases), streaming, arrays)
        self._bounds = {b.dim: b for b in plan.nest.bounds}
        self.guards = guards_of(plan)
        self._large = is_large(plan)
        self.failing = False

    def write(self) -> None:
        """Write the whole nest."""
        for d in self.plan.extent:
            if d in self._bounds and d not in self.plan.looped:
                self.live += self._bound_guards(self._bounds[d])
        self._in_versions(list(self.plan.sinks))

    def _in_versions(self, sinks: list[Sink]) -> None:
        """Run sinks inside the loops that are open: where guards can be decided for all of them at
        once, without them, or with."""
        guards = () if self.holding or self.failing else self.guards
        if not guards or not decided(self.plan, guards, self.open):
            self.scope(sinks)
            return
        holds = hold_everywhere(self, guards, self.open)
        if isinstance(holds, Value):
            self.fn.when(holds, [], self._version(sinks, True), self._version(sinks, False))
        else:
            self._version(sinks, holds)([])

    def _version(self, sinks: list[Sink], holds: bool) -> Callable[[list[Value]], list[Value]]:
        """Writes sinks where the guards hold everywhere, or where they may not."""

        def run(_: list[Value]) -> list[Value]:
            mark, pointers, kept = self.enter(), dict(self.pointers), (self.acc, self.state)
            self.acc, self.state = dict(self.acc), dict(self.state)
            self.holding, self.failing = frozenset(self.guards) if holds else frozenset(), not holds
            self.scope(sinks)
            self.holding, self.failing = frozenset(), False
            (self.acc, self.state), self.pointers = kept, pointers
            self.leave(mark)
            return []

        return run

    # ---- which loop, around which sinks

    def scope(self, sinks: list[Sink]) -> None:
        """Run sinks inside the loops that are open."""
        while True:
            chosen = self._next_loop(sinks)
            if chosen is None:
                break
            dim, group = chosen
            self._loop(dim, group)
            sinks = [s for s in sinks if s not in group]
        left = [s for s in sinks if self._unbound(s)]
        if left:
            raise InternalError(f"codegen: sinks {left} wait for each other in {self.plan.nest}")
        self._run_in_versions(sinks)

    def _run_in_versions(self, sinks: list[Sink]) -> None:
        """Run sinks whose loops are all open: a step of a reduction without the guards that hold in
        all of the register block, or with them."""
        guards: tuple[Guard, ...] = ()
        if self._large and not self.state:
            guards = guards_of_a_step(self, self._accesses(sinks), self.open)
        holds = hold_everywhere(self, guards, self.open) if guards else False
        if not isinstance(holds, Value):
            self.run(sinks)
            return
        keys = list(self.acc)
        widths = [len(self.acc[k]) for k in keys]

        def arm(known: frozenset[Guard]) -> Callable[[list[Value]], list[Value]]:
            def run(carried: list[Value]) -> list[Value]:
                mark, pointers, before = self.enter(), dict(self.pointers), self.holding
                self._set_accumulators(keys, widths, carried)
                self.holding, self.mixed = before | known, not known
                self.run(sinks)
                self.holding, self.mixed, self.pointers = before, False, pointers
                self.leave(mark)
                return [v for k in keys for v in self.acc[k]]

            return run

        carried = [v for k in keys for v in self.acc[k]]
        after = self.fn.when(holds, carried, arm(frozenset(guards)), arm(frozenset()))
        self._set_accumulators(keys, widths, after)

    def _set_accumulators(
        self, keys: Sequence[Key], widths: Sequence[int], values: Sequence[Value]
    ) -> None:
        at = 0
        for k, w in zip(keys, widths, strict=True):
            self.acc[k] = list(values[at : at + w])
            at += w

    def _unbound(self, sink: Sink) -> frozenset[str]:
        return self.plan.needs(sink).difference(self.open)

    def _done(self, sink: Sink) -> bool:
        return ("done", sink) in self.memo

    def _next_loop(self, sinks: Sequence[Sink]) -> tuple[str, list[Sink]] | None:
        """A loop and the sinks inside. Better no state in memory, better nothing computed twice."""
        for strict, again in ((True, False), (False, False), (False, True)):
            for dim in self.plan.loops:
                if dim not in self.open and self._bounds_known(dim):
                    group = self._group(dim, sinks, strict, again)
                    if group:
                        return dim, group
        return None

    def _bounds_known(self, dim: str) -> bool:
        """Whether the loops that a dim's bounds read are open."""
        bound = self._bounds.get(dim)
        forms = (*bound.lo, *bound.hi) if bound is not None else ()
        return all(self.plan.looped & f.dims <= set(self.open) for f in forms)

    def _group(self, dim: str, sinks: Sequence[Sink], strict: bool, again: bool) -> list[Sink]:
        """The sinks that can run inside one loop over `dim` now, with all that they need in it.

        `again`: folds that do not need the loop may run inside it, once for each round.
        """
        group = {s for s in sinks if dim in self._unbound(s) and self._may_open(s, dim, strict)}
        dropped: set[Sink] = set()
        changed = True
        while changed:
            changed = False
            for s in sorted(group):
                wanted = {f for f in self.plan.waits(s) if not self._done(f)}
                blocked = any(
                    dim in self.plan.folded(f) or (not again and dim not in self._unbound(f))
                    for f in wanted
                )
                wanted |= {c for c in self.plan.carries(s) if dim in self._unbound(c)}
                refused = (not self._may_open(f, dim, strict) for f in wanted - group)
                if blocked or wanted & dropped or any(refused):
                    group.discard(s)
                    dropped.add(s)
                    changed = True
                elif not wanted <= group:
                    group |= wanted
                    changed = True
        return sorted(group)

    def _may_open(self, sink: Sink, dim: str, strict: bool) -> bool:
        """Accumulators and states live in registers, so what they depend on is bound outside."""
        code = self.plan.code
        if sink < len(code) and isinstance(code[sink], Fold) and dim in self.plan.folded(sink):
            outside = self.plan.looped & self.plan.deps[sink]
            if not outside <= set(self.open):
                return False
        return not strict or all(
            self.plan.looped & self.plan.deps[c] - {dim} <= set(self.open)
            for c in {*self.plan.carries(sink), sink}
            if c < len(code) and isinstance(code[c], Carry) and dim in self.plan.folded(c)
        )

    # ---- one loop

    def _loop(self, dim: str, group: list[Sink]) -> None:
        """A loop over `dim` around a group of sinks; afterwards its folds and carries are done."""
        self._hoist(dim, group)
        folds = [s for s in group if s < len(self.plan.code) and self._is_fold(s)]
        starting = [s for s in folds if dim in self.plan.folded(s) and not self._is_live(s)]
        for s in starting:
            self.start(s)
        if starting:
            self.ask_before(starting)
        carries = [s for s in group if self._carried_along(s, dim)]
        for c in carries:
            self.start_carry(c, dim)
        keys = [k for k in self.acc if k[0] in folds]
        states = [k for k in self.state if k[0] in carries]
        self._write_loop(dim, group, keys, states)
        for s in (*starting, *carries):
            self.remember(("done", s), True)

    def _is_fold(self, sink: Sink) -> bool:
        return isinstance(self.plan.code[sink], Fold)

    def _is_live(self, fold: Sink) -> bool:
        return bool(self.plan.folded(fold) & set(self.open))

    def _carried_along(self, sink: Sink, dim: str) -> bool:
        instr = self.plan.code[sink] if sink < len(self.plan.code) else None
        return isinstance(instr, Carry) and instr.dim == dim

    def _write_loop(self, dim: str, group: list[Sink], keys: list[Key], states: list[Key]) -> None:
        widths = [len(self.acc[k]) for k in keys]

        def pack() -> list[Value]:
            return [v for k in keys for v in self.acc[k]] + [self.state[k] for k in states]

        def unpack(values: Sequence[Value]) -> None:
            count = sum(widths)
            self._set_accumulators(keys, widths, values[:count])
            for k, v in zip(states, values[count:], strict=True):
                self.state[k] = v

        def body(size: int, multiple: int) -> Callable[[Int, list[Value]], list[Value]]:
            def run(index: Int, carried: list[Value]) -> list[Value]:
                unpack(carried)
                self._body(dim, group, index, size, multiple, states)
                return pack()

            return run

        bound = self._bounds.get(dim)
        if bound is None:
            unpack(self._whole_loop(dim, pack(), body))
        else:
            unpack(self._bounded_loop(dim, bound, pack(), body))

    def _whole_loop(
        self,
        dim: str,
        carried: list[Value],
        body: Callable[[int, int], Callable[[Int, list[Value]], list[Value]]],
    ) -> list[Value]:
        extent, step = self.plan.extent[dim], self.plan.step.get(dim, 1)
        self.span[dim] = (0, extent)
        whole = extent // step * step
        carried = self.fn.loop(0, whole, step, carried, body(step, step))
        if extent % step:
            carried = body(extent % step, step)(whole, carried)
        return carried

    def _bounded_loop(
        self,
        dim: str,
        bound: Bound,
        carried: list[Value],
        body: Callable[[int, int], Callable[[Int, list[Value]], list[Value]]],
    ) -> list[Value]:
        """A loop over the part of a dim that some point of the block may need."""
        fn = self.fn
        lo: Int = 0
        hi: Int = self.plan.extent[dim]
        exact = True
        for form in bound.lo:
            least, _, same = self._block_range(form)
            lo, exact = fn.greatest(lo, least), exact and same
        for form in bound.hi:
            _, most, same = self._block_range(form)
            hi, exact = fn.least(hi, most), exact and same
        before = list(self.live)
        spread = dim in self.plan.lanes.offsets
        if not exact or spread:
            self.live += self._bound_guards(bound)
        step = self.plan.step.get(dim, 1)
        self.span[dim] = (lo, hi)
        if spread:
            lo = fn.mul(fn.floordiv(lo, step), step)
            carried = fn.loop(lo, hi, step, carried, body(step, step))
        elif step == 1:
            carried = fn.loop(lo, hi, 1, carried, body(1, 1))
        else:
            count = fn.greatest(fn.sub(hi, lo), 0)
            middle = fn.add(lo, fn.mul(fn.floordiv(count, step), step))
            carried = fn.loop(lo, middle, step, carried, body(step, 1))
            carried = fn.loop(middle, hi, 1, carried, body(1, 1))
        self.live = before
        return carried

    def _bound_guards(self, bound: Bound) -> list[tuple[str, Guard]]:
        """A dim's bounds as guards, and its extent where a vector may pass it."""
        at = Form.of(bound.dim)
        guards = [Guard(at - lo, UNBOUNDED) for lo in bound.lo]
        guards += [Guard(hi - at - 1, UNBOUNDED) for hi in bound.hi]
        guards.append(Guard(at, self.plan.extent[bound.dim]))
        return [(bound.dim, g) for g in guards]

    def _block_range(self, form: Form) -> tuple[Int, Int, bool]:
        """Least and greatest value of a form over the block, and whether they are equal."""
        least: Int | None = None
        most: Int | None = None
        low = high = 0
        spots = [self.spot(form, p) for p in self._block_corners(form)]
        if any(s.vector is not None or s.scalar != spots[0].scalar for s in spots):
            raise InternalError(f"codegen: the bound {form} is not affine in the block")
        low = min(o for s in spots for o in s.offsets)
        high = max(o for s in spots for o in s.offsets)
        least = self.fn.add(spots[0].scalar, low)
        most = self.fn.add(spots[0].scalar, high)
        return least, most, low == high

    def _block_corners(self, form: Form) -> Iterable[Point]:
        dims = [d for d in sorted(form.dims) if d in self.plan.registers and d in self.size]
        return self.plan.fold_points(dims, self.size)

    def _body(
        self,
        dim: str,
        group: list[Sink],
        index: Int,
        size: int,
        multiple: int,
        states: list[Key],
    ) -> None:
        """One round of a loop."""
        mark = self.enter()
        pointers = dict(self.pointers)
        kept = self.acc, self.state
        self.acc, self.state = dict(self.acc), dict(self.state)
        accesses = self._accesses(group)
        for access in accesses:
            self.base_pointer(access)
        self.position[dim], self.size[dim], self.multiple[dim] = index, size, multiple
        self.open.append(dim)
        if index != 0:
            self.advance(accesses, dim, index)
        if states:
            self._side_by_side(dim, states)
        self._in_versions(group)
        self.advance_carries(dim, states)
        self.open.pop()
        self.position.pop(dim)
        self.size.pop(dim)
        self.pointers = pointers
        self.multiple.pop(dim)
        accs, carried = kept
        self.acc = {k: self.acc.get(k, v) for k, v in accs.items()}
        self.state = {k: self.state.get(k, v) for k, v in carried.items()}
        self.leave(mark)

    def _side_by_side(self, dim: str, states: Sequence[Key]) -> None:
        """Evaluate the long operations of states that do not wait for one another in turn: written
        one chain behind the other, they would be further apart than a core looks ahead."""
        plan = self.plan
        carries = {k[0]: plan.code[k[0]] for k in states if isinstance(k[0], int)}
        below = plan.plain_below([c.next for c in carries.values() if isinstance(c, Carry)])
        closed = plan.looped.difference(self.open)
        if self.size[dim] > 1 or any(plan.deps[r] & closed or plan.unsteady[r] for r in below):
            return
        level: dict[Ref, int] = {}
        long: list[Ref] = []
        for r in below:
            instr = plan.code[r]
            if isinstance(instr, Apply):
                level[r] = max((level.get(a, 0) for a in instr.args), default=0)
                if PRIMS[instr.fn].flops >= LONG:
                    level[r] += 1
                    long.append(r)
        widest = max(Counter(level[r] for r in long).values(), default=1)
        points = self.block()
        together = max(1, MOST_BESIDE // widest)
        for first in range(0, len(points), together):
            for r in sorted(long, key=lambda r: (level[r], r)):
                for p in points[first : first + together]:
                    self.deep_value(r, {**p, dim: 0})

    def _accesses(self, group: Sequence[Sink]) -> list[Access]:
        found: list[Access] = []
        for s in group:
            if s >= len(self.plan.code):
                found.append(self.plan.store_access(s - len(self.plan.code)))
            found += [self.plan.load_access(r) for r in self.plan.loads(s)]
        return found

    # ---- hoisting

    def _hoist(self, dim: str, group: Sequence[Sink]) -> None:
        """Evaluate what no loop that is still to be opened changes."""
        if dim in self.plan.inner:
            self._hoist_masks(group)
        roots = sorted({r for sink in group for r in self.plan.sink_refs(sink)})
        steady = self._steady_below(roots)
        if not steady:
            return
        found: dict[Key, tuple[Ref, Point]] = {}
        block = self.block()
        self._collect([(r, p) for r in roots for p in block], steady, found)
        if dim in self.plan.inner or len(found) <= MOST_HOISTED:
            for r, at in sorted(found.values(), key=lambda f: f[0]):
                self.deep_value(r, at)

    def _hoist_masks(self, group: Sequence[Sink]) -> None:
        """Compare what guards ask, where no loop that is still to be opened changes it: the same
        comparison is not repeated in the loops below."""
        closed = self.plan.looped.difference(self.open)
        asked = (g for a in self._accesses(group) for g in self.asked(a))
        guards = dict.fromkeys(g for g in asked if not g.dynamic)
        steady = [g for g in guards if not g.form.dims & closed]
        for p in self.block() if steady else ():
            for guard in steady:
                self.guard_mask(guard, p)

    def _steady_below(self, roots: Sequence[Ref]) -> dict[Ref, bool]:
        """Values that can be evaluated now, once for all rounds of the loops still to be opened
        (True), and those that read such values (False); without others."""
        code = self.plan.code
        closed = self.plan.looped.difference(self.open)
        below = self.plan.plain_below(roots)
        found: dict[Ref, bool] = {}
        for r in below:
            unfinished = self.plan.loops_fold(r) and not self._done(r)
            if isinstance(code[r], Const) or unfinished or self.plan.deps[r] & closed:
                continue
            if self._settled(r):
                found[r] = True
        grown = bool(found)
        while grown:
            grown = False
            for r in below:
                reads = () if self.plan.loops_fold(r) else refs(code[r])
                if r not in found and any(a in found for a in reads):
                    found[r] = False
                    grown = True
        return found

    def _collect(
        self,
        todo: list[tuple[Ref, Point]],
        steady: Mapping[Ref, bool],
        found: dict[Key, tuple[Ref, Point]],
    ) -> None:
        """Find the points of steady values below values at points."""
        seen: set[Key] = set()
        while todo:
            r, p = todo.pop()
            key = self.key(r, p)
            if r not in steady or key in seen:
                continue
            seen.add(key)
            if steady[r]:
                found[key] = (r, p)
                continue
            instr = self.plan.code[r]
            points: Sequence[Point] = (p,)
            if isinstance(instr, Fold):
                inside = self.plan.fold_points(instr.dims, self.full_size())
                points = [{**p, **q} for q in inside]
            todo += [(a, q) for a in refs(instr) for q in points]

    def _settled(self, r: Ref) -> bool:
        """Whether a value can be evaluated now, once and for all that follows."""
        return not self.plan.unsteady[r] and all(self._done(f) for f in self.plan.below(r))
