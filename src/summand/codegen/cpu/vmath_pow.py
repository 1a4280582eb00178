"""x to the power y in registers: exp(y·log|x|) with the logarithm in more bits than the result has.

f32 computes in f64. f64 carries the logarithm as an unevaluated sum of two floats (relative error
2^-65). Special cases are those of C99's Annex F.9.4.4. A few constant exponents are products.
"""

from __future__ import annotations

import re
import struct

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value
from summand.codegen.cpu.vmath_exp import exp_of_sum
from summand.codegen.cpu.vmath_log import split
from summand.dtypes import f64

# log2(m) = s·p(s²) with s = (m-1)/(m+1); 2^r = 1 + r·q(r). Relative errors 3e-14, 5e-11.
_LOG2 = (
    2.885390081777845,
    0.9617966941230254,
    0.5770779393116531,
    0.41220958251428086,
    0.31989135288017007,
    0.2831156118876911,
)
_EXP2 = (
    0.6931471805408594,
    0.2402265107893938,
    0.05550410964506403,
    0.00961803633872447,
    0.0013333429036383514,
    0.00015467323154569817,
    1.5315394900300274e-05,
)
# log(m) = 2s + s³·(2/3 + s²·p(s²)), for f64
_LOG = (
    0.39999999999999974,
    0.2857142857144631,
    0.22222222217245172,
    0.18181818905942762,
    0.15384554447935794,
    0.13336410354986866,
    0.11672937672979615,
    0.12004630361354648,
)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_LN2 = (0.6931471805592082, 7.371002565167799e-13)  # the first has 13 zeros at its end

INF = float("inf")
Pair = tuple[Value, Value]  # an unevaluated sum


def power(a: Arith, x: Value, y: Value) -> Value:
    """x ** y."""
    known = _literal(y)
    if known is not None:
        simple = _constant_power(a, x, known)
        if simple is not None:
            return simple
    magnitude = _power_f64(a, a.abs(x), y) if a.bits == 64 else _power_f32(a, a.abs(x), y)
    return _special(a, x, y, magnitude)


def _literal(y: Value) -> float | None:
    found = re.search(r"(?:float|double) 0x([0-9A-F]{16})\)$|^0x([0-9A-F]{16})$", y.name)
    if not found:
        return None
    return float(struct.unpack(">d", bytes.fromhex(found.group(1) or found.group(2)))[0])


def _constant_power(a: Arith, x: Value, y: float) -> Value | None:
    if y < 0:
        inverse = _constant_power(a, x, -y) if y >= -2 else None
        return None if inverse is None else a.div(a.c(1.0), inverse)
    square = a.mul(x, x)
    if y == 0:
        return a.c(1.0)
    if y == 0.5:
        root = a.call("sqrt", a.add(x, a.c(0.0)))
        return a.select(a.compare("oeq", x, a.c(-INF)), a.c(INF), root)
    products = {1: x, 2: square, 3: a.mul(square, x), 4: a.mul(square, square)}
    return products.get(int(y)) if y == int(y) else None


def _power_f32(a: Arith, x: Value, y: Value) -> Value:
    """x ** y of a positive finite x, in f64."""
    w = Arith(a.fn, f64, a.lanes)
    wide, exponent = (a.fn.cast("fpext", v, w.type, f64) for v in (x, y))
    e, m = split(w, wide)
    s = w.div(w.sub(m, w.c(1.0)), w.add(m, w.c(1.0)))
    log2 = w.fma(s, w.poly(w.mul(s, s), _LOG2), e)
    t = w.clamp(w.mul(exponent, log2), -200.0, 200.0)
    magic = w.c(1.5 * 2.0**52 + 1023)
    shifted = w.add(t, magic)
    factor = w.from_bits(w.integer("shl", w.to_bits(shifted), w.k(52)))
    r = w.sub(t, w.sub(shifted, magic))
    value = w.mul(w.fma(r, w.poly(r, _EXP2), w.c(1.0)), factor)
    return a.fn.cast("fptrunc", value, a.type, a.dtype)


