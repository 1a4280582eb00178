"""log and log1p in registers.

x = 2^e·m with m around 1, f = m - 1, and log(1 + f) = f - f²/2 + f³·p(f), p a minimax polynomial.
Where AVX-512 is there, `getexp` and `getmant` split x, denormals, 0, inf and NaN included.
"""

from __future__ import annotations

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value

LN2 = 0.6931471805599453
_HIGH_F32, _LOW_F32 = 0.693145751953125, 1.4286068203094172e-06
_HIGH_F64, _LOW_F64 = 0.6931471803691238, 1.9082149292705877e-10

# On m = sqrt(1/2) … sqrt(2).
_P = (
    0.3333333168652522,
    -0.25000820902052207,
    0.20001228296998083,
    -0.1662336021132975,
    0.1420173143819511,
    -0.13160142287758778,
    0.1276173580287626,
    -0.07634774380643329,
)
# On m = 3/4 … 3/2, the interval of `getmant`.
_P_GETMANT = (
    0.3333333985959186,
    -0.2500016525631165,
    0.19999605030087245,
    -0.16655297066325322,
    0.14276236403986028,
    -0.12727772204499577,
    0.11700668031789377,
    -0.09116218975400282,
    0.0376730983227594,
)
# f64: log(1 + f) = f - f²/2 + s·(f²/2 + R), s = f/(2+f), R a polynomial in s² (the form of fdlibm).
_R = (
    0.6666666666666735130,
    0.3999999999940941908,
    0.2857142874366239149,
    0.2222219843214978396,
    0.1818357216161805012,
    0.1531383769920937332,
    0.1479819860511658591,
)


def log(a: Arith, x: Value) -> Value:
    """log x: -inf at 0, NaN below."""
    if _splits(a):
        e, m = _split_avx512(a, x)
        return _log_parts(a, e, a.sub(m, a.c(1.0)), _P_GETMANT)
    e, m = split(a, x)
    return _special(a, x, _log_parts(a, e, a.sub(m, a.c(1.0)), _P))


def log1p(a: Arith, x: Value) -> Value:
    """log(1 + x); the rounding error of 1 + x is put back as a first-order correction."""
    one = a.c(1.0)
    u = a.add(x, one)
    lost = a.sub(x, a.sub(u, one))
    e, m = split(a, u)
    value = _log_parts(a, e, a.sub(m, one), _P)
    value = _special(a, u, a.add(value, a.div(lost, u)))
    tiny = a.less(a.abs(x), a.c(2.0**-25 if a.bits == 32 else 2.0**-54))
    return a.select(tiny, x, value)


def _special(a: Arith, x: Value, value: Value) -> Value:
    """-inf at 0, NaN below 0 and at NaN, inf at inf."""
    inf = a.c(float("inf"))
    value = a.select(a.compare("ogt", x, a.c(0.0)), value, a.c(float("nan")))
    value = a.select(a.compare("oeq", x, a.c(0.0)), a.neg(inf), value)
    return a.select(a.compare("oeq", x, inf), inf, value)


def split(a: Arith, x: Value) -> tuple[Value, Value]:
    """e (a float) and m in sqrt(1/2) … sqrt(2) with x = m·2^e, for positive finite x."""
    width, root = (52, 0x3FE6A09E667F3BCD) if a.bits == 64 else (23, 0x3F3504F3)
    least = 2.2250738585072014e-308 if a.bits == 64 else 1.1754943508222875e-38
    denormal = a.less(x, a.c(least))
    normal = a.select(denormal, a.mul(x, a.c(2.0 ** (width + 1))), x)
    bits = a.to_bits(normal)
    e = a.integer("ashr", a.integer("sub", bits, a.k(root)), a.k(width))
    m = a.from_bits(a.integer("sub", bits, a.integer("shl", e, a.k(width))))
    exponent = a.to_float(e)
    lower = a.sub(exponent, a.c(float(width + 1)))
    return a.select(denormal, lower, exponent), m


def _log_parts(a: Arith, e: Value, f: Value, p: tuple[float, ...]) -> Value:
    """e·ln 2 + log(1 + f)."""
    if a.bits == 64:
        return _log_parts_f64(a, e, f)
    z = a.mul(f, f)
    y = a.mul(a.mul(z, f), a.poly(f, p))
    y = a.fma(e, a.c(_LOW_F32), y)
    y = a.fma(z, a.c(-0.5), y)
    return a.fma(e, a.c(_HIGH_F32), a.add(f, y))


def _log_parts_f64(a: Arith, e: Value, f: Value) -> Value:
    s = a.div(f, a.add(f, a.c(2.0)))
    z = a.mul(s, s)
    r = a.mul(z, a.poly(z, _R))
    half = a.mul(a.mul(f, f), a.c(0.5))
    rest = a.fma(s, a.add(half, r), a.mul(e, a.c(_LOW_F64)))
    y = a.sub(f, a.sub(half, rest))
    return a.fma(e, a.c(_HIGH_F64), y)


def _splits(a: Arith) -> bool:
    return a.bits == 32 and a.lanes == 16 and "avx512f" in a.fn.unit.features


def _split_avx512(a: Arith, x: Value) -> tuple[Value, Value]:
    """e and m in 3/4 … 3/2. Negative x has m NaN; 0, inf and NaN have theirs in e, with m = 1."""
    mask, rounding = Value("-1", "i16"), Value("4", "i32")
    interval = Value("11", "i32")  # 3/4 … 3/2; NaN for negative x
    name = "llvm.x86.avx512.mask.getmant.ps.512"
    m = a.fn.call(name, a.type, [x, interval, a.c(0.0), mask, rounding])
    name = "llvm.x86.avx512.mask.getexp.ps.512"
    e = a.fn.call(name, a.type, [x, a.c(0.0), mask, rounding])
    below = a.fn.call(name, a.type, [m, a.c(0.0), mask, rounding])
    return a.sub(e, below), m
