"""Evaluate values of the tensor IR at a point of a nest, as straight-line loop IR code.

    value(%5, {x: x, k: 2*x + kx})   ->   0: load a[16*x + kx]; 1: load b[…]; 2: mul 0 1

Whatever is not stored is evaluated in place: maps become scalar code, a reindex changes the
coordinates at which its argument is evaluated, a reduction becomes a fold over dims of the nest.
Equal instructions are made once. 16-bit floats are widened when loaded and narrowed when stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import assert_never

from summand.dtypes import DType, accumulator, bool_, i32, i64
from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import (
    SCALAR_OP,
    Constant,
    Eqn,
    Iota,
    Map,
    Mode,
    Monoid,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Table,
    Var,
    identity_of,
)
from summand.loops.nodes import (
    Apply,
    Arg,
    Carry,
    Combine,
    Const,
    Fold,
    Guard,
    Instr,
    Load,
    Part,
    Ref,
    Scalar,
)
from summand.rewrite.plan.nodes import Graph, Inner
from summand.rewrite.recur.partial_folds import block_of
from summand.schedule.coordinates import ZERO, At, Coord, Coordinates, Storage

FILLED = ("where", "add", "mul", "convert")  # maps of what is zero, or what it is filled with
Key = tuple[Var, tuple[Coord, ...], tuple[Guard, ...], Scalar, frozenset[Guard]]


@dataclass(slots=True)
class Code(Coordinates):
    """The code of one nest, and the values that it evaluates.

    `carried` names the recurrences whose states travel in registers, with the nest's dim that runs
    their positions. `places` has positions along dims of the nest that are not their own count, and
    `blocks` where the task's blocks of dims begin that are folded in parts. `pieces_of` restricts
    dims of reductions to a tile, and `windows` where values are there: (first position, number).
    """

    graph: Graph = field(kw_only=True)
    storage: Mapping[Var, Storage] = field(kw_only=True)
    carried: dict[Eqn, str] = field(default_factory=dict)
    earlier: Mapping[Var, Storage] = field(default_factory=dict)  # memory of a body's `reads`
    begun: Set[Var] = frozenset()  # of these, the ones that find their initial state there, too
    computed: frozenset[Var] = frozenset()  # computed here although they have memory
    bind: Callable[[str, int], str] | None = None  # makes a nest dim for a reduced dim
    local: Callable[[str], str] = str  # the kernel's name of a buffer
    places: dict[str, Coord] = field(default_factory=dict)
    blocks: Mapping[str, Form] = field(default_factory=dict)
    pieces_of: dict[Eqn, dict[str, tuple[Form, int]]] = field(default_factory=dict)
    windows: dict[Var, dict[str, tuple[Form, int]]] = field(default_factory=dict)
    _idle: frozenset[Guard] = frozenset()  # where these fail, nobody reads what is evaluated
    _fills: dict[Var, bool] = field(default_factory=dict)
    _memo: dict[Key, Ref] = field(default_factory=dict)
    _parts: dict[tuple[object, ...], tuple[Ref, ...]] = field(default_factory=dict)

    # ---- values

    def value(self, var: Var, at: At, guards: tuple[Guard, ...] = (), fill: Scalar = 0) -> Ref:
        """A value at a point. Where a guard fails nothing is read: the result is `fill` if it is
        an element of memory, else anything."""
        key = self._key(var, at, guards, fill)
        ref = self._memo.get(key)
        if ref is None:
            self._arguments_first(var, at, guards)
            point = {d: c for (d, _), c in zip(var.type.dims, key[1], strict=True)}
            ref = self._value(var, point, guards, fill)
            self._memo[key] = ref
        return ref

    def _key(self, var: Var, at: At, guards: tuple[Guard, ...], fill: Scalar) -> Key:
        here = tuple(at[d] if d in at else self.positions[d] for d, _ in var.type.dims)
        return (var, here, guards, fill, self._idle.intersection(guards))

    def _arguments_first(self, var: Var, at: At, guards: tuple[Guard, ...]) -> None:
        """Make what a long chain of maps reads, the deepest first: recursion would go as deep."""
        stack = [(var, False)]
        seen: set[Var] = set()
        while stack:
            current, ready = stack.pop()
            op = self._inlined_map(current)
            if op is None or (current in seen and not ready):
                continue
            if ready:
                if current is not var:
                    self.value(current, at, guards)
                continue
            seen.add(current)
            stack.append((current, True))
            for argument in reversed(_read_by(op)):
                if self._key(argument, at, guards, 0) not in self._memo:
                    stack.append((argument, False))

    def _inlined_map(self, var: Var) -> Map | None:
        """The op of a value that is a map and is computed where it is read."""
        if var in self.storage and var not in self.computed:
            return None
        found = self.graph.definitions.get(var)
        return found.op if isinstance(found, Eqn) and isinstance(found.op, Map) else None

    def _value(self, var: Var, at: At, guards: tuple[Guard, ...], fill: Scalar) -> Ref:
        stored = self.storage.get(var)
        if stored is not None and var not in self.computed:
            return self._load(var, stored, at, guards, fill)
        return self.define(var, at, guards, fill)

    def define(self, var: Var, at: At, guards: tuple[Guard, ...] = (), fill: Scalar = 0) -> Ref:
        """A value computed by its equation, even where it has memory."""
        found = self.graph.definitions.get(var)
        if isinstance(found, Inner):
            return self._inner(found, at, guards, fill)
        if found is None:
            raise InternalError(f"lower: {var} is neither stored nor defined")
        match found.op:
            case Map():
                return self._map(found.op, var, at, guards, fill)
            case Reindex():
                return self._reindex(found.op, _real(found.op.fill), var, at, guards, fill)
            case Iota():
                return self.convert(self.integer(at[found.op.dim]), var.type.dtype)
            case Constant():
                return self._constant(found.op, var)
            case Reduce():
                return self._reduce(found, found.op, var, at, guards)
            case ReduceAt() if block_of(found.op) is not None:
                return self._reduce_block(found.op, var, at)
            case Recur():
                return self._carried(found, found.op, var, at)
            case _:
                raise InternalError(f"lower: {var} = {type(found.op).__name__} is not stored")

    def load_from(self, stored: Storage, at: At) -> Ref:
        """An element of memory."""
        ref = self.emit(Load(self.local(stored.buffer), self.address(stored, at), stored.dtype))
        return self.convert(ref, accumulator(stored.dtype))

    def _load(
        self, var: Var, stored: Storage, at: At, guards: tuple[Guard, ...], fill: Scalar
    ) -> Ref:
        if var.type.count == 0:
            return self.const(fill, stored.dtype)
        value: Scalar = float(fill) if stored.dtype.is_float else fill
        guards = tuple(g for g in guards if g not in self._idle or _moves(var, at, g))
        for dim, (start, size) in self.windows.get(var, {}).items():
            coord = self.linear(at[dim])
            guards = (*guards, Guard(coord.form - start, size, coord.dynamic))
        ref = self.emit(
            Load(self.local(stored.buffer), self.address(stored, at, guards), stored.dtype, value)
        )
        return self.convert(ref, accumulator(stored.dtype))

    def _constant(self, op: Constant, var: Var) -> Ref:
        if isinstance(op.value, Table):
            raise InternalError(f"lower: the table {var} is not stored")
        if isinstance(op.value, complex):
            raise InternalError(f"lower: {var} is complex")
        return self.const(op.value, var.type.dtype)

    def _map(self, op: Map, var: Var, at: At, guards: tuple[Guard, ...], fill: Scalar) -> Ref:
        if op.fn == "convert" and op.args[0].type.dtype == var.type.dtype:
            return self.value(op.args[0], at, guards, fill)
        arms = op.args[1:] if op.fn == "where" else ()
        args = tuple(self.value(a, at, guards, fill if a in arms else 0) for a in _read_by(op))
        if op.fn == "where" and len(args) == 1:
            return args[0]
        dtype = var.type.dtype
        if op.fn in ("stop_gradient", "barrier"):
            return args[0]
        if op.fn == "convert":
            return self.convert(self.convert(args[0], dtype), accumulator(dtype))
        return self.apply(op.fn, args, accumulator(dtype))

    def _inner(self, found: Inner, at: At, guards: tuple[Guard, ...], fill: Scalar) -> Ref:
        op = found.recur.op
        if not isinstance(op, Recur):
            raise InternalError("lower: a body without its recurrence")
        match found.kind:
            case "position":
                return self.convert(self.integer(self.positions[op.over[found.number]]), i32)
            case "captured":
                return self.value(op.captured[found.number], at, guards, fill)
            case "read":
                if self._travels(found, op):
                    return self._carry(found, op, at)
                return self._read(found, op, at, guards, fill)
            case _:
                assert_never(found.kind)

    # ---- reindex

    def _reindex(
        self,
        op: Reindex,
        own_fill: Scalar,
        var: Var,
        at: At,
        guards: tuple[Guard, ...],
        fill: Scalar,
    ) -> Ref:
        sizes = op.arg.type.sizes
        point = {d: c for d, c in at.items() if d in sizes}
        own: list[Guard] = []
        before, self._idle = self._idle, frozenset()  # a place must be one
        for dim, index in op.index:
            size = sizes[dim]
            coord, guard = self.indexed(index, size, op.mode, at, guards)
            point[dim] = coord
            if guard is not None:
                own.append(guard)
        self._idle = before
        if op.arg.type.count == 0:
            return self.const(own_fill if op.mode == "fill" else 0, var.type.dtype)
        if not own:
            return self.value(op.arg, point, guards, fill)
        every = (*guards, *(g for g in own if g not in guards))
        if not self._may_fill(op.arg):
            self._idle = before.union(own)
        ref = self.value(op.arg, point, every, own_fill)
        self._idle = before
        if self._filled(ref, every, own_fill):
            return ref
        other = self.const(own_fill, var.type.dtype)
        return self.apply("where", (self.condition(tuple(own)), ref, other), self.dtype(ref))

    def indexed(
        self, index: Form | Var, size: int, mode: Mode, at: At, guards: tuple[Guard, ...]
    ) -> tuple[Coord, Guard | None]:
        """The place that an index means, and the condition under which it exists (mode "fill")."""
        if isinstance(index, Var):
            if mode == "fill":
                coord = self._computed(index, at, guards)
                return coord, Guard(coord.form, size, coord.dynamic)
            ref = self.value(index, at, guards)
            return Coord(ZERO, ((self.clamp(ref, max(size, 1)), 1),)), None
        coord = self.place(index, at)
        if mode == "trusted":
            return coord, None
        guard = self.guard(coord, size)
        if guard is None or mode == "fill":
            return coord, guard
        return Coord(ZERO, ((self.clamp(self.integer(coord), max(size, 1)), 1),)), None

    def _computed(self, index: Var, at: At, guards: tuple[Guard, ...]) -> Coord:
        """A computed place; positions that are added to it stay a form of the nest's dims."""
        eqn = self.graph.eqn(index)
        if eqn is not None and isinstance(eqn.op, Iota):
            return self.linear(at[eqn.op.dim])
        if eqn is not None and isinstance(eqn.op, Constant) and type(eqn.op.value) is int:
            return Coord(Form((), eqn.op.value))
        op = self._inlined_map(index)
        if op is not None and op.fn in ("add", "sub") and index.type.dtype.bits >= 32:
            a, b = (self._computed(arg, at, guards) for arg in op.args)
            sign = 1 if op.fn == "add" else -1
            return Coord(
                a.form + b.form * sign, a.dynamic + tuple((r, f * sign) for r, f in b.dynamic)
            )
        ref = self.value(index, at, guards)
        return Coord(ZERO, ((self.convert(ref, i64 if self.dtype(ref).bits > 32 else i32), 1),))

    def _filled(self, ref: Ref, guards: tuple[Guard, ...], fill: Scalar) -> bool:
        """Whether a value is a load that gives `fill` by itself where a guard fails."""
        instr = self.code[ref]
        if isinstance(instr, Apply) and instr.fn == "convert":
            instr = self.code[instr.args[0]]
        if isinstance(instr, Apply) and instr.fn == "where":
            return all(self._filled(arm, guards, fill) for arm in instr.args[1:])
        if isinstance(instr, Apply) and instr.fn in ("add", "mul") and _same(fill, 0.0):
            return all(self._filled(arg, guards, fill) for arg in instr.args)
        if isinstance(instr, Const):
            return _same(instr.value, fill)
        if not isinstance(instr, Load) or not _same(instr.fill, fill):
            return False
        return set(guards) - self._idle <= set(instr.at.guards)

    def _may_fill(self, var: Var) -> bool:
        """Whether a value may give `fill` by itself, where its loads do."""
        known = self._fills.get(var)
        if known is None:
            op = self._inlined_map(var)
            if op is None:
                eqn = self.graph.eqn(var)
                folded = eqn is not None and isinstance(eqn.op, Reduce)
                known = not folded or (var in self.storage and var not in self.computed)
            else:
                known = op.fn in FILLED and all(self._may_fill(a) for a in _read_by(op))
            self._fills[var] = known
        return known

    # ---- reductions

    def _reduce(self, eqn: Eqn, op: Reduce, var: Var, at: At, guards: tuple[Guard, ...]) -> Ref:
        sizes = op.args[0].type.sizes
        which = eqn.outs.index(var)
        dtypes = tuple(accumulator(a.type.dtype) for a in op.args)
        start = identity_of(op.monoid, tuple(a.type.dtype for a in op.args))
        if any(sizes[d] == 0 for d in op.dims):
            return self.const(_real(start[which]), dtypes[which])
        here = tuple(at[d] for d, _ in var.type.dims)
        key = (eqn, here, guards, self._idle.intersection(guards))
        parts = self._parts.get(key)
        if parts is None:
            parts = self._fold(op, at, guards, dtypes, self.pieces_of.get(eqn, {}))
            self._parts[key] = parts
        return parts[which]

    def _fold(
        self,
        op: Reduce,
        at: At,
        guards: tuple[Guard, ...],
        dtypes: tuple[DType, ...],
        pieces: Mapping[str, tuple[Form, int]],
    ) -> tuple[Ref, ...]:
        if self.bind is None:
            raise InternalError("lower: a reduction where no nest can run it")
        sizes = {**op.args[0].type.sizes, **{d: n for d, (_, n) in pieces.items()}}
        dims = {d: self.bind(d, sizes[d]) for d in op.dims if sizes[d] > 1}
        point = {**at, **{d: Coord(ZERO) for d in op.dims}}
        point.update({d: self._along(name) for d, name in dims.items()})
        for d, (start, _) in pieces.items():
            point[d] = Coord(point[d].form + start)
        args = tuple(self.value(a, point, guards) for a in op.args)
        if not dims:
            return args
        combine = combine_of(op.monoid, dtypes)
        over = tuple(n for name in dims.values() for n in self.pieces(name))
        fold = self.emit(Fold(combine, over, args, dtypes[0]))
        rest = (self.emit(Part(fold, k, t)) for k, t in enumerate(dtypes) if k)
        return (fold, *rest)

    def _along(self, name: str) -> Coord:
        """The position along a dim of the nest."""
        return self.places.get(name) or self.coordinate(name)

    def _reduce_block(self, op: ReduceAt, var: Var, at: At) -> Ref:
        """A fold of the block that is the task's. Where the last tile was moved back, what belongs
        to the block before is left out."""
        block = block_of(op)
        if block is None or self.bind is None:
            raise InternalError(f"lower: {var} is folded in no blocks")
        (arg,) = op.args
        sizes = arg.type.sizes
        dims = {d: self.bind(d, sizes[d]) for d in op.dims if sizes[d] > 1}
        own = {d: at.get(d) or self.positions[d] for d in arg.type.names if d not in op.dims}
        point = {**own, **{d: Coord(ZERO) for d in op.dims}}
        point.update({d: self._along(name) for d, name in dims.items()})
        ref = self.value(arg, point)
        dtype = accumulator(arg.type.dtype)
        combine = combine_of(op.monoid, (dtype,))
        if sizes[block.dim] % block.size:
            first = point[block.dim].form - self.blocks[block.dim]
            inside = self.condition((Guard(first, block.size),))
            start = self.const(combine.identity[0], dtype)
            ref = self.apply("where", (inside, ref, start), dtype)
        over = tuple(n for name in dims.values() for n in self.pieces(name))
        return self.emit(Fold(combine, over, (ref,), dtype))

    # ---- recurrences

    def move(self, positions: Mapping[str, Coord]) -> None:
        """Go on at other positions of the recurrences around the nest."""
        self.positions.update(positions)
        self._memo.clear()
        self._parts.clear()

    def know(self, var: Var, at: At, guards: tuple[Guard, ...], ref: Ref) -> None:
        """Let a value at a point be what is there already."""
        self._memo[self._key(var, at, guards, 0)] = ref

    def add_carry(self, carry: Carry) -> Ref:
        """A state of its own, even where an equal one is there."""
        self.code.append(carry)
        return len(self.code) - 1

    def _carried(self, eqn: Eqn, op: Recur, var: Var, at: At) -> Ref:
        """The new state at this position, of a recurrence that this nest runs in registers."""
        if eqn not in self.carried:
            raise InternalError(f"lower: the recurrence {var} is not stored")
        which = eqn.outs.index(var)
        if any(at[d] != self.positions[d] for d in op.over):
            raise InternalError(f"lower: {var} is read away from its position")
        return self.value(op.body.results[which], {d: c for d, c in at.items() if d not in op.over})

    def _travels(self, found: Inner, op: Recur) -> bool:
        """Whether an earlier state is in a register: it lies back along the own dim alone."""
        dim = self.carried.get(found.recur)
        shift = zip(op.over, op.reads[found.number].shift, strict=True)
        return dim is not None and not any(s for d, s in shift if d != dim)

    def _carry(self, found: Inner, op: Recur, at: At) -> Ref:
        """An earlier state: a register whose next value is this position's state."""
        read = op.reads[found.number]
        dim = self.carried[found.recur]
        init = op.inits[found.number]
        first = {o: Coord(Form.of(0 if f else n - 1)) for o, f, n in _over(op) if o == dim}
        start = self.value(init, {**at, **first})
        ref = len(self.code)
        dtype = accumulator(init.type.dtype)
        self.code.append(Carry(dim, start, ref, dtype))
        state = op.body.results[read.state]
        self.know(op.body.params[found.number], at, (), ref)
        self.code[ref] = Carry(dim, start, self.value(state, at), dtype)
        return ref

    def _read(
        self, found: Inner, op: Recur, at: At, guards: tuple[Guard, ...], fill: Scalar
    ) -> Ref:
        """An earlier state from memory, or `init` where there is none."""
        read, init = op.reads[found.number], op.inits[found.number]
        param, own = op.body.params[found.number], []
        if param in self.begun:
            return self._load(param, self.earlier[param], at, guards, fill)
        for (dim, _, size), shift in zip(_over(op), read.shift, strict=True):
            here = self.positions[dim]
            guard = self.guard(Coord(here.form - shift, here.dynamic), size)
            if guard is not None:
                own.append(guard)
        earlier = self._load(param, self.earlier[param], at, (*guards, *own), fill)
        if not own:
            return earlier
        start = self.value(init, at, guards, fill)
        return self.apply("where", (self.condition(tuple(own)), earlier, start), self.dtype(start))


