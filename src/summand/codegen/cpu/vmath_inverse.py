"""asin, acos, atan, atan2 in registers.

atan maps |x| into 0 … tan(π/8) by (x - 1)/(x + 1) or -1/x, adding π/4 or π/2. asin beyond 1/2 is
π/2 - 2·asin(sqrt((1 - x)/2)). Both end in a minimax polynomial t + t³·p(t²).
"""

from __future__ import annotations

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value

_PI = {
    32: (3.1415927410125732, -8.742278000372485e-08),
    64: (3.141592653589793, 1.2246467991473532e-16),
}

_ATAN_F32 = (
    -0.3333331535975429,
    0.19998479001443337,
    -0.14243629680457864,
    0.10594249019667597,
    -0.06078725550923814,
)
_ATAN_F64 = (
    -0.33333333333333326,
    0.19999999999997647,
    -0.14285714285385198,
    0.11111111088001113,
    -0.09090908138109785,
    0.07692282612676363,
    -0.06666224590364872,
    0.058770004748792896,
    -0.05218266486285999,
    0.04502986114517964,
    -0.0334612827095318,
    0.015181712450182138,
)
_ASIN_F32 = (
    0.16666659857591884,
    0.07500511894570737,
    0.04451551244095717,
    0.03181950905609167,
    0.014394836942157761,
    0.03757690771542808,
)
_ASIN_F64 = (
    0.16666666666666763,
    0.07499999999970089,
    0.04464285717529326,
    0.030381942674984185,
    0.02237221591313743,
    0.017351595386141516,
    0.013981019741881534,
    0.011397284270190025,
    0.010789365271062902,
    0.0036720343086412946,
    0.021790982041282374,
    -0.021117155713830695,
    0.032702415407953246,
)
TAN_3_PI_8 = 2.414213562373095
TAN_PI_8 = 0.41421356237309503


def atan(a: Arith, x: Value) -> Value:
    """atan x; ±π/2 for ±inf."""
    return a.copysign(_atan_of_ratio(a, a.abs(x), a.c(1.0)), x)


def atan2(a: Arith, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), in -π … π; the signs of zeros count."""
    top, bottom = a.abs(y), a.abs(x)
    inf = a.c(float("inf"))
    both = a.both(a.compare("oeq", top, inf), a.compare("oeq", bottom, inf))
    top, bottom = (a.select(both, a.c(1.0), v) for v in (top, bottom))
    limit = 2.0**1020 if a.bits == 64 else 2.0**124
    large = a.either(*(a.compare("ogt", v, a.c(limit)) for v in (top, bottom)))
    factor = a.select(large, a.c(0.0625), a.c(1.0))
    angle = _atan_of_ratio(a, a.mul(top, factor), a.mul(bottom, factor))
    high, low = _PI[a.bits]
    turned = a.sub(a.c(high), a.sub(angle, a.c(low)))
    left = a.icompare("slt", a.to_bits(x), a.k(0))
    value = a.copysign(a.select(left, turned, angle), y)
    return a.select(a.compare("uno", x, y), a.c(float("nan")), value)


def _atan_of_ratio(a: Arith, top: Value, bottom: Value) -> Value:
    """atan(top / bottom) of two numbers >= 0; 0 for 0/0."""
    high, low = _PI[a.bits]
    far = a.compare("ogt", top, a.mul(bottom, a.c(TAN_3_PI_8)))
    middle = a.compare("ogt", top, a.mul(bottom, a.c(TAN_PI_8)))
    one = a.select(a.compare("oeq", bottom, a.c(0.0)), a.c(1.0), bottom)
    t = a.div(
        a.select(far, a.neg(bottom), a.select(middle, a.sub(top, bottom), top)),
        a.select(far, top, a.select(middle, a.add(top, bottom), one)),
    )
    zero = a.c(0.0)
    base = a.select(far, a.c(high / 2), a.select(middle, a.c(high / 4), zero))
    rest = a.select(far, a.c(low / 2), a.select(middle, a.c(low / 4), zero))
    z = a.mul(t, t)
    tail = a.fma(a.mul(z, t), a.poly(z, _ATAN_F64 if a.bits == 64 else _ATAN_F32), rest)
    return a.add(base, a.add(tail, t))


def asin(a: Arith, x: Value) -> Value:
    """asin x; NaN outside of -1 … 1."""
    high, low = _PI[a.bits]
    big, s, near = _asin_parts(a, x)
    double = a.add(s, s)
    far = a.sub(a.sub(a.c(high / 2), double), a.fma(double, near, a.c(-low / 2)))
    small = a.fma(s, near, s)
    return a.copysign(a.select(big, far, small), x)


def acos(a: Arith, x: Value) -> Value:
    """acos x; NaN outside of -1 … 1."""
    high, low = _PI[a.bits]
    big, s, near = _asin_parts(a, x)
    double = a.add(s, s)
    twice = a.fma(double, near, double)
    negative = a.less(x, a.c(0.0))
    far = a.select(negative, a.sub(a.c(high), a.sub(twice, a.c(low))), twice)
    small = a.copysign(a.fma(s, near, s), x)
    middle = a.sub(a.c(high / 2), a.sub(small, a.c(low / 2)))
    return a.select(big, far, middle)


def _asin_parts(a: Arith, x: Value) -> tuple[Value, Value, Value]:
    """Whether |x| > 1/2, then s, and asin(s)/s - 1, with s = |x| or sqrt((1 - |x|)/2)."""
    y = a.abs(x)
    big = a.compare("ogt", y, a.c(0.5))
    z = a.select(big, a.mul(a.sub(a.c(1.0), y), a.c(0.5)), a.mul(y, y))
    s = a.select(big, a.call("sqrt", z), y)
    return big, s, a.mul(z, a.poly(z, _ASIN_F64 if a.bits == 64 else _ASIN_F32))
