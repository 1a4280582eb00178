"""Random equations of complex numbers."""

from __future__ import annotations

from summand import dtypes as dt
from tests.growth.elementwise import Growth

UNARY = ("neg", "conj", "exp", "sin", "tanh", "sqrt")


class Complex(Growth):
    """Complex numbers are made from floats, computed with, and taken apart."""

    def complex_pair(self):
        a, c = self.value(kind=("float",)), self.value(kind=("float",))
        if a is None or not self.fits(a, c):
            return
        dtype = dt.f64 if dt.f64 in (a.dtype, c.dtype) else dt.f32
        b = self.build
        parts = [b.map("tanh", b.convert(v.var, dtype)) for v in (a, c)]
        self.add(b.map("complex", *parts), False)

    def complex_unary(self):
        v = self.value(kind=("complex",))
        if v is None:
            return
        b, x = self.build, v.var
        fn = self.pick(UNARY)
        if fn == "sqrt":  # away from its branch cut
            square = b.map("mul", x, b.map("conj", x))
            x = b.map("add", square, b.constant(0.5 + 0.1j, v.dtype))
        elif fn != "neg":
            size = b.map("add", b.map("abs", x), b.constant(1.0, dt.real_part(v.dtype)))
            x = b.map("div", x, b.convert(size, v.dtype))
        self.add(b.map(fn, x), False)

    def complex_binary(self):
        a, c = self.value(kind=("complex",)), self.value(kind=("complex",))
        if a is None or not self.fits(a, c):
            return
        dtype = dt.promote(a.dtype, c.dtype)
        left, right = self.same(a, dtype), self.same(c, dtype)
        b = self.build
        fn = self.pick(("add", "sub", "mul", "div"))
        if fn == "div":
            right = b.map("mul", right, b.map("conj", right))
            right = b.map("add", right, b.constant(0.5 + 0.25j, dtype))
        self.add(b.map(fn, left, right), False)

    def complex_part(self):
        v = self.value(kind=("complex",))
        if v is not None:
            self.add(self.build.map(self.pick(("real", "imag", "abs")), v.var), False)
