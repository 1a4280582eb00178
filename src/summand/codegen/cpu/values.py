"""Values of a nest's code at points of the register block.

    value(2, {i: 3, j: 16})     the second instruction at block row 3 and the second vector along j

Evaluation is lazy and memoised by the value and its coordinates along the dims that it depends on.
From that one rule follow register reuse (a column of the tile loads its operand once), overlapping
windows that share loads, and hoisting: what a loop does not change is evaluated before it.
A product that one sum reads becomes a fused multiply-add. Values that do not depend on a lane dim
are scalars until they meet a vector.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import assert_never

from summand.codegen.cpu import memory
from summand.codegen.cpu.lanes import fold_lanes
from summand.codegen.cpu.memory import ALL, Mask, Place
from summand.codegen.cpu.ops import emit_fold_op, emit_op, emit_quotient
from summand.codegen.cpu.places import Places
from summand.codegen.cpu.plan import Access, NestPlan, Point
from summand.codegen.cpu.text import (
    Function,
    Int,
    Value,
    register_type,
    scalar,
    split_type,
)
from summand.dtypes import DType, i64
from summand.errors import InternalError
from summand.ir.prims import PRIMS
from summand.loops.nodes import (
    Apply,
    Arg,
    Carry,
    Combine,
    Const,
    Fold,
    Last,
    Load,
    Part,
    Position,
    Ref,
)

Key = tuple[object, ...]
ZEROS = itertools.repeat(0)
LONG = 8.0  # operations from which an op is long
BESIDE = 4  # points at which one is computed at once
DEEP = 48  # instructions between the values that are evaluated ahead, to bound recursion


class Values(Places):
    """Evaluation of code at points; `acc` holds accumulators, `state` what carries hold."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: dict[str, Int],
        bases: dict[str, Value],
    ) -> None:
        super().__init__(fn, plan, outer, bases)
        self.memo: dict[Key, object] = {}
        self._order: list[Key] = []
        self.acc: dict[Key, list[Value]] = {}
        self.state: dict[Key, Value] = {}
        self.depth = self._depths()
        self._before: dict[Ref, bool] = {}
        self.open: list[str] = []  # loops around this place, outer first

    # ---- memory of what was evaluated

    def remember(self, key: Key, value: object) -> None:
        """Keep something until the loop body in which it was evaluated ends."""
        self.memo[key] = value
        self._order.append(key)

    def enter(self) -> int:
        """Begin a scope (a loop's body)."""
        return len(self._order)

    def leave(self, mark: int) -> None:
        """Forget what the scope evaluated."""
        for key in self._order[mark:]:
            self.memo.pop(key, None)
        del self._order[mark:]

    def key(self, r: Ref, p: Point) -> Key:
        """What a value is remembered by."""
        at = self.plan.at_registers[r]
        return (r, self.lanes is self.plan.end, *map(p.get, at, ZEROS))

    def _depths(self) -> list[int]:
        depth: list[int] = []
        for r, instr in enumerate(self.plan.code):
            below = instr.args if isinstance(instr, Apply | Fold) else ()
            depth.append(1 + max((depth[a] for a in below if a < r), default=0))
        return depth

    # ---- evaluation

    def value(self, r: Ref, p: Point) -> Value:
        """A value at a point."""
        key = self.key(r, p)
        known = self.memo.get(key)
        if known is None:
            known = self._compute(r, p)
            self.remember(key, known)
        assert isinstance(known, Value)
        return known

    def deep_value(self, r: Ref, p: Point) -> Value:
        """A value at a point, long chains of instructions evaluated from their beginning."""
        if self.depth[r] > DEEP:
            for a in self._milestones(r):
                self.value(a, p)
        return self.value(r, p)

    def _milestones(self, r: Ref) -> list[Ref]:
        """What to evaluate on the way to `r`, two depths of each DEEP: one may be all products,
        which are evaluated with the sums that read them."""
        found: set[Ref] = set()
        todo = [r]
        while todo:
            instr = self.plan.code[todo.pop()]
            if isinstance(instr, Apply):
                fresh = set(instr.args) - found
                found |= fresh
                todo += fresh
        return sorted(
            a
            for a in found
            if self.depth[a] % DEEP <= 1
            and isinstance(self.plan.code[a], Apply)
            and not self.plan.is_product(a)
        )

    def widened(self, value: Value) -> Value:
        """A scalar in every lane."""
        return value if value.type.startswith("<") else self.fn.splat(value, self.lanes.count)

    def together(self, values: Sequence[Value]) -> tuple[list[Value], int]:
        """Values in one width, and that width."""
        if any(v.type.startswith("<") for v in values):
            return [self.widened(v) for v in values], self.lanes.count
        return list(values), 1

    def _compute(self, r: Ref, p: Point) -> Value:
        instr = self.plan.code[r]
        match instr:
            case Const():
                return scalar(instr.value, instr.dtype)
            case Position():
                return self._position(instr, p)
            case Load():
                return self._load(r, instr, p)
            case Apply():
                return self._long(r, instr, p) if self._is_long(r) else self._apply(instr, p)
            case Fold():
                return self._fold(r, p)[0]
            case Part():
                return self._fold(instr.of, p)[instr.index]
            case Carry():
                return self._carry(r, instr, p)
            case Last():
                return self._last(instr, p)
            case Arg():
                raise InternalError("codegen: an Arg outside of a combine")
            case _:
                assert_never(instr)

    def _position(self, instr: Position, p: Point) -> Value:
        spot = self.spot(instr.form, p)
        if spot.uniform:
            whole = self.fn.i64(self.fn.add(spot.scalar, spot.offsets[0]))
            if isinstance(spot.scalar, int):
                return scalar(spot.scalar + spot.offsets[0], instr.dtype)
            if instr.dtype.is_float:
                whole = Value(whole.name, "i64", i64)
                return emit_op(self.fn, "convert", [whole], instr.dtype, 1)
            type_ = register_type(instr.dtype, 1)
            how = "trunc" if instr.dtype.bits < 64 else "bitcast"
            return self.fn.cast(how, whole, type_, instr.dtype)
        if instr.dtype.is_float:
            wide = self._spread(spot, "i64")
            wide = Value(wide.name, wide.type, i64)
            return emit_op(self.fn, "convert", [wide], instr.dtype, self.lanes.count)
        vector = self._spread(spot, register_type(instr.dtype, 1))
        return Value(vector.name, vector.type, instr.dtype)

    # ---- scalar ops

    def _apply(self, instr: Apply, p: Point) -> Value:
        fused = self._fused(instr, p) or self._one_of_two(instr, p)
        if fused is not None:
            return fused
        number = self._divisor(instr)
        if number is not None:
            (x,), lanes = self.together([self.value(instr.args[0], p)])
            return emit_quotient(self.fn, x, number, instr.dtype, lanes)
        args, lanes = self.together([self.value(a, p) for a in instr.args])
        out = emit_op(self.fn, instr.fn, args, instr.dtype, lanes)
        return Value(out.name, out.type, instr.dtype)

    def _divisor(self, instr: Apply) -> float | None:
        """The number that a float is divided by, if it is known."""
        by = self.plan.code[instr.args[-1]]
        known = instr.fn == "div" and instr.dtype.is_float and isinstance(by, Const)
        return float(by.value) if known and isinstance(by, Const) else None

    def _is_long(self, r: Ref) -> bool:
        """Whether an op is better computed for several points at once: its instructions wait for
        one another, and where registers are few its constants are read from memory each time."""
        instr = self.plan.code[r]
        assert isinstance(instr, Apply)
        few = self.fn.unit.is_x86 and "avx512f" not in self.fn.unit.features
        few = few and self._divisor(instr) is None
        steady = self.lanes is not self.plan.end and not self.plan.unsteady[r]
        return few and steady and PRIMS[instr.fn].flops >= LONG and instr.dtype.is_float

    def _long(self, r: Ref, instr: Apply, p: Point) -> Value:
        """A long op at a point and the next ones of the block, side by side in one wide vector,
        of which LLVM makes as many of the processor's."""
        points = [p, *self._next_points(r, p)]
        found = [self.together([self.value(a, q) for a in instr.args]) for q in points]
        lanes = found[0][1]
        if lanes == 1 or any(n != lanes for _, n in found):
            found = found[:1]
        columns = zip(*(args for args, _ in found), strict=True)
        args = [memory.concatenate(self.fn, c) for c in columns]
        out = emit_op(self.fn, instr.fn, args, instr.dtype, lanes * len(found))
        if len(found) == 1:
            return Value(out.name, out.type, instr.dtype)
        for k, q in enumerate(points):
            part = self.fn.shuffle(out, None, range(k * lanes, (k + 1) * lanes))
            self.remember(self.key(r, q), Value(part.name, part.type, instr.dtype))
        known = self.memo[self.key(r, p)]
        assert isinstance(known, Value)
        return known

    def _next_points(self, r: Ref, p: Point) -> list[Point]:
        """The points of the block that come next, at which the value is not known yet: with the
        first one a power of two, at most `BESIDE`."""
        found: dict[Key, Point] = {self.key(r, p): p}
        carried = [i.dim for i in self.plan.code if isinstance(i, Carry)]
        for q in self.block():
            key = self.key(r, q)
            if len(found) == BESIDE:
                break
            same = all(q.get(d, 0) == p.get(d, 0) for d in carried)
            if same and key not in found and key not in self.memo:
                found[key] = q
        together = 1 << len(found).bit_length() - 1
        return list(found.values())[1:together]

    @abstractmethod
    def block(self) -> list[dict[str, int]]:
        """All points of the register block."""

    def _fused(self, instr: Apply, p: Point) -> Value | None:
        """a·b + c, a·b - c and c - a·b where nothing else reads the product."""
        if instr.fn not in ("add", "sub") or not instr.dtype.is_float:
            return None
        left, right = instr.args
        if self.plan.is_product(left):
            a, b = self.factors(left, p)
            c = self.value(right, p)
            return self.fma(a, b, self.negated(c) if instr.fn == "sub" else c, instr.dtype)
        if self.plan.is_product(right):
            a, b = self.factors(right, p)
            c = self.value(left, p)
            return self.fma(self.negated(a) if instr.fn == "sub" else a, b, c, instr.dtype)
        return None

    def _one_of_two(self, instr: Apply, p: Point) -> Value | None:
        """Two vectors of memory of which one is wanted, by what is the same for all lanes: the
        other one is not read."""
        if self.lanes is self.plan.end or instr.fn not in ("where", "add"):
            return None
        *conditions, left, right = instr.args
        loads = [self.plan.code[left], self.plan.code[right]]
        one, two = (load if isinstance(load, Load) else None for load in loads)
        if one is None or two is None or one.fill or two.fill or one.dtype != two.dtype:
            return None
        if instr.fn == "add" and not _exclude(one, two):
            return None
        places = []
        for r in (left, right):
            access = self.plan.load_access(r)
            place = self.place(access, p)
            places.append((place, self.access_mask(access, p, place)))
        holds = self.value(conditions[0], p) if conditions else places[0][1].uniform
        if holds is None or holds.type != "i1":
            return None
        found = memory.load_either(self.fn, holds, *places)
        return found and Value(found.name, found.type, instr.dtype)

    def factors(self, product: Ref, p: Point) -> tuple[Value, Value]:
        """The two factors of a product."""
        instr = self.plan.code[product]
        assert isinstance(instr, Apply)
        return self.value(instr.args[0], p), self.value(instr.args[1], p)

    def negated(self, value: Value) -> Value:
        """-value of a float."""
        return self.fn.pure(f"fneg {value.type} {value}", value.type, value.dtype)

    def fma(self, a: Value, b: Value, c: Value, dtype: DType) -> Value:
        """a·b + c, fused where the processor can."""
        (a, b, c), _ = self.together((a, b, c))
        out = self.fn.intrinsic("fmuladd", a, b, c)
        return Value(out.name, out.type, dtype)

    # ---- loads

    def access_mask(self, access: Access, p: Point, place: Place) -> Mask:
        """The lanes in which an access is in range at a point."""
        tail = self.tail(p, access.dims, self.lanes) if place.lanes > 1 else None
        mask = self.mask(self.asked(access), p, access.dims, tail)
        if mask.static is not None and len(mask.static) != place.lanes:
            mask = Mask(mask.static * (place.lanes // len(mask.static)), mask.uniform, mask.lanes)
        return mask

    def _load(self, r: Ref, instr: Load, p: Point) -> Value:
        access = self.plan.load_access(r)
        if self.lanes is self.plan.end and self._better_before(r, access):
            return self.relane(r, p)
        place = self.place(access, p)
        whole = self._whole_vector(access, p, place)
        if whole is not None:
            return self._whole_or_masked(whole, access, instr, p, place)
        mask = self.access_mask(access, p, place)
        only_tail = not self.asked(access) and not self.live
        if only_tail and place.uniform:
            mask = ALL  # the lanes past the end would read the same element
        key: Key = ("load", place, mask, str(instr.fill))
        known = self.memo.get(key)
        if known is None:
            known = memory.load(self.fn, place, mask, instr.fill)
            known = Value(known.name, known.type, instr.dtype)
            self.remember(key, known)
        assert isinstance(known, Value)
        return known

    def _whole_vector(self, access: Access, p: Point, place: Place) -> Value | None:
        """Whether all lanes of a vector are in range, where it is better to ask for that first: the
        innermost loop changes the masks, and the processor has no registers for them."""
        if self.fn.unit.has_masks or not place.contiguous or place.lanes < 4:
            return None
        if self.live or self.mixed:
            return None
        guards = self.asked(access)
        reads = {d for g in guards for d in g.form.dims}
        reads.update(*(self.plan.deps[r] for g in guards for r, _ in g.dynamic))
        late = bool(self.open) and self.open[-1] in reads and reads & self.lanes.offsets.keys()
        if not late or self.tail(p, access.dims, self.lanes) is not None:
            return None
        return self.whole(guards, p)

    def _whole_or_masked(
        self, whole: Value, access: Access, instr: Load, p: Point, place: Place
    ) -> Value:
        """One vector from memory, under a mask only where some lanes are out of range."""

        def masked(_: list[Value]) -> list[Value]:
            mark = self.enter()
            found = memory.load(self.fn, place, self.access_mask(access, p, place), instr.fill)
            self.leave(mark)
            return [found]

        def plain(_: list[Value]) -> list[Value]:
            return [memory.load(self.fn, place, ALL, instr.fill)]

        start = scalar(instr.fill, instr.dtype, place.lanes)
        (found,) = self.fn.when(whole, [start], plain, masked)
        return Value(found.name, found.type, instr.dtype)

    def _better_before(self, r: Ref, access: Access) -> bool:
        """Whether elements are contiguous in the body's lanes but not in those of the end."""
        if r not in self._before:
            end, body = self.plan.end, self.plan.lanes
            assert end is not None
            plain = not (access.quasi or access.dynamic or access.guards)
            moved = access.dims & end.offsets.keys() and access.dims & body.offsets.keys()
            self._before[r] = bool(
                plain and moved and access.contiguous(body) and not access.contiguous(end)
            )
        return self._before[r]

    # ---- carries

    def _carry(self, r: Ref, instr: Carry, p: Point) -> Value:
        before = p.get(instr.dim, 0)
        if before:
            return self.following(r, {**p, instr.dim: before - 1})
        known = self.state.get(self.key(r, p))
        return self.value(instr.init, p) if known is None else known

    def _last(self, instr: Last, p: Point) -> Value:
        carry = self.plan.code[instr.carry]
        assert isinstance(carry, Carry)
        if self.plan.folded(instr.carry):
            if self.lanes is self.plan.end:
                return self.relane(instr.carry, p)
            return self.state[self.key(instr.carry, {**p, carry.dim: 0})]
        return self.following(instr.carry, {**p, carry.dim: self.size[carry.dim] - 1})

    def following(self, carry: Ref, p: Point) -> Value:
        """The state after a position: `next`, or the state before it where a bound rules it out."""
        instr = self.plan.code[carry]
        assert isinstance(instr, Carry)
        value = self.deep_value(instr.next, p)
        mask = self.mask((), p, frozenset({instr.dim}))
        if not mask.free:
            (value, before), lanes = self.together((value, self.value(carry, p)))
            bits = memory.lane_mask(self.fn, mask, lanes)
            value = self.fn.select(bits, value, before)
        if self.plan.width(self.plan.deps[carry], self.lanes) > 1:
            value = self.widened(value)
        return Value(value.name, value.type, instr.dtype)

    # ---- folds

    def combine(self, combine: Combine, dtypes: Sequence[DType]) -> Callable[..., list[Value]]:
        """A function (left, right, lanes) that combines components."""

        def run(left: list[Value], right: list[Value], lanes: int) -> list[Value]:
            typed = [Value(v.name, v.type, t) for v, t in zip((*left, *right), (*dtypes, *dtypes))]
            if combine.fn is not None:
                out = emit_fold_op(self.fn, combine.fn, typed[0], typed[1], dtypes[0], lanes)
                return [Value(out.name, out.type, dtypes[0])]
            return self._combine_code(combine, typed, lanes)

        return run

    def _combine_code(self, combine: Combine, given: list[Value], lanes: int) -> list[Value]:
        values: list[Value] = []
        for instr in combine.code:
            match instr:
                case Arg():
                    values.append(given[instr.index])
                case Const():
                    values.append(scalar(instr.value, instr.dtype, lanes))
                case Apply():
                    args = [values[a] for a in instr.args]
                    out = emit_op(self.fn, instr.fn, args, instr.dtype, lanes)
                    values.append(Value(out.name, out.type, instr.dtype))
                case _:
                    raise InternalError(f"codegen: {instr} in the code of a combine")
        return [values[r] for r in combine.results]

    def component_types(self, fold: Fold) -> list[DType]:
        """The dtype of each component."""
        if len(fold.args) == 1:
            return [fold.dtype]
        return [self.plan.code[a].dtype for a in fold.args]

    def identities(self, fold: Fold, lanes: int) -> list[Value]:
        """The identity of each component."""
        types = self.component_types(fold)
        return [scalar(x, t, lanes) for x, t in zip(fold.combine.identity, types, strict=True)]

    def fold_width(self, r: Ref) -> int:
        """Lanes of a fold's accumulators."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        return self.plan.width(self.plan.deps[r] | frozenset(fold.dims), self.lanes)

    def _fold(self, r: Ref, p: Point) -> list[Value]:
        """All components of a fold at a point."""
        key = ("parts", *self.key(r, p))
        known = self.memo.get(key)
        if known is None:
            if self.lanes is self.plan.end and self._folds_lanes(r):
                known = self.relane_fold(r, p)
            else:
                known = self.folded(r, p)
            self.remember(key, known)
        assert isinstance(known, list)
        return known

    def _folds_lanes(self, r: Ref) -> bool:
        """Whether a fold's accumulators exist in the body's lanes only, or had better be there:
        its operands lie as they do."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        lanes = self.plan.deps[r].union(fold.dims) & self.plan.lanes.offsets.keys()
        return self.plan.loops_fold(r) or bool(lanes)

    def _in_registers(self, r: Ref, p: Point) -> list[Value]:
        """The accumulator of a fold over dims that are all in registers."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        key = ("in registers", *self.key(r, p))
        known = self.memo.get(key)
        if known is None:
            acc: list[Value] | None = None
            for q in self.plan.fold_points(fold.dims, self.size):
                acc = self.accumulate(r, {**p, **q}, acc)
            known = acc or self.identities(fold, self.fold_width(r))
            self.remember(key, known)
        assert isinstance(known, list)
        return known

    def accumulate(self, r: Ref, p: Point, acc: list[Value] | None) -> list[Value]:
        """An accumulator (None: nothing yet) combined with a fold's arguments at a point."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        lanes = self.fold_width(r)
        mask = self._fold_mask(fold, p, lanes)
        if mask.free and acc is not None and self._sums_products(fold):
            a, b = self.factors(fold.args[0], p)
            return [self.fma(a, b, acc[0], fold.dtype)]
        values = self._addends(fold, p, mask, lanes)
        if acc is None:
            return values
        return self.combine(fold.combine, self.component_types(fold))(acc, values, lanes)

    def addends(self, r: Ref, p: Point) -> list[Value]:
        """What a fold is to take in at a point."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        lanes = self.fold_width(r)
        return self._addends(fold, p, self._fold_mask(fold, p, lanes), lanes)

    def _fold_mask(self, fold: Fold, p: Point, lanes: int) -> Mask:
        dims = frozenset(fold.dims)
        tail = self.tail(p, dims, self.lanes) if lanes > 1 else None
        return self.mask((), p, dims, tail)

    def _addends(self, fold: Fold, p: Point, mask: Mask, lanes: int) -> list[Value]:
        """A fold's arguments at a point; the identity where the mask leaves lanes out."""
        values = [self.deep_value(a, p) for a in fold.args]
        if lanes > 1:
            values = [self.widened(v) for v in values]
        if not mask.free:
            bits = memory.lane_mask(self.fn, mask, lanes)
            pairs = zip(values, self.identities(fold, lanes), strict=True)
            values = [self.fn.select(bits, v, i) for v, i in pairs]
        return values

    def _sums_products(self, fold: Fold) -> bool:
        return fold.combine.fn == "add" and self.plan.is_product(fold.args[0])

    def _across(self, r: Ref, acc: list[Value], lanes: int) -> list[Value]:
        """The folded lanes of an accumulator folded into one another."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        if lanes == 1:
            return acc
        bits = self.lanes.bits(frozenset(fold.dims))
        run = self.combine(fold.combine, self.component_types(fold))
        out = fold_lanes(self.fn, acc, lanes, bits, run)
        if self.plan.width(self.plan.deps[r], self.lanes) == 1 and split_type(out[0].type)[1] > 1:
            out = [self.fn.extract(v, 0) for v in out]
        return out

    def merged(self, r: Ref, p: Point) -> list[Value] | None:
        """A finished fold's accumulator at a point, its copies combined; None: there is none."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        if not self.plan.loops_fold(r):
            outside = any(p.get(d, 0) >= self.size[d] for d in self.plan.deps[r] if d in self.size)
            return None if outside else self._in_registers(r, p)
        at = self.plan.at_registers[r]
        base = (r, *(p.get(d, 0) for d in at))
        known = self.memo.get(("merged", *base))
        if known is not None:
            assert isinstance(known, list)
            return known
        copies = [
            self.acc[k] for c in range(self.plan.schedule.copies) if (k := (*base, c)) in self.acc
        ]
        if not copies:
            return None
        lanes = split_type(copies[0][0].type)[1]
        run = self.combine(fold.combine, self.component_types(fold))
        out = copies[0]
        for more in copies[1:]:
            out = run(out, more, lanes)
        self.remember(("merged", *base), out)
        return out

    def folded(self, r: Ref, p: Point) -> list[Value]:
        """The result of a finished fold at a point, in the body's lanes."""
        acc = self.merged(r, p)
        if acc is None:
            raise InternalError(f"codegen: fold {r} is read before it is done")
        return self._across(r, acc, split_type(acc[0].type)[1])

    # ---- lanes that change (`relane.py`)

    @abstractmethod
    def relane(self, r: Ref, p: Point) -> Value:
        """A value that the body's lanes hold, in the lanes of the end."""

    @abstractmethod
    def relane_fold(self, r: Ref, p: Point) -> list[Value]:
        """A finished fold's components in the lanes of the end."""


def _exclude(one: Load, two: Load) -> bool:
    """Whether the conditions of two loads never hold together, and where they fail nothing is
    added: -0, which leaves every float as it is."""
    if not one.dtype.is_float or not one.at.guards or not two.at.guards:
        return False
    return any(
        (apart := a.form - b.form).is_const
        and not (a.dynamic or b.dynamic)
        and (apart.const >= a.size or -apart.const >= b.size)
        for a in one.at.guards
        for b in two.at.guards
    )
