"""Verify loop IR: names bound, references and types right, addresses in range, schedules legal.

    verify(kernel)          verify_module(module)

Raises InternalError that quotes the text. That an address lies in its buffer must be proven from
ranges of dims, guards and bounds, except where it has computed terms of which nothing is known:
those the interpreter checks as it runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn, assert_never

from summand.dtypes import DType, accumulator, bool_
from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.prims import PRIMS
from summand.loops.code import Code, address_refs, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Buffer,
    Carry,
    Combine,
    Fold,
    Instr,
    Kernel,
    Last,
    Let,
    Load,
    Loop,
    Nest,
    Part,
    Position,
    Schedule,
    Stmt,
    Store,
    When,
)
from summand.loops.ranges import WIDE, Scope, conditions_of, value_ranges, with_values
from summand.loops.text import instruction, store_text, text

FOLDS = ("add", "mul", "max", "min", "and", "or")


def verify(kernel: Kernel) -> None:
    """Raise InternalError where a kernel is not well formed."""
    _Verifier(kernel).run()


class _Verifier:
    """Walks one kernel; `scope` says what is bound where a statement stands."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.buffers = {b.name: b for b in (*kernel.params, *kernel.scratch)}
        self.where = ""

    def fail(self, what: str) -> NoReturn:
        """Raise, quoting the place and the kernel."""
        place = f" at {self.where!r}" if self.where else ""
        raise InternalError(f"verify: {what}{place}\n{text(self.kernel)}")

    def run(self) -> None:
        """Verify the whole kernel."""
        kernel = self.kernel
        if len(self.buffers) != len(kernel.params) + len(kernel.scratch):
            self.fail("two buffers have one name")
        for memory, buffers in (("global", kernel.params), ("scratch", kernel.scratch)):
            for b in buffers:
                if b.memory != memory or b.size < 0 or b.space < 0:
                    self.fail(f"{b.name} is no {memory} buffer")
        scope = Scope()
        for dim, extent in kernel.grid:
            scope = self.bind(scope, dim, extent)
        self.body(kernel.body, scope)

    def bind(self, scope: Scope, dim: str, extent: int) -> Scope:
        """With a dim of its own extent; a dim without positions leaves nothing to prove."""
        self.unbound(scope, dim)
        if extent < 0:
            self.fail(f"{dim} has extent {extent}")
        return scope.bind(dim, 0, extent - 1)

    def unbound(self, scope: Scope, dim: str) -> None:
        """A dim may be bound once on a path."""
        if dim in scope.dims:
            self.fail(f"{dim} is bound twice")

    def bound(self, form: Form, scope: Scope) -> None:
        """All dims of a form must be bound."""
        for d in sorted(form.dims - scope.dims.keys()):
            self.fail(f"{d} is not bound")

    # ---- statements

    def body(self, body: Sequence[Stmt], scope: Scope) -> None:
        """Verify statements."""
        for stmt in body:
            self.where = ""
            match stmt:
                case Nest():
                    self.nest(stmt, scope)
                case Loop():
                    self.body(stmt.body, self.bind(scope, stmt.dim, stmt.extent))
                case Let():
                    self.bound(stmt.form, scope)
                    self.unbound(scope, stmt.dim)
                    if stmt.lo > stmt.hi:
                        self.fail(f"{stmt.dim} is clipped to nothing")
                    self.body(stmt.body, scope.let(stmt))
                case When():
                    for guard in stmt.guards:
                        self.bound(guard.form, scope)
                        if guard.dynamic:
                            self.fail("a condition of a statement reads a value")
                    self.body(stmt.body, scope.given(conditions_of(stmt.guards)))
                case _:
                    assert_never(stmt)

    def nest(self, nest: Nest, scope: Scope) -> None:
        """Verify a nest."""
        for dim, extent in nest.dims:
            scope = self.bind(scope, dim, extent)
        self.order(nest)
        for bound in nest.bounds:
            self.bounds(bound, nest, scope)
        self.code(nest.code, nest)
        for r, instr in enumerate(nest.code):
            if isinstance(instr, Position):
                self.where = next(instruction(r, instr))
                self.bound(instr.form, scope)
        for store in nest.stores:
            self.store(store, nest)
        self.addresses(nest, scope)
        self.where = ""
        if nest.schedule is not None:
            self.schedule(nest.schedule, nest)

    def order(self, nest: Nest) -> None:
        """Dims that run in order are the nest's own."""
        names = [d for d, _ in nest.dims]
        for d in nest.ordered:
            if d not in names:
                self.fail(f"the ordered {d} is no dim of its nest")
        carried = {i.dim for i in nest.code if isinstance(i, Carry)}
        for d in sorted(carried - set(nest.ordered)):
            self.fail(f"a state is carried along {d}, which is not ordered")

    def bounds(self, bound: Bound, nest: Nest, scope: Scope) -> None:
        """Bounds restrict a dim of the nest by others."""
        if bound.dim not in nest.extents:
            self.fail(f"the bounded {bound.dim} is no dim of its nest")
        for form in (*bound.lo, *bound.hi):
            self.bound(form, scope)
            if bound.dim in form.dims:
                self.fail(f"{bound.dim} is bounded by itself")

    # ---- code

    def code(self, code: Sequence[Instr], nest: Nest | None) -> None:
        """References, arities and types of instructions; `nest` is None for a combine's code."""
        for r, instr in enumerate(code):
            self.where = next(instruction(r, instr))
            for ref in refs(instr):
                later = isinstance(instr, Carry) and ref == instr.next
                if not 0 <= ref < (len(code) if later else r):
                    self.fail(f"value %{ref} is not defined before")
            if nest is None:
                self.scalar(instr, code)
            else:
                self.instruction(instr, code, nest)

    def scalar(self, instr: Instr, code: Sequence[Instr]) -> None:
        """The code of a combine is scalar."""
        if isinstance(instr, (Load, Position, Fold, Part, Carry, Last)):
            self.fail("the code of a combine is scalar")
        if isinstance(instr, Apply):
            self.apply(instr, code)

    def instruction(self, instr: Instr, code: Sequence[Instr], nest: Nest) -> None:
        """One instruction of a nest."""
        match instr:
            case Load():
                self.same(instr.dtype, self.buffer(instr.buffer).dtype)
            case Apply():
                self.apply(instr, code)
            case Fold():
                self.fold(instr, code, nest)
            case Part():
                fold = code[instr.of]
                if not isinstance(fold, Fold) or not 0 <= instr.index < len(fold.args):
                    self.fail(f"%{instr.of} has no part {instr.index}")
                self.same(instr.dtype, code[fold.args[instr.index]].dtype)
            case Carry():
                if instr.dim not in nest.extents:
                    self.fail(f"{instr.dim} is no dim of the nest")
                for ref in (instr.init, instr.next):
                    self.same(instr.dtype, code[ref].dtype)
            case Last():
                if not isinstance(code[instr.carry], Carry):
                    self.fail(f"%{instr.carry} is not carried")
                self.same(instr.dtype, code[instr.carry].dtype)
            case Arg():
                self.fail("an argument outside of a combine")
            case _:
                pass

    def buffer(self, name: str) -> Buffer:
        """A buffer of the kernel."""
        if name not in self.buffers:
            self.fail(f"there is no buffer {name}")
        return self.buffers[name]

    def same(self, a: DType, b: DType) -> None:
        """Types agree, 16-bit floats being f32 in code."""
        if accumulator(a) != accumulator(b):
            self.fail(f"{a} meets {b}")

    def apply(self, instr: Apply, code: Sequence[Instr]) -> None:
        """An op has its arity and its type rule."""
        prim = PRIMS.get(instr.fn)
        if prim is None or prim.arity != len(instr.args):
            self.fail(f"{instr.fn} takes other arguments")
        if instr.fn == "convert":
            return
        types = [accumulator(code[a].dtype) for a in instr.args]
        operands = types[1:] if instr.fn == "where" else types
        for t in operands[1:]:
            self.same(operands[0], t)
        if instr.fn == "where" and types[0] is not bool_:
            self.fail("the condition is not bool")
        result = prim.rule(*types)
        if result is None:
            self.fail(f"{instr.fn} has no rule for {types}")
        self.same(instr.dtype, result)

    def fold(self, instr: Fold, code: Sequence[Instr], nest: Nest) -> None:
        """A fold's dims, components and combine."""
        for d in instr.dims:
            if d not in nest.extents:
                self.fail(f"the folded {d} is no dim of the nest")
        if len(instr.args) != len(instr.combine.identity) or not instr.args:
            self.fail("a fold has one argument for each component of its identity")
        types = [code[a].dtype for a in instr.args]
        self.same(instr.dtype, types[0])
        self.combine(instr.combine, types)

    def combine(self, combine: Combine, types: Sequence[DType]) -> None:
        """A named op for one component, or code with two arguments for each."""
        if combine.fn is not None:
            if combine.fn not in FOLDS or len(types) != 1:
                self.fail(f"nothing folds with {combine.fn}")
            return
        where = self.where
        self.code(combine.code, None)
        self.where = where
        for instr in combine.code:
            if isinstance(instr, Arg):
                if not 0 <= instr.index < 2 * len(types):
                    self.fail(f"there is no argument {instr.index}")
                self.same(instr.dtype, types[instr.index % len(types)])
        if len(combine.results) != len(types):
            self.fail("a combine has one result for each component")
        for r, t in zip(combine.results, types, strict=True):
            if not 0 <= r < len(combine.code):
                self.fail(f"value %{r} is not defined")
            self.same(combine.code[r].dtype, t)

    def store(self, store: Store, nest: Nest) -> None:
        """A store's buffer, value and combine."""
        self.where = store_text(store)
        buffer = self.buffer(store.buffer)
        for ref in (store.value, *address_refs(store.at)):
            if not 0 <= ref < len(nest.code):
                self.fail(f"value %{ref} is not defined")
        self.same(nest.code[store.value].dtype, buffer.dtype)
        if store.combine is not None and store.combine not in FOLDS:
            self.fail(f"a store cannot combine with {store.combine}")

    # ---- addresses

    def addresses(self, nest: Nest, scope: Scope) -> None:
        """All addresses are bound and in range."""
        code = Code(nest)
        ranges = value_ranges(nest.code, scope.dims) if self.complete(nest, scope) else {}
        inner = Scope({**scope.dims, **ranges}, scope.conditions, scope.equal)
        for r, instr in enumerate(nest.code):
            if isinstance(instr, Load):
                self.where = next(instruction(r, instr))
                self.address(instr.at, instr.buffer, nest, inner, code.deps[r])
        for store in nest.stores:
            self.where = store_text(store)
            self.address(store.at, store.buffer, nest, inner, code.store_dims(store))

    def complete(self, nest: Nest, scope: Scope) -> bool:
        """Whether all dims that positions read are bound (which was verified) and not empty."""
        return all(low <= high for low, high in scope.dims.values())

    def address(
        self, at: Address, name: str, nest: Nest, scope: Scope, deps: frozenset[str]
    ) -> None:
        """An address lies in its buffer wherever its guards and the bounds hold."""
        buffer = self.buffer(name)
        real = Scope({d: r for d, r in scope.dims.items() if not d.startswith("%")})
        for form in (at.form, *(g.form for g in at.guards)):
            self.bound(form, real)
        for ref in address_refs(at):
            if not nest.code[ref].dtype.is_integer:
                self.fail(f"the computed term %{ref} is no integer")
        if any(low > high for low, high in scope.dims.values()):
            return
        if any(scope.dims.get(f"%{r}", WIDE) == WIDE for r, _ in at.dynamic) and not at.guards:
            return
        conditions = conditions_of(at.guards)
        for bound in nest.bounds:
            if bound.dim in deps:
                position = Form.of(bound.dim)
                conditions += [position - low for low in bound.lo]
                conditions += [high - position - 1 for high in bound.hi]
        form = with_values(at.form, at.dynamic)
        if not scope.given(conditions).within(form, buffer.size) and not at.dynamic:
            self.fail(f"cannot prove that {form} lies in {name}[{buffer.size}]")

    # ---- schedules

    def schedule(self, schedule: Schedule, nest: Nest) -> None:
        """Pieces and loops are of the nest's dims, and together they cover each."""
        pieces = (*schedule.lanes, *schedule.tile, *schedule.unroll, *schedule.end_lanes)
        for piece in pieces:
            if piece.dim not in nest.extents or piece.count < 1:
                self.fail(f"there is no piece of {piece.count} of {piece.dim}")
        for name, lanes in (("lanes", schedule.lanes), ("end_lanes", schedule.end_lanes)):
            count = math.prod(p.count for p in lanes)
            if count & (count - 1):
                self.fail(f"{name} are {count}, no power of two")
        if len(set(schedule.loops)) != len(schedule.loops) or schedule.copies < 1:
            self.fail("the schedule has a loop twice or no accumulators")
        for d in schedule.loops:
            if d not in nest.extents:
                self.fail(f"the looped {d} is no dim of the nest")
        for d, extent in nest.dims:
            covered = math.prod(p.count for p in pieces if p.dim == d)
            if d not in schedule.loops and covered < extent:
                self.fail(f"the schedule covers {covered} of {extent} positions of {d}")
        carried = {i.dim for i in nest.code if isinstance(i, Carry)}
        for piece in (*schedule.lanes, *schedule.end_lanes):
            if piece.dim in carried:
                self.fail(f"lanes along {piece.dim}, along which a state is carried")
