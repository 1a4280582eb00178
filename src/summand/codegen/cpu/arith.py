"""Arithmetic on whole registers, for algorithms written by hand: those of `vmath`, division.

    a = Arith(fn, f32, 16)
    y = a.fma(x, x, a.c(1.0))       # %v1 = call <16 x float> @llvm.fmuladd.v16f32(…)

No instruction here has fast-math flags, so what an algorithm says is what runs. `fma` is fused
where the processor can, and nothing relies on it, except where a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.codegen.cpu.text import Function, Value, constant, register_type, vector
from summand.dtypes import DType, f32, f64


class Arith:
    """Floats of one width (f32 or f64) with `lanes` lanes, and the integers of the same width."""

    def __init__(self, fn: Function, dtype: DType, lanes: int) -> None:
        self.fn = fn
        self.dtype = dtype
        self.lanes = lanes
        self.bits = 64 if dtype is f64 else 32
        self.type = register_type(f64 if dtype is f64 else f32, lanes)
        self.int = vector(f"i{self.bits}", lanes)
        self.mask = vector("i1", lanes)
        self.fused = bool(fn.unit.features & {"fma", "neon", "fp-armv8"})

    # ---- constants

    def c(self, value: float) -> Value:
        """A float constant."""
        return constant(value, self.type, self.dtype)

    def k(self, value: int) -> Value:
        """An integer constant."""
        return constant(value, self.int)

    # ---- floats

    def _binary(self, op: str, a: Value, b: Value) -> Value:
        return self.fn.pure(f"{op} {a.type} {a}, {b}", a.type, a.dtype)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._binary("fadd", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self._binary("fsub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self._binary("fmul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self._binary("fdiv", a, b)

    def neg(self, a: Value) -> Value:
        """-a."""
        return self.fn.pure(f"fneg {a.type} {a}", a.type, a.dtype)

    def call(self, name: str, *args: Value) -> Value:
        """`llvm.NAME` on floats: fabs, sqrt, floor, …"""
        value = self.fn.intrinsic(name, *args)
        return Value(value.name, value.type, self.dtype)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c."""
        return self.call("fmuladd", a, b, c)

    def product(self, a: Value, b: Value) -> tuple[Value, Value]:
        """a * b exactly, as a rounded product and its error."""
        high = self.mul(a, b)
        if self.fused:
            return high, self.call("fma", a, b, self.neg(high))
        (a1, a2), (b1, b2) = self.halves(a), self.halves(b)
        error = self.sub(self.mul(a1, b1), high)
        error = self.add(self.add(error, self.mul(a1, b2)), self.mul(a2, b1))
        return high, self.add(error, self.mul(a2, b2))

    def halves(self, a: Value) -> tuple[Value, Value]:
        """a as a sum of two numbers of half the significand."""
        high = self.from_bits(
            self.integer("and", self.to_bits(a), self.k(-(1 << (27 if self.bits == 64 else 12))))
        )
        return high, self.sub(a, high)

    def sum_of(self, large: Value, small: Value) -> tuple[Value, Value]:
        """large + small exactly where |large| >= |small|: a rounded sum and its error."""
        high = self.add(large, small)
        return high, self.sub(small, self.sub(high, large))

    def abs(self, a: Value) -> Value:
        """|a|."""
        return self.call("fabs", a)

    def nearest(self, a: Value) -> Value:
        """The nearest integer, as a float."""
        return self.call("roundeven", a)

    def copysign(self, a: Value, sign: Value) -> Value:
        """|a| with the sign of another value."""
        return self.call("copysign", a, sign)

    def least(self, a: Value, b: Value) -> Value:
        """a < b ? a : b, one instruction on x86: b where either is NaN."""
        return self.select(self.less(a, b), a, b)

    def greatest(self, a: Value, b: Value) -> Value:
        """a > b ? a : b, one instruction on x86: b where either is NaN."""
        return self.select(self.compare("ogt", a, b), a, b)

    def clamp(self, x: Value, lo: float, hi: float) -> Value:
        """x within lo … hi; NaN stays NaN."""
        return self.greatest(self.c(lo), self.least(self.c(hi), x))

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """c0 + c1·x + c2·x² + …, by Horner's rule."""
        total = self.c(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.c(c))
        return total

    # ---- tests

    def compare(self, how: str, a: Value, b: Value) -> Value:
        """A mask from `fcmp`: olt, oeq, uno, …"""
        return self.fn.pure(f"fcmp {how} {a.type} {a}, {b}", self.mask)

    def less(self, a: Value, b: Value) -> Value:
        """a < b; false for NaN."""
        return self.compare("olt", a, b)

    def icompare(self, how: str, a: Value, b: Value) -> Value:
        """A mask from `icmp`: eq, slt, ult, …"""
        return self.fn.pure(f"icmp {how} {a.type} {a}, {b}", self.mask)

    def both(self, a: Value, b: Value) -> Value:
        """Masks: a and b."""
        return self.integer("and", a, b)

    def either(self, a: Value, b: Value) -> Value:
        """Masks: a or b."""
        return self.integer("or", a, b)

    def inverse(self, a: Value) -> Value:
        """Masks: not a."""
        return self.integer("xor", a, constant(True, self.mask))

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where the mask holds, else b."""
        return self.fn.select(mask, a, b)

    # ---- integers of the same width

    def integer(self, op: str, a: Value, b: Value) -> Value:
        """An integer instruction: add, sub, mul, and, or, xor, shl, lshr, ashr."""
        return self.fn.pure(f"{op} {a.type} {a}, {b}", a.type)

    def to_bits(self, a: Value) -> Value:
        """The bits of a float."""
        return self.fn.cast("bitcast", a, self.int)

    def from_bits(self, a: Value) -> Value:
        """The float that has these bits."""
        return self.fn.cast("bitcast", a, self.type, self.dtype)

    def to_int(self, a: Value) -> Value:
        """Truncate a float that an integer of the same width holds."""
        return self.fn.cast("fptosi", a, self.int)

    def to_float(self, a: Value) -> Value:
        """A float from an integer of the same width."""
        return self.fn.cast("sitofp", a, self.type, self.dtype)
