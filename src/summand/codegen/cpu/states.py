"""Accumulators of folds and states of carries, for all points of the register block.

They are SSA values that the loops carry. Only the state of a carry that varies along a loop inside
its own lies in memory, three times: for even and for odd positions (each reads what the one before
has written to the other), and the last one, which a second pass over the loop may still need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.codegen.cpu.plan import NestPlan, Point, Sink
from summand.codegen.cpu.relane import Relaned
from summand.codegen.cpu.text import Function, Int, Value, memory_type
from summand.codegen.cpu.values import Key
from summand.errors import InternalError
from summand.loops.nodes import Carry, Fold, Last, Ref

LAST = 2  # place of the last state; 0 and 1 are those of even and odd positions


class States(Relaned):
    """Adds to `Relaned` the values that loops carry."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: dict[str, Int],
        bases: dict[str, Value],
        arrays: Value | None,
    ) -> None:
        super().__init__(fn, plan, outer, bases)
        self.span: dict[str, tuple[Int, Int]] = {}  # begin and end of the loops of carries
        self._arrays = arrays

    def block(self) -> list[dict[str, int]]:
        """All points of the register block: what is unrolled outside, the tile inside."""
        size, dims = self.full_size(), frozenset(self.plan.extent)
        return [p for turn in self.plan.block_points(size, dims) for p in turn]

    def full_size(self) -> Mapping[str, int]:
        """Sizes with those of loops that are not open yet: one step each."""
        steps = {d: self.plan.step.get(d, 1) for d in self.plan.extent if d not in self.size}
        return {**steps, **self.size} if steps else self.size

    def start(self, fold: Sink) -> None:
        """Accumulators of all points of the block at the identity."""
        instr = self.plan.code[fold]
        assert isinstance(instr, Fold)
        at = self.plan.at_registers[fold]
        start = self.identities(instr, self.fold_width(fold))
        for k in [k for k in self.acc if k[0] == fold]:
            del self.acc[k]
        for p in self.block():
            for c in range(self.plan.schedule.copies):
                self.acc.setdefault((fold, *(p.get(d, 0) for d in at), c), start)

    def start_carry(self, carry: Sink, dim: str) -> None:
        """States of all points of the block at their first position."""
        instr = self.plan.code[carry]
        assert isinstance(instr, Carry)
        for k in [k for k in self.state if k[0] == carry]:
            del self.state[k]
        if carry in self.plan.array_dims:
            return
        if self.plan.looped & self.plan.deps[carry] - {dim, *self.open}:
            raise InternalError(f"codegen: carry {carry} varies along a loop inside its own")
        wide = self.plan.width(self.plan.deps[carry], self.lanes)
        for p in self.block():
            q = {**p, dim: 0}
            key = self.key(carry, q)
            if key not in self.state:
                value = self.value(instr.init, q)
                self.state[key] = self.widened(value) if wide > 1 else value

    def advance_carries(self, dim: str, states: Sequence[Key]) -> None:
        """The states after a round: `next` at the round's last position."""
        if not states:
            return
        new: dict[Key, Value] = {}
        for p in self.block():
            q = {**p, dim: 0}
            for c in sorted({k[0] for k in states if isinstance(k[0], int)}):
                key = self.key(c, q)
                if key in self.state and key not in new:
                    new[key] = self.following(c, {**p, dim: self.size[dim] - 1})
        self.state.update(new)

    # ---- states in memory

    def _carry(self, r: Ref, instr: Carry, p: Point) -> Value:
        if r not in self.plan.array_dims:
            return super()._carry(r, instr, p)
        at = self.position[instr.dim]
        stored = self._read_state(r, self.fn.mod(at, 2))
        return self._unless_first(instr, p, at, stored)

    def _last(self, instr: Last, p: Point) -> Value:
        if instr.carry not in self.plan.array_dims:
            return super()._last(instr, p)
        carry = self.plan.code[instr.carry]
        assert isinstance(carry, Carry)
        stored = self._read_state(instr.carry, LAST)
        return self._unless_first(carry, p, self.span[carry.dim][1], stored)

    def _unless_first(self, carry: Carry, p: Point, at: Int, stored: Value) -> Value:
        """The state at a position: `init` where the loop begins there."""
        begin = self.span[carry.dim][0]
        init = self.value(carry.init, {**p, carry.dim: 0})
        if isinstance(at, int) and isinstance(begin, int):
            return init if at <= begin else stored
        first = self.fn.pure(f"icmp sle i64 {at}, {begin}", "i1")
        return self.fn.select(first, init, stored)

    def store_state(self, carry: Sink, p: Point) -> None:
        """Write `next` for the position that follows, where the state lies in memory."""
        if carry not in self.plan.array_dims:
            return
        instr = self.plan.code[carry]
        assert isinstance(instr, Carry)
        value = self.following(carry, p)
        stored = self.fn.cast("zext", value, "i8") if value.type == "i1" else value
        places = [self.fn.mod(self.fn.add(self.position[instr.dim], 1), 2)]
        if ("done", carry) not in self.memo:  # a second pass leaves the last states alone
            places.append(LAST)
        for place in places:
            at = self._state_address(carry, place)
            self.fn.do(f"store {stored.type} {stored}, ptr {at}, align 1")

    def _read_state(self, carry: Sink, place: Int) -> Value:
        dtype = self.plan.code[carry].dtype
        type_ = memory_type(dtype) if dtype.bits != 16 or not dtype.is_float else "float"
        address = self._state_address(carry, place)
        stored = self.fn.op(f"load {type_}, ptr {address}, align 1", type_, dtype)
        if type_ == "i8" and dtype.kind == "bool":
            return self.fn.pure(f"icmp ne i8 {stored}, 0", "i1", dtype)
        return stored

    def _state_address(self, carry: Sink, place: Int) -> Value:
        """Where a state lies: that of an even or odd position of the carry's dim, or the last."""
        assert self._arrays is not None
        index = place
        for d in self.plan.array_dims[carry]:
            index = self.fn.mul(index, self.plan.extent[d])
            index = self.fn.add(index, self.position[d])
        start = sum(self.plan.array_elements(c) for c in self.plan.array_dims if c < carry)
        return self.fn.at(self._arrays, self.fn.add(index, start), "i64")
