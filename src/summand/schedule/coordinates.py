"""Coordinates and instructions of a nest under construction: where values are read, and the code.

    x: 2*x + kx   ->   address form 16*x·2 + 16*kx;   x: idx   ->   dynamic term %3 · 16
    (x + 1) // 2  ->   position x + 1; floordiv; dynamic term

A coordinate is a form over the nest's dims plus computed terms. `//` and `%` that no split of a dim
makes affine are computed; the nest is told which splits would help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from summand.dtypes import DType, accumulator, bool_, i32, i64
from summand.ir.index import Form, Quasi
from summand.loops.nodes import Address, Apply, Const, Guard, Instr, Position, Ref, Scalar

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


def shifted(storage: Storage, form: Form) -> Storage:
    """The same memory seen from another origin."""
    return replace(storage, base=storage.base + form)


At = Mapping[str, Coord]


@dataclass(slots=True)
class Coordinates:
    """The code of one nest, as it grows, and how positions become addresses.

    `sizes` has the extent of every dim that forms may read (the nest's own and outer ones).
    `positions` binds the `over` dims of the recurrences around the nest. `splits` names the pieces
    of nest dims that were split, outer first.
    """

    sizes: dict[str, int]
    positions: dict[str, Coord] = field(default_factory=dict)
    splits: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    wanted: set[tuple[str, int]] = field(default_factory=set)  # dims to split, and by what
    code: list[Instr] = field(default_factory=list)
    _seen: dict[Instr, Ref] = field(default_factory=dict)

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

    # ---- splits of dims

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
