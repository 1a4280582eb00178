"""Integer ops with NumPy's meaning: floor division, remainders, shifts and powers that never trap.

x / 0 and x % 0 are 0; the least integer divided by -1 wraps. Vectors of at most 32 bits divide in
floats, which hold the quotient exactly (see the note at the foot); 64-bit ones lane by lane.
"""

from __future__ import annotations

import re

from summand.codegen.cpu.text import Function, Value, constant, register_type, vector
from summand.dtypes import DType


class Integers:
    """Integers of one type with `lanes` lanes."""

    def __init__(self, fn: Function, dtype: DType, lanes: int) -> None:
        self.fn = fn
        self.dtype = dtype
        self.lanes = lanes
        self.signed = dtype.kind == "int"
        self.type = register_type(dtype, lanes)
        self.mask = vector("i1", lanes)

    def c(self, value: int) -> Value:
        """A constant."""
        return constant(value, self.type, self.dtype)

    def op(self, name: str, a: Value, b: Value) -> Value:
        """An instruction on two integers."""
        return self.fn.pure(f"{name} {self.type} {a}, {b}", self.type, self.dtype)

    def test(self, how: str, a: Value, b: Value) -> Value:
        """A mask from `icmp`."""
        return self.fn.pure(f"icmp {how} {self.type} {a}, {b}", self.mask)

    def call(self, name: str, a: Value, b: Value) -> Value:
        """`llvm.NAME` of two integers."""
        value = self.fn.intrinsic(name, a, b)
        return Value(value.name, value.type, self.dtype)

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where the mask holds, else b."""
        return self.fn.select(mask, a, b)

    # ---- ops

    def neg(self, a: Value) -> Value:
        """-a, wrapping."""
        return self.op("sub", self.c(0), a)

    def abs(self, a: Value) -> Value:
        """|a|, wrapping for the least integer."""
        return self.call("smax", a, self.neg(a)) if self.signed else a

    def sign(self, a: Value) -> Value:
        """-1, 0 or 1."""
        low = self.call("smax", a, self.c(-1)) if self.signed else a
        return self.call("smin" if self.signed else "umin", low, self.c(1))

    def extreme(self, name: str, a: Value, b: Value) -> Value:
        """`max` or `min`."""
        return self.call(("s" if self.signed else "u") + name, a, b)

    def floordiv(self, a: Value, b: Value) -> Value:
        """Quotient rounded down."""
        quotient, rest = self._divide(a, b)
        if self.signed:
            below = self.select(self._crosses(rest, b), self.c(1), self.c(0))
            quotient = self.op("sub", quotient, below)
        return self.select(self.test("eq", b, self.c(0)), self.c(0), quotient)

    def mod(self, a: Value, b: Value) -> Value:
        """Remainder with the sign of b."""
        _, rest = self._divide(a, b)
        if self.signed:
            rest = self.select(self._crosses(rest, b), self.op("add", rest, b), rest)
        return self.select(self.test("eq", b, self.c(0)), self.c(0), rest)

    def _crosses(self, rest: Value, b: Value) -> Value:
        """Where truncating division lies above floor division: the rest's sign is not b's."""
        nonzero = self.test("ne", rest, self.c(0))
        differ = self.test("slt", self.op("xor", rest, b), self.c(0))
        return self.fn.pure(f"and {self.mask} {nonzero}, {differ}", self.mask)

    def _divide(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Truncated quotient and its rest; anything where b is 0."""
        divisor = self._safe_divisor(a, b)
        if self.lanes > 1 and self.dtype.bits <= 32 and not divisor.name.startswith("splat"):
            quotient = self._divide_in_floats(a, divisor)
        else:
            quotient = self.op("sdiv" if self.signed else "udiv", a, divisor)
        return quotient, self.op("sub", a, self.op("mul", quotient, divisor))

    def _safe_divisor(self, a: Value, b: Value) -> Value:
        """b, or 1 where the instruction would trap; the least integer over -1 is itself over 1."""
        known = literal_of(b)
        if known is not None and known not in (0, -1):
            return b
        traps = self.test("eq", b, self.c(0))
        if self.signed:
            least = self.test("eq", a, self.c(-(1 << self.dtype.bits - 1)))
            minus = self.test("eq", b, self.c(-1))
            wraps = self.fn.pure(f"and {self.mask} {least}, {minus}", self.mask)
            traps = self.fn.pure(f"or {self.mask} {traps}, {wraps}", self.mask)
        return self.select(traps, self.c(1), b)

    def _divide_in_floats(self, a: Value, b: Value) -> Value:
        float_ = vector("double" if self.dtype.bits == 32 else "float", self.lanes)
        into, back = ("sitofp", "fptosi") if self.signed else ("uitofp", "fptoui")
        x, y = self.fn.cast(into, a, float_), self.fn.cast(into, b, float_)
        ratio = self.fn.pure(f"fdiv {float_} {x}, {y}", float_)
        return self.fn.cast(back, ratio, self.type, self.dtype)

    def shl(self, a: Value, count: Value) -> Value:
        """a · 2^count; 0 where the count is the width or more."""
        inside = self.test("ult", count, self.c(self.dtype.bits))
        safe = self.select(inside, count, self.c(0))
        return self.select(inside, self.op("shl", a, safe), self.c(0))

    def shr(self, a: Value, count: Value) -> Value:
        """a // 2^count; all sign bits where the count is the width or more."""
        if self.signed:
            return self.op("ashr", a, self.call("umin", count, self.c(self.dtype.bits - 1)))
        inside = self.test("ult", count, self.c(self.dtype.bits))
        safe = self.select(inside, count, self.c(0))
        return self.select(inside, self.op("lshr", a, safe), self.c(0))

    def pow(self, a: Value, exponent: Value) -> Value:
        """a ** exponent, wrapping; truncated (0 or ±1) where the exponent is negative."""
        known = literal_of(exponent)
        if known is not None and 0 <= known <= 64:
            return self._power_of(a, known)
        positive = self.call("smax", exponent, self.c(0)) if self.signed else exponent
        start = [self.c(1), a, positive]
        total = self.fn.loop(0, self.dtype.bits, 1, start, lambda _, c: self._square(*c))[0]
        return self._negative_power(a, exponent, total) if self.signed else total

    def _square(self, total: Value, base: Value, rest: Value) -> list[Value]:
        odd = self.test("ne", self.op("and", rest, self.c(1)), self.c(0))
        total = self.select(odd, self.op("mul", total, base), total)
        return [total, self.op("mul", base, base), self.op("lshr", rest, self.c(1))]

    def _power_of(self, a: Value, exponent: int) -> Value:
        total: Value | None = None
        base = a
        while exponent:
            if exponent & 1:
                total = base if total is None else self.op("mul", total, base)
            exponent >>= 1
            if exponent:
                base = self.op("mul", base, base)
        return self.c(1) if total is None else total

    def _negative_power(self, a: Value, exponent: Value, total: Value) -> Value:
        odd = self.test("ne", self.op("and", exponent, self.c(1)), self.c(0))
        of_minus = self.select(odd, self.c(-1), self.c(1))
        inverse = self.select(self.test("eq", a, self.c(-1)), of_minus, self.c(0))
        inverse = self.select(self.test("eq", a, self.c(1)), self.c(1), inverse)
        return self.select(self.test("slt", exponent, self.c(0)), inverse, total)


def literal_of(value: Value) -> int | None:
    """The number of an integer constant that is the same in all lanes."""
    found = re.fullmatch(r"(?:splat \(i\d+ )?(-?\d+)\)?", value.name)
    return int(found.group(1)) if found else None


# Exact quotients in floats. A quotient a/b of integers below 2^n that is not an integer lies at
# least 1/b from one, relative to itself at least 1/a > 2^-n. Rounding moves it by 2^-p of itself
# (p = 53 for f64, n = 32; p = 24 for f32, n = 16), so it cannot reach the integer: truncation is
# right.