def _same(a: Scalar, b: Scalar) -> bool:
    """Whether two fills are one value, and of one sign."""
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def _over(op: Recur) -> list[tuple[str, bool, int]]:
    return list(zip(op.over, op.forward, op.sizes, strict=True))


def _moves(var: Var, at: At, guard: Guard) -> bool:
    """Whether what a guard asks about may move the place of a value's element."""
    here = [at[d] for d in var.type.names]
    return any(c.dynamic or not c.form.dims.isdisjoint(guard.form.dims) for c in here)


def _read_by(op: Map) -> tuple[Var, ...]:
    """The arguments that a map reads: of a choice between a value and itself, only that."""
    return op.args[1:2] if op.fn == "where" and op.args[1] == op.args[2] else op.args


def _real(value: bool | int | float | complex) -> Scalar:
    return value.real if isinstance(value, complex) else value


# ---- combines


def combine_of(monoid: Monoid, dtypes: tuple[DType, ...]) -> Combine:
    """How a fold combines in these types."""
    start = tuple(_typed(_real(s), t) for s, t in zip(identity_of(monoid, dtypes), dtypes))
    if monoid.combine is None:
        return Combine(SCALAR_OP[monoid.name], start)
    code, results = scalar_code(monoid.combine, dtypes * 2)
    return Combine(None, start, code, results, monoid.commutative)


def _typed(value: Scalar, dtype: DType) -> Scalar:
    if dtype.is_float:
        return float(value)
    return bool(value) if dtype is bool_ else int(value)


def scalar_code(
    program: Program, dtypes: tuple[DType, ...]
) -> tuple[tuple[Instr, ...], tuple[Ref, ...]]:
    """A program of scalars as code with leading `Arg`s."""
    code = Code({}, graph=Graph.of(program), storage={})
    for k, (param, dtype) in enumerate(zip(program.params, dtypes, strict=True)):
        code.code.append(Arg(k, dtype))
        code.know(param, {}, (), k)
    results = tuple(code.value(r, {}) for r in program.results)
    return tuple(code.code), results
