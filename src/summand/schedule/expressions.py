"""Evaluate values of the tensor IR at a point of a nest, as straight-line loop IR code.

    value(%5, {x: x, k: 2*x + kx})   ->   0: load a[16*x + kx]; 1: load b[…]; 2: mul 0 1

Whatever is not stored is evaluated in place: maps become scalar code, a reindex changes the
coordinates at which its argument is evaluated, a reduction becomes a fold over dims of the nest.
Equal instructions are made once. 16-bit floats are widened when loaded and narrowed when stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from summand.dtypes import DType, accumulator, bool_, i32, i64
from summand.errors import InternalError
from summand.ir.index import Form, Quasi
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
    Reindex,
    Table,
    Var,
    identity_of,
)
from summand.loops.nodes import (
    Address,
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
    Position,
    Ref,
    Scalar,
)
from summand.rewrite.plan import Graph, Inner

ZERO = Form()


@dataclass(frozen=True, slots=True)
class Coord:
    """A position along one dim: a form over the nest's dims plus computed terms."""

    form: Form
    dynamic: tuple[tuple[Ref, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a stored value lives: element offset = base + Σ stride · position."""

    buffer: str
    dtype: DType
    strides: tuple[tuple[str, int], ...]
    base: Form = ZERO

    @staticmethod
    def dense(buffer: str, dtype: DType, dims: tuple[tuple[str, int], ...]) -> Storage:
        """Dense memory, outermost dim first."""
        strides: list[tuple[str, int]] = []
        step = 1
        for dim, size in reversed(dims):
            strides.append((dim, step))
            step *= max(size, 1)
        return Storage(buffer, dtype, tuple(reversed(strides)))


At = Mapping[str, Coord]
Key = tuple[Var, tuple[Coord, ...], tuple[Guard, ...], Scalar]


@dataclass(slots=True)
class Code:
    """The code of one nest, as it grows.

    `sizes` has the extent of every dim that forms may read (the nest's own and outer ones).
    `positions` binds the `over` dims of the recurrences around the nest. `carried` names those
    whose states travel in registers, with the nest's dim that runs their positions.
    """

    graph: Graph
    storage: Mapping[Var, Storage]
    sizes: dict[str, int]
    positions: dict[str, Coord] = field(default_factory=dict)
    carried: dict[Eqn, str] = field(default_factory=dict)
    earlier: Mapping[Var, Storage] = field(default_factory=dict)  # memory of a body's `reads`
    unrolled: frozenset[Var] = frozenset()
    computed: frozenset[Var] = frozenset()  # computed here although they have memory
    bind: Callable[[str, int], str] | None = None  # makes a nest dim for a reduced dim
    local: Callable[[str], str] = str  # the kernel's name of a buffer
    code: list[Instr] = field(default_factory=list)
    wanted: set[tuple[str, int]] = field(default_factory=set)  # dims to split, and by what
    _seen: dict[Instr, Ref] = field(default_factory=dict)
    _memo: dict[Key, Ref] = field(default_factory=dict)
    _parts: dict[tuple[object, ...], tuple[Ref, ...]] = field(default_factory=dict)

    # ---- instructions

    def emit(self, instr: Instr) -> Ref:
        """The position of an instruction; an equal one is not made twice."""
        ref = self._seen.get(instr)
        if ref is None:
            ref = len(self.code)
            self.code.append(instr)
            self._seen[instr] = ref
        return ref

    def const(self, value: Scalar, dtype: DType) -> Ref:
        """A scalar of the type in which `dtype` is computed."""
        wide = accumulator(dtype)
        if wide.is_float:
            return self.emit(Const(float(value), wide))
        return self.emit(Const(bool(value) if wide is bool_ else int(value), wide))

    def apply(self, fn: str, args: tuple[Ref, ...], dtype: DType) -> Ref:
        """A scalar op."""
        return self.emit(Apply(fn, args, dtype))

    def convert(self, ref: Ref, dtype: DType) -> Ref:
        """A value as another type."""
        return ref if self.dtype(ref) == dtype else self.apply("convert", (ref,), dtype)

    def dtype(self, ref: Ref) -> DType:
        """The type of a value."""
        return self.code[ref].dtype

    # ---- coordinates

    def place(self, form: Form, at: At) -> Coord:
        """The position that a form means where its dims are at `at`."""
        dim = form.as_dim()
        if dim is not None:
            return at.get(dim) or self.positions.get(dim) or Coord(form)
        total, dynamic = Form((), form.const), []
        for atom, c in form.terms:
            inner = self._atom(atom, at)
            total = total + inner.form * c
            dynamic += [(r, f * c) for r, f in inner.dynamic]
        return Coord(total, tuple(dynamic))

    def _atom(self, atom: str | Quasi, at: At) -> Coord:
        if isinstance(atom, str):
            return at.get(atom) or self.positions.get(atom) or Coord(Form.of(atom))
        inner = self.place(atom.form, at)
        if not inner.dynamic:
            form = inner.form // atom.by if atom.op == "//" else inner.form % atom.by
            return Coord(form.simplify(self.sizes))
        ref = self.integer(inner)
        fn = "floordiv" if atom.op == "//" else "mod"
        by = self.const(atom.by, self.dtype(ref))
        return Coord(ZERO, ((self.apply(fn, (ref, by), self.dtype(ref)), 1),))

    def linear(self, coord: Coord) -> Coord:
        """The same position with `//` and `%` computed as values, so that the form is affine."""
        if coord.form.is_affine:
            return coord
        affine, dynamic = Form((), coord.form.const), list(coord.dynamic)
        for atom, c in coord.form.terms:
            if isinstance(atom, str):
                affine = affine + Form(((atom, c),))
                continue
            self._want(atom)
            inner = self.integer(Coord(atom.form))
            dtype = self.dtype(inner)
            fn = "floordiv" if atom.op == "//" else "mod"
            dynamic.append((self.apply(fn, (inner, self.const(atom.by, dtype)), dtype), c))
        return Coord(affine, tuple(dynamic))

    def _want(self, atom: Quasi) -> None:
        """Note that splitting a dim would make this atom affine."""
        for term, c in atom.form.terms:
            if not isinstance(term, str):
                self._want(term)
            elif c == 1 and self.sizes.get(term, 1) % atom.by == 0:
                self.wanted.add((term, atom.by))

    def integer(self, coord: Coord) -> Ref:
        """A position as a value."""
        coord = self.linear(coord)
        lo, hi = self.range(coord.form)
        dtype = i32 if lo >= -(2**31) and hi < 2**31 else i64
        if any(self.dtype(r) is i64 for r, _ in coord.dynamic):
            dtype = i64
        total: Ref | None = None
        for ref, c in coord.dynamic:
            term = self.convert(ref, dtype)
            if c != 1:
                term = self.apply("mul", (term, self.const(c, dtype)), dtype)
            total = term if total is None else self.apply("add", (total, term), dtype)
        if total is None:
            return self.emit(Position(coord.form, dtype))
        if coord.form == ZERO:
            return total
        return self.apply("add", (self.emit(Position(coord.form, dtype)), total), dtype)

    def range(self, form: Form) -> tuple[int, int]:
        """Least and greatest value of a form in this nest."""
        return form.range(self.sizes)

    def address(self, storage: Storage, at: At, guards: tuple[Guard, ...] = ()) -> Address:
        """Where the element at `at` lies."""
        form, dynamic = storage.base, []
        for dim, stride in storage.strides:
            coord = self.linear(at.get(dim) or self.positions[dim])
            form = form + coord.form * stride
            dynamic += [(r, f * stride) for r, f in coord.dynamic if stride]
        return Address(form, tuple(dynamic), guards)

    def clamp(self, ref: Ref, size: int) -> Ref:
        """An integer value moved into 0 … size-1, as i32 or i64."""
        dtype = self.dtype(ref)
        if dtype.name == "u64":
            ref = self.apply("min", (ref, self.const(size - 1, dtype)), dtype)
            dtype = i64
        elif dtype.name == "u32":
            dtype = i64
        elif dtype.bits < 32:
            dtype = i32
        ref = self.convert(ref, dtype)
        if size - 1 < 2 ** (dtype.bits - 1):
            ref = self.apply("min", (ref, self.const(size - 1, dtype)), dtype)
        return self.apply("max", (ref, self.const(0, dtype)), dtype)

    def guard(self, coord: Coord, size: int) -> Guard | None:
        """The condition that a position is in 0 … size-1; None where it always is."""
        if not coord.dynamic:
            lo, hi = self.range(coord.form)
            if lo >= 0 and hi < size:
                return None
        coord = self.linear(coord)
        return Guard(coord.form, size, coord.dynamic)

    def condition(self, guards: tuple[Guard, ...]) -> Ref:
        """Whether all guards hold, as a value."""
        total: Ref | None = None
        for g in guards:
            pos = self.integer(Coord(g.form, g.dynamic))
            dtype = self.dtype(pos)
            low = self.apply("ge", (pos, self.const(0, dtype)), bool_)
            high = self.apply("lt", (pos, self.const(g.size, dtype)), bool_)
            both = self.apply("and", (low, high), bool_)
            total = both if total is None else self.apply("and", (total, both), bool_)
        return self.const(True, bool_) if total is None else total

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
        return (var, here, guards, fill)

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
                return self._map(found.op, var, at, guards)
            case Reindex():
                return self._reindex(found.op, _real(found.op.fill), var, at, guards, fill)
            case Iota():
                return self.convert(self.integer(at[found.op.dim]), var.type.dtype)
            case Constant():
                return self._constant(found.op, var)
            case Reduce():
                return self._reduce(found, found.op, var, at, guards)
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

    def _map(self, op: Map, var: Var, at: At, guards: tuple[Guard, ...]) -> Ref:
        args = tuple(self.value(a, at, guards) for a in _read_by(op))
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
                if found.recur in self.carried:
                    return self._carry(found, op, at)
                return self._read(found, op, at, guards)
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
        for dim, index in op.index:
            size = sizes[dim]
            coord, guard = self.indexed(index, size, op.mode, at, guards)
            point[dim] = coord
            if guard is not None:
                own.append(guard)
        if op.arg.type.count == 0:
            return self.const(own_fill if op.mode == "fill" else 0, var.type.dtype)
        if not own:
            return self.value(op.arg, point, guards, fill)
        every = (*guards, *(g for g in own if g not in guards))
        ref = self.value(op.arg, point, every, own_fill)
        if self._filled(ref, every, own_fill):
            return ref
        other = self.const(own_fill, var.type.dtype)
        return self.apply("where", (self.condition(tuple(own)), ref, other), self.dtype(ref))

    def indexed(
        self, index: Form | Var, size: int, mode: Mode, at: At, guards: tuple[Guard, ...]
    ) -> tuple[Coord, Guard | None]:
        """The place that an index means, and the condition under which it exists (mode "fill")."""
        if isinstance(index, Var):
            ref = self.value(index, at, guards)
            if mode == "fill":
                ref = self.convert(ref, i64 if self.dtype(ref).bits > 32 else i32)
                coord = Coord(ZERO, ((ref, 1),))
                return coord, Guard(ZERO, size, coord.dynamic)
            return Coord(ZERO, ((self.clamp(ref, max(size, 1)), 1),)), None
        coord = self.place(index, at)
        if mode == "trusted":
            return coord, None
        guard = self.guard(coord, size)
        if guard is None or mode == "fill":
            return coord, guard
        return Coord(ZERO, ((self.clamp(self.integer(coord), max(size, 1)), 1),)), None

    def _filled(self, ref: Ref, guards: tuple[Guard, ...], fill: Scalar) -> bool:
        """Whether a value is a load that gives `fill` by itself where a guard fails."""
        instr = self.code[ref]
        if isinstance(instr, Apply) and instr.fn == "convert":
            instr = self.code[instr.args[0]]
        return (
            isinstance(instr, Load) and instr.fill == fill and set(guards) <= set(instr.at.guards)
        )

    # ---- reductions

    def _reduce(self, eqn: Eqn, op: Reduce, var: Var, at: At, guards: tuple[Guard, ...]) -> Ref:
        sizes = op.args[0].type.sizes
        which = eqn.outs.index(var)
        dtypes = tuple(accumulator(a.type.dtype) for a in op.args)
        start = identity_of(op.monoid, tuple(a.type.dtype for a in op.args))
        if any(sizes[d] == 0 for d in op.dims):
            return self.const(_real(start[which]), dtypes[which])
        if var in self.unrolled:
            return self._unroll(op, at, guards)
        here = tuple(at[d] for d, _ in var.type.dims)
        parts = self._parts.get((eqn, here, guards))
        if parts is None:
            parts = self._fold(op, at, guards, dtypes)
            self._parts[(eqn, here, guards)] = parts
        return parts[which]

    def _fold(
        self, op: Reduce, at: At, guards: tuple[Guard, ...], dtypes: tuple[DType, ...]
    ) -> tuple[Ref, ...]:
        if self.bind is None:
            raise InternalError("lower: a reduction where no nest can run it")
        sizes = op.args[0].type.sizes
        dims = {d: self.bind(d, sizes[d]) for d in op.dims if sizes[d] > 1}
        point = {**at, **{d: Coord(ZERO) for d in op.dims}}
        point.update({d: self.coordinate(name) for d, name in dims.items()})
        args = tuple(self.value(a, point, guards) for a in op.args)
        if not dims:
            return args
        combine = combine_of(op.monoid, dtypes)
        over = tuple(n for name in dims.values() for n in self.pieces(name))
        fold = self.emit(Fold(combine, over, args, dtypes[0]))
        rest = (self.emit(Part(fold, k, t)) for k, t in enumerate(dtypes) if k)
        return (fold, *rest)

    def _unroll(self, op: Reduce, at: At, guards: tuple[Guard, ...]) -> Ref:
        sizes = op.args[0].type.sizes
        points: list[dict[str, Coord]] = [dict(at)]
        for d in op.dims:
            points = [{**p, d: Coord(Form.of(k))} for p in points for k in range(sizes[d])]
        total: Ref | None = None
        dtype = accumulator(op.args[0].type.dtype)
        for point in points:
            ref = self.value(op.args[0], point, guards)
            fn = SCALAR_OP[op.monoid.name]
            total = ref if total is None else self.apply(fn, (total, ref), dtype)
        if total is None:
            raise InternalError("lower: an unrolled reduction over nothing")
        return total

    # ---- splits of dims

    splits: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)

    def coordinate(self, name: str) -> Coord:
        """The position along a nest dim, which may have been split into several (outer first)."""
        total = ZERO
        step = 1
        for piece, extent in reversed(self.splits.get(name, ((name, self.sizes[name]),))):
            total = total + Form(((piece, step),))
            step *= extent
        return Coord(total)

    def pieces(self, name: str) -> tuple[str, ...]:
        """The dims that a nest dim was split into."""
        return tuple(p for p, _ in self.splits.get(name, ((name, 0),)))

    # ---- recurrences

    def _carried(self, eqn: Eqn, op: Recur, var: Var, at: At) -> Ref:
        """The new state at this position, of a recurrence that this nest runs in registers."""
        if eqn not in self.carried:
            raise InternalError(f"lower: the recurrence {var} is not stored")
        which = eqn.outs.index(var)
        if any(at[d] != self.positions[d] for d in op.over):
            raise InternalError(f"lower: {var} is read away from its position")
        return self.value(op.body.results[which], {d: c for d, c in at.items() if d not in op.over})

    def _carry(self, found: Inner, op: Recur, at: At) -> Ref:
        """An earlier state: a register whose next value is this position's state."""
        read = op.reads[found.number]
        dim = self.carried[found.recur]
        init = op.inits[found.number]
        first = {o: Coord(Form.of(0 if f else n - 1)) for o, f, n in _over(op)}
        start = self.value(init, {**at, **first})
        ref = len(self.code)
        dtype = accumulator(init.type.dtype)
        self.code.append(Carry(dim, start, ref, dtype))
        state = op.body.results[read.state]
        here = tuple(at[d] for d, _ in op.body.params[found.number].type.dims)
        self._memo[(op.body.params[found.number], here, (), 0)] = ref
        self.code[ref] = Carry(dim, start, self.value(state, at), dtype)
        return ref

    def _read(self, found: Inner, op: Recur, at: At, guards: tuple[Guard, ...]) -> Ref:
        """An earlier state from memory, or `init` where there is none."""
        read, init = op.reads[found.number], op.inits[found.number]
        param, own = op.body.params[found.number], []
        for (dim, _, size), shift in zip(_over(op), read.shift, strict=True):
            here = self.positions[dim]
            guard = self.guard(Coord(here.form - shift, here.dynamic), size)
            if guard is not None:
                own.append(guard)
        earlier = self._load(param, self.earlier[param], at, (*guards, *own), 0)
        if not own:
            return earlier
        start = self.value(init, at, guards)
        return self.apply("where", (self.condition(tuple(own)), earlier, start), self.dtype(start))


def _over(op: Recur) -> list[tuple[str, bool, int]]:
    return list(zip(op.over, op.forward, op.sizes, strict=True))


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
    code = Code(Graph.of(program), {}, {})
    env: dict[Key, Ref] = {}
    for k, (param, dtype) in enumerate(zip(program.params, dtypes, strict=True)):
        code.code.append(Arg(k, dtype))
        env[(param, (), (), 0)] = k
    code._memo.update(env)
    results = tuple(code.value(r, {}) for r in program.results)
    return tuple(code.code), results


def shifted(storage: Storage, form: Form) -> Storage:
    """The same memory seen from another origin."""
    return replace(storage, base=storage.base + form)
