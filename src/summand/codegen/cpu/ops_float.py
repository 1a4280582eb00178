"""Float ops with NumPy's meaning: extremes that propagate NaN, floor division, sign, tests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value, suffix

INF = float("inf")


def maximum(a: Arith, x: Value, y: Value, nan: bool = True) -> Value:
    """The greater; NaN where either is NaN, unless `nan` says that none occurs."""
    return _extreme(a, "ogt", x, y, nan)


def minimum(a: Arith, x: Value, y: Value, nan: bool = True) -> Value:
    """The less; NaN where either is NaN, unless `nan` says that none occurs."""
    return _extreme(a, "olt", x, y, nan)


def _extreme(a: Arith, how: str, x: Value, y: Value, nan: bool) -> Value:
    """x > y ? x : y gives y where either is NaN, so only x must be looked at. In a fold y is the
    accumulator, and the test of x stays outside the chain of dependent instructions."""
    picked = a.select(a.compare(how, x, y), x, y)
    if not nan:
        return picked
    if joins(a):
        return join_nan(a, picked, x, x)
    return a.select(a.compare("ord", x, x), picked, x)


def joins(a: Arith) -> bool:
    """Whether lanes that were compared are all ones, which is a NaN: joined sooner than blended."""
    return a.lanes > 1 and not a.fn.unit.has_masks


def join_nan(a: Arith, value: Value, x: Value, y: Value) -> Value:
    """The value, but NaN where x or y is."""
    unordered = a.fn.cast("sext", a.compare("uno", x, y), a.int)
    return a.from_bits(a.integer("or", a.to_bits(value), unordered))


def over(a: Arith, x: Value, number: float) -> Value:
    """x / number as x·h + x·l, where h + l is 1 / number in two parts.

    Normal results are rounded once, but for 2^-24 (f64: 2^-53) of a last place. Both parts have one
    sign, so that an infinite x stays infinite. A division where they would be too small or large.
    """
    parts = _reciprocal(number, a.bits) if a.fused else None
    if parts is None:
        return a.div(x, a.c(number))
    high, low = parts
    return a.fma(x, a.c(high), a.mul(x, a.c(low))) if low else a.mul(x, a.c(high))


def _reciprocal(number: float, bits: int) -> tuple[float, float] | None:
    most = 2.0**100 if bits == 32 else 2.0**900
    kind = np.float64 if bits == 64 else np.float32
    if not 1 / most < abs(number) < most:
        return None
    exact = 1 / Fraction(float(kind(number)))
    high = kind(float(exact))
    if abs(Fraction(float(high))) > abs(exact):
        high = np.nextafter(high, kind(0))
    return float(high), float(kind(float(exact - Fraction(float(high)))))


def sign(a: Arith, x: Value) -> Value:
    """-1, 0 (also for -0) or 1; NaN stays."""
    zero = a.c(0.0)
    rest = a.add(x, zero)  # -0 + 0 is 0
    low = a.select(a.less(x, zero), a.c(-1.0), rest)
    return a.select(a.compare("ogt", x, zero), a.c(1.0), low)


def ordinal(a: Arith, x: Value) -> Value:
    """An integer as wide as the float, in the order of floats; -0 as 0, NaN below all."""
    bits = a.to_bits(a.add(x, a.c(0.0)))
    most = (1 << (a.bits - 1)) - 1
    sign = a.integer("ashr", bits, a.k(a.bits - 1))
    ordered = a.integer("xor", bits, a.integer("and", sign, a.k(most)))
    return a.select(a.compare("uno", x, x), a.k(-most - 1), ordered)


def isinf(a: Arith, x: Value) -> Value:
    """Where x is ±inf."""
    return a.compare("oeq", a.abs(x), a.c(INF))


def isfinite(a: Arith, x: Value) -> Value:
    """Where x is neither ±inf nor NaN."""
    return a.less(a.abs(x), a.c(INF))


def mod(a: Arith, x: Value, y: Value) -> Value:
    """x - y·floor(x/y), exact, with the sign of y."""
    return _divide(a, x, y)[1]


def floordiv(a: Arith, x: Value, y: Value) -> Value:
    """floor(x / y), computed from the exact remainder as Python does."""
    quotient, _ = _divide(a, x, y)
    return a.select(a.compare("oeq", y, a.c(0.0)), a.div(x, y), quotient)


def _divide(a: Arith, x: Value, y: Value) -> tuple[Value, Value]:
    """Floored quotient and remainder (Python's divmod of floats)."""
    rest = remainder(a, x, y)
    nonzero = a.compare("une", rest, a.c(0.0))
    signs = a.integer("xor", a.to_bits(rest), a.to_bits(y))
    differ = a.icompare("slt", signs, a.k(0))
    crosses = a.both(nonzero, differ)
    quotient = a.div(a.sub(x, rest), y)
    quotient = a.select(crosses, a.sub(quotient, a.c(1.0)), quotient)
    moved = a.select(crosses, a.add(rest, y), rest)
    moved = a.select(nonzero, moved, a.copysign(a.c(0.0), y))
    floor = a.call("floor", quotient)
    short = a.compare("ogt", a.sub(quotient, floor), a.c(0.5))
    floor = a.select(short, a.add(floor, a.c(1.0)), floor)
    zero = a.copysign(a.c(0.0), a.div(x, y))
    return a.select(a.compare("oeq", quotient, a.c(0.0)), zero, floor), moved


def remainder(a: Arith, x: Value, y: Value) -> Value:
    """x - y·trunc(x/y), exact (C's fmod): the sign of x; NaN for y = 0 or x infinite.

    Subtracts y·2^k from |x| for falling k, in integers of the significands' width, as long as any
    lane has something left: see the note at the foot.
    """
    top = a.abs(x)
    low = a.abs(y)
    bad = a.compare("uno", top, low)
    bad = a.either(bad, a.compare("oeq", low, a.c(0.0)))
    bad = a.either(bad, a.compare("oeq", top, a.c(INF)))
    simple = a.less(top, low)  # also x finite, y infinite
    rest = _reduce(a, a.select(a.either(bad, simple), a.c(0.0), top), a.select(bad, a.c(1.0), low))
    out = a.copysign(a.select(simple, top, rest), x)
    return a.select(bad, a.c(float("nan")), out)


def _reduce(a: Arith, top: Value, low: Value) -> Value:
    """top mod low for finite top >= 0, low > 0, by long division of significands."""
    e_top, m_top = _significand(a, top)
    e_low, m_low = _significand(a, low)
    width = 52 if a.bits == 64 else 23
    zeros = a.fn.pure(f"call {a.int} @{_ctlz(a)}({a.int} {m_low}, i1 true)", a.int)
    shift = a.integer("sub", zeros, a.k(a.bits - 1 - width))  # of a denormal's significand
    n = a.integer("shl", m_low, shift)
    steps = a.integer("add", a.integer("sub", e_top, e_low), shift)
    starts = a.icompare("sge", steps, a.k(0))
    first = a.integer("sub", m_top, a.select(a.icompare("uge", m_top, n), n, a.k(0)))
    first = a.select(starts, first, a.k(0))

    def step(rest: Value, todo: Value) -> list[Value]:
        double = a.integer("shl", rest, a.k(1))
        less = a.select(a.icompare("uge", double, n), n, a.k(0))
        runs = a.icompare("sgt", todo, a.k(0))
        rest = a.select(runs, a.integer("sub", double, less), rest)
        return [rest, a.integer("sub", todo, a.k(1))]

    rest = a.fn.loop(0, _across(a, steps), 1, [first, steps], lambda _, c: step(*c))[0]
    return _compose(a, e_low, a.integer("lshr", rest, shift))


def _ctlz(a: Arith) -> str:
    name = f"llvm.ctlz.{suffix(a.int)}"
    a.fn.unit.declare(name, a.int, [a.int, "i1"])
    return name


def _significand(a: Arith, x: Value) -> tuple[Value, Value]:
    """Biased exponent e (1 for denormals) and integer m with x = m · 2^(e - bias - width)."""
    width = 52 if a.bits == 64 else 23
    bits = a.to_bits(x)
    exponent = a.integer("lshr", bits, a.k(width))
    fraction = a.integer("and", bits, a.k((1 << width) - 1))
    normal = a.icompare("ne", exponent, a.k(0))
    whole = a.integer("or", fraction, a.k(1 << width))
    return a.select(normal, exponent, a.k(1)), a.select(normal, whole, fraction)


def _compose(a: Arith, exponent: Value, significand: Value) -> Value:
    """The float significand · 2^(exponent - bias - width), exactly; two factors reach denormals."""
    width = 52 if a.bits == 64 else 23
    scaled = a.mul(a.to_float(significand), a.c(2.0**-width))
    return a.mul(scaled, a.from_bits(a.integer("shl", exponent, a.k(width))))


def _across(a: Arith, steps: Value) -> Value:
    """The greatest of all lanes, as an i64."""
    if a.lanes > 1:
        element = f"i{a.bits}"
        name = f"llvm.vector.reduce.smax.v{a.lanes}{element}"
        steps = a.fn.call(name, element, [steps])
    return a.fn.cast("sext", steps, "i64")


# The remainder. With x = m·2^e and y = n·2^f, x mod y = ((m·2^(e-f)) mod n)·2^f: doubling the rest
# e-f times and subtracting n where it fits needs one bit more than a significand. The number of
# rounds is the greatest difference of exponents among the lanes, usually a few.