def _power_f64(a: Arith, x: Value, y: Value) -> Value:
    """x ** y of a positive finite x."""
    high, low = _log(a, x)
    y = a.clamp(y, -(2.0**66), 2.0**66)
    top, error = a.product(y, high)
    rest = a.fma(y, low, error)
    far = a.compare("ogt", a.abs(top), a.c(800.0))
    return exp_of_sum(a, a.clamp(top, -760.0, 720.0), a.select(far, a.c(0.0), rest))


def _log(a: Arith, x: Value) -> Pair:
    """log x of a positive finite x, to 65 bits."""
    e, m = split(a, x)
    n = a.sub(m, a.c(1.0))
    d, d_low = _sum(a, m, a.c(1.0))
    s = a.div(n, d)
    p, p_low = a.product(s, d)
    s_low = a.div(a.sub(a.sub(a.sub(n, p), p_low), a.mul(s, d_low)), d)
    z = _multiply(a, (s, s_low), (s, s_low))
    tail = a.mul(z[0], a.poly(z[0], _LOG))
    u, u_low = a.sum_of(a.c(_TWO_THIRDS[0]), tail)
    cube = _multiply(a, z, (s, s_low))
    third = _multiply(a, cube, (u, a.add(u_low, a.c(_TWO_THIRDS[1]))))
    double = (a.add(s, s), a.add(s_low, s_low))
    small = _add(a, double, third)
    return _add(a, (a.mul(e, a.c(_LN2[0])), a.mul(e, a.c(_LN2[1]))), small)


def _sum(a: Arith, x: Value, y: Value) -> Pair:
    """x + y exactly."""
    high = a.add(x, y)
    back = a.sub(high, x)
    return high, a.add(a.sub(x, a.sub(high, back)), a.sub(y, back))


def _add(a: Arith, x: Pair, y: Pair) -> Pair:
    high, low = _sum(a, x[0], y[0])
    return a.sum_of(high, a.add(low, a.add(x[1], y[1])))


def _multiply(a: Arith, x: Pair, y: Pair) -> Pair:
    high, low = a.product(x[0], y[0])
    low = a.fma(x[0], y[1], a.fma(x[1], y[0], low))
    return a.sum_of(high, low)


def _special(a: Arith, x: Value, y: Value, magnitude: Value) -> Value:
    """Zeros, infinities, NaN and negative bases."""
    zero, one, inf = a.c(0.0), a.c(1.0), a.c(INF)
    base = a.abs(x)
    up = a.compare("ogt", y, zero)
    endless = a.either(a.compare("oeq", base, inf), a.compare("oeq", a.abs(y), inf))
    above = a.compare("ogt", base, one)
    grows = a.inverse(a.integer("xor", above, up))
    at_edge = a.either(endless, a.compare("oeq", base, zero))
    value = a.select(at_edge, a.select(grows, inf, zero), magnitude)
    value = a.select(a.compare("uno", x, y), a.c(float("nan")), value)
    half = a.mul(y, a.c(0.5))
    whole = a.compare("oeq", a.call("trunc", y), y)
    odd = a.both(whole, a.compare("une", a.call("trunc", half), half))
    negative = a.icompare("slt", a.to_bits(x), a.k(0))
    value = a.select(a.both(negative, odd), a.neg(value), value)
    complex_ = a.both(a.less(x, zero), a.inverse(whole))
    finite = a.compare("one", base, inf)
    value = a.select(a.both(complex_, finite), a.c(float("nan")), value)
    unit = a.both(a.compare("oeq", x, a.c(-1.0)), a.compare("oeq", a.abs(y), inf))
    unit = a.either(unit, a.either(a.compare("oeq", x, one), a.compare("oeq", y, zero)))
    return a.select(unit, one, value)
