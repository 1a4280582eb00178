"""Random programs, grown equation by equation: the state of growth and elementwise equations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import Type, Var

SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17)
NAMES = ("i", "j", "k", "l")
FLOATS = (dt.f32, dt.f32, dt.f32, dt.f64, dt.bf16, dt.f16)
INTEGERS = (dt.i32, dt.i32, dt.i64, dt.u8, dt.u32, dt.i8)
SMOOTH = ("neg", "abs", "tanh", "sin", "cos", "exp", "sqrt", "log", "erf", "square", "atan")
NUMBERS = ("float", "int", "uint")
EXACT_UNARY = ("floor", "ceil", "round", "trunc", "sign")


@dataclass(frozen=True)
class Value:
    """A variable; `exact`: no rounding happened on the way to it, so it may be compared."""

    var: Var
    exact: bool

    @property
    def dtype(self):
        return self.var.type.dtype

    @property
    def sizes(self):
        return self.var.type.sizes


class Growth:
    """A program that grows by random equations: choices that all kinds of equations share."""

    def __init__(self, draw, zero_sizes, sizes=SIZES):
        self.draw = draw
        self.build = Builder()
        self.values: list[Value] = []
        sizes = (*sizes, 0) if zero_sizes else sizes
        self.sizes = {d: draw(st.sampled_from(sizes)) for d in NAMES}
        self.fresh = 0

    # ---- choices

    def pick(self, options):
        return self.draw(st.sampled_from(list(options)))

    def integer(self, lo, hi):
        return self.draw(st.integers(lo, hi))

    def value(self, *, kind=None, exact=False, dims=False, small=4096):
        """A value so far (the latest first, so that shrinking keeps chains), or None."""
        found = [
            v
            for v in reversed(self.values)
            if (kind is None or v.dtype.kind in kind)
            and (v.exact or not exact)
            and (v.sizes or not dims)
            and v.var.type.count <= small
        ]
        return self.pick(found) if found else None

    def dim(self):
        """A new dim's name."""
        self.fresh += 1
        return f"{self.pick('xyz')}_{self.fresh}"

    def add(self, var, exact):
        self.values.append(Value(var, exact))
        return self.values[-1]

    def parameter(self):
        dtype = self.pick((*FLOATS, *INTEGERS, dt.bool_))
        names = self.draw(st.sets(st.sampled_from(NAMES), max_size=3))
        sizes = {d: self.sizes[d] for d in sorted(names)}
        return self.add(self.build.param(Type.of(dtype, sizes)), True)

    def fits(self, *values):
        """True where dims of one name have one size, and the union is not too large."""
        sizes = {}
        for v in values:
            for d, n in v.sizes.items():
                if sizes.setdefault(d, n) != n:
                    return False
        return int(np.prod(list(sizes.values()), dtype=np.int64)) <= 20000

    def same(self, value, dtype):
        """The value as another type (floats to integers only via exact values)."""
        return self.build.convert(value.var, dtype)

    # ---- elementwise

    def unary(self):
        v = self.value(kind=("float",))
        if v is None:
            return
        b, x = self.build, v.var
        fn = self.pick((*SMOOTH, *EXACT_UNARY) if v.exact else SMOOTH)
        if fn in ("sqrt", "log"):
            out = b.map(fn, b.map("add", b.map("abs", x), b.constant(0.5, v.dtype)))
        elif fn == "exp":
            out = b.map("exp", b.map("min", x, b.constant(2.0, v.dtype)))
        elif fn == "square":
            out = b.map("mul", x, x)
        else:
            out = b.map(fn, x)
        self.add(out, v.exact and fn in ("neg", "abs", *EXACT_UNARY))

    def binary(self):
        a, c = self.value(kind=NUMBERS), self.value(kind=NUMBERS)
        if a is None or not self.fits(a, c):
            return
        dtype = dt.promote(a.dtype, c.dtype)
        left, right = self.same(a, dtype), self.same(c, dtype)
        b = self.build
        fn = self.pick(("add", "sub", "mul", "max", "min", "div"))
        exact = a.exact and c.exact and (fn in ("max", "min") or dtype.is_integer)
        if fn == "div" and dtype.is_integer:
            fn = self.pick(("floordiv", "mod"))
            right = b.constant(self.integer(1, 5), dtype)
        elif fn == "div":
            right = b.map("add", b.map("abs", right), b.constant(0.5, dtype))
        self.add(b.map(fn, left, right), exact)

    def bits(self):
        a = self.value(kind=("int", "uint"))
        if a is None:
            return
        b = self.build
        fn = self.pick(("and", "or", "xor", "shl", "shr"))
        self.add(b.map(fn, a.var, b.constant(self.integer(0, 7), a.dtype)), True)

    def select(self):
        a, c, p = self.value(), self.value(), self.value(exact=True)
        if a is None or p is None or not self.fits(a, c, p):
            return
        dtype = dt.promote(a.dtype, c.dtype)
        left, right = self.same(a, dtype), self.same(c, dtype)
        pred = self.predicate(p)
        self.add(self.build.map("where", pred, left, right), a.exact and c.exact)

    def predicate(self, p):
        b = self.build
        if p.dtype is dt.bool_:
            return p.var
        fn = self.pick(("lt", "le", "gt", "ge", "eq", "ne"))
        if p.sizes and self.draw(st.booleans()):
            d = self.pick(p.sizes)
            at = b.iota(d, p.sizes[d])
            return b.map(fn, at, b.constant(self.integer(0, 4), dt.i32))
        return b.map(fn, p.var, b.constant(self.integer(0, 3), p.dtype))

    def position(self):
        d = self.pick(NAMES)
        b = self.build
        at = b.iota(d, self.sizes[d])
        at = b.map("mul", at, b.constant(self.integer(-2, 3), dt.i32))
        self.add(b.map("add", at, b.constant(self.integer(-3, 3), dt.i32)), True)

    def conversion(self):
        v = self.value()
        if v is None:
            return
        options = (*FLOATS, *INTEGERS, dt.bool_) if v.exact else FLOATS
        if not v.exact and not v.dtype.is_float:
            return
        self.add(self.build.convert(v.var, self.pick(options)), v.exact)
