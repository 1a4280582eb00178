"""exp, expm1, sinh, cosh, tanh in registers.

x = n·ln 2 + r with |r| <= ln 2 / 2, and e^r - 1 = r + r²·q(r), q a minimax polynomial. 2^n is one
`scalef` where AVX-512 has it, else two multiplications by powers of two, so that denormal results
and overflow come out right. tanh of f32 is a rational function of its own. Where one register holds
a table of 16 powers (f32 on AVX-512), exp takes n in sixteenths and a shorter polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value, listed
from summand.dtypes import f64

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class _Table:
    """ln 2 in two parts, the first with enough zeros that n times it is exact; q; and the range
    outside of which exp is 0 or infinite."""

    high: float
    low: float
    q: tuple[float, ...]
    least: float
    greatest: float
    tanh_one: float  # tanh is 1 from here on


_F32 = _Table(
    0.693359375,
    -2.1219444005469057e-4,
    (
        0.5000000101476184,
        0.16666512886435136,
        0.04166618628699033,
        0.008369598655338666,
        0.0013951765705046831,
    ),
    -104.5,
    89.5,
    9.02,
)
_F64 = _Table(
    0.6931471803691238,
    1.9082149292705877e-10,
    (
        0.5,
        0.16666666666666685,
        0.04166666666666673,
        0.008333333333315382,
        0.0013888888888856543,
        0.0001984126990044709,
        2.4801587377099147e-05,
        2.7557230826638322e-06,
        2.755723069564893e-07,
        2.511343551369608e-08,
        2.0927723434358647e-09,
    ),
    -746.0,
    710.5,
    22.1,
)


_SHORT = (1.0, 0.50001662, 0.16666849)  # (e^r - 1) / r for |r| <= ln 2 / 32

_SINH_F32 = (
    0.16666666488881107,
    0.008333350588943028,
    0.00019836067499561695,
    2.8174346908043867e-06,
)
_SINH_F64 = (
    0.16666666666666669,
    0.008333333333333139,
    0.00019841269841437556,
    2.755731915536917e-06,
    2.505212339448027e-08,
    1.6057240586545783e-10,
    7.759306624259778e-13,
)


def _table(a: Arith) -> _Table:
    return _F64 if a.bits == 64 else _F32


def reduce(a: Arith, x: Value) -> tuple[Value, Value]:
    """n (a float) and r with x = n·ln 2 + r."""
    t = _table(a)
    n = a.nearest(a.mul(x, a.c(LOG2_E)))
    r = a.fma(n, a.c(-t.high), x)
    return n, a.fma(n, a.c(-t.low), r)


def exp(a: Arith, x: Value) -> Value:
    """e^x; 0 for -inf, inf for what is too large."""
    t = _table(a)
    x = a.clamp(x, t.least, t.greatest)
    if a.dtype is not f64 and a.bits * a.lanes == 512 and _scalef(a):
        return _exp_by_table(a, x)
    if not _scalef(a):
        return _exp_by_shifts(a, x)
    n, r = reduce(a, x)
    return scale(a, _exp_of_rest(a, r), n)


def _exp_of_rest(a: Arith, r: Value) -> Value:
    """e^r for |r| <= ln 2 / 2."""
    q = a.poly(r, _table(a).q)
    return a.fma(a.fma(q, r, a.c(1.0)), r, a.c(1.0))


def _exp_by_shifts(a: Arith, x: Value) -> Value:
    """e^x = 2^⌊n/2⌋ · 2^⌈n/2⌉ · e^r.

    Adding 1.5·2^width + 2·bias leaves n + 2·bias in a float's last bits. Half of that and the rest
    are biased exponents: shifts make them powers, whatever the bits further up. The first power is
    a factor of both terms of e^r = 1 + r·(1 + r·q), so that only the second one waits for all else.
    """
    t = _table(a)
    width, bias = (52, 1023) if a.bits == 64 else (23, 127)
    magic = a.c(1.5 * 2.0**width + 2 * bias)
    shifted = a.fma(x, a.c(LOG2_E), magic)
    n = a.sub(shifted, magic)
    r = a.fma(n, a.c(-t.low), a.fma(n, a.c(-t.high), x))
    both = a.to_bits(shifted)
    half = a.integer("lshr", both, a.k(1))
    powers = [a.integer("shl", e, a.k(width)) for e in (half, a.integer("sub", both, half))]
    first, second = (a.from_bits(e) for e in powers)
    below = a.fma(a.poly(r, t.q), r, a.c(1.0))
    return a.mul(a.fma(below, a.mul(r, first), first), second)


def _exp_by_table(a: Arith, x: Value) -> Value:
    """e^x = 2^⌊n⌋ · 2^(n - ⌊n⌋) · e^r, with n in sixteenths and |r| <= ln 2 / 32.

    Adding 1.5·2^19 leaves 16·n in the last bits of a float: its last four select the power, and
    `scalef` takes the floor itself.
    """
    t = _table(a)
    magic = a.c(1.5 * 2.0**19)
    shifted = a.fma(x, a.c(LOG2_E), magic)
    name = f"llvm.x86.avx512.permvar.sf.{32 * a.lanes}"
    powers = listed([2.0 ** (k / 16) for k in range(16)], "float")
    power = a.fn.call(name, a.type, [powers, a.to_bits(shifted)])
    power = Value(power.name, power.type, a.dtype)
    n = a.sub(shifted, magic)
    r = a.fma(n, a.c(-t.low), a.fma(n, a.c(-t.high), x))
    less_one = a.mul(a.poly(r, _SHORT), r)  # e^r - 1
    return scale(a, a.fma(power, less_one, power), n)


def exp_of_sum(a: Arith, x: Value, rest: Value) -> Value:
    """e^(x + rest) for x in the range of exp and a small rest."""
    n, r = reduce(a, x)
    tail = a.mul(a.mul(r, r), a.poly(r, _table(a).q))
    more = a.fma(rest, a.add(r, tail), rest)  # rest·e^r
    p = a.add(a.c(1.0), a.add(r, a.add(tail, more)))
    return scale(a, p, n)


def scale(a: Arith, p: Value, n: Value) -> Value:
    """p·2^n, rounded once, for a float n without fraction within ±2 times the exponents' range."""
    name = _scalef(a)
    if name:
        return _call_scalef(a, name, p, n)
    whole = a.to_int(n)
    half = a.integer("ashr", whole, a.k(1))
    p = a.mul(p, power_of_two(a, half))
    return a.mul(p, power_of_two(a, a.integer("sub", whole, half)))


def power_of_two(a: Arith, n: Value) -> Value:
    """2^n of an integer n in the range of normal exponents."""
    width, bias = (52, 1023) if a.bits == 64 else (23, 127)
    biased = a.integer("add", n, a.k(bias))
    return a.from_bits(a.integer("shl", biased, a.k(width)))


def _scalef(a: Arith) -> str:
    """The AVX-512 intrinsic for this register, where the processor has it."""
    size = a.bits * a.lanes
    needed = {512: "avx512f", 256: "avx512vl", 128: "avx512vl"}.get(size)
    if needed is None or needed not in a.fn.unit.features:
        return ""
    return f"llvm.x86.avx512.mask.scalef.{'pd' if a.bits == 64 else 'ps'}.{size}"


def _call_scalef(a: Arith, name: str, p: Value, n: Value) -> Value:
    mask = Value("-1", "i16" if a.lanes == 16 else "i8")
    rounding = [Value("4", "i32")] if a.bits * a.lanes == 512 else []
    zero = a.c(0.0)
    value = a.fn.call(name, a.type, [p, n, zero, mask, *rounding])
    return Value(value.name, value.type, a.dtype)


def expm1(a: Arith, x: Value) -> Value:
    """e^x - 1 without cancellation; -1 for -inf."""
    half = _half_expm1(a, a.clamp(x, -40.0, _table(a).greatest))
    tiny = a.less(a.abs(x), a.c(2.0**-54 if a.bits == 64 else 2.0**-25))
    return a.select(tiny, x, a.add(half, half))


def _half_expm1(a: Arith, x: Value) -> Value:
    """(e^x - 1) / 2, in quarters before the last addition so that nothing overflows too early."""
    m, whole = _expm1_parts(a, x)
    power = power_of_two(a, a.integer("sub", whole, a.k(2)))
    quarter = a.fma(m, power, a.sub(power, a.c(0.25)))
    return a.add(quarter, quarter)


def _expm1_parts(a: Arith, x: Value) -> tuple[Value, Value]:
    """e^r - 1, and n as an integer."""
    n, r = reduce(a, x)
    return a.fma(a.mul(r, r), a.poly(r, _table(a).q), r), a.to_int(n)


def sinh(a: Arith, x: Value) -> Value:
    """(e^x - e^-x) / 2: with h = (e^|x| - 1) / 2 it is h + h / (2h + 1); near 0 a polynomial."""
    h = _half_expm1(a, a.least(a.c(_table(a).greatest), a.abs(x)))
    rest = a.div(h, a.fma(h, a.c(2.0), a.c(1.0)))
    big = a.compare("oeq", h, a.c(float("inf")))
    far = a.copysign(a.select(big, h, a.add(h, rest)), x)
    z = a.mul(x, x)
    near = a.fma(a.mul(z, x), a.poly(z, _SINH_F64 if a.bits == 64 else _SINH_F32), x)
    return a.select(a.less(a.abs(x), a.c(1.0)), near, far)


def cosh(a: Arith, x: Value) -> Value:
    """(e^x + e^-x) / 2: with h = e^|x| / 2 it is h + 1 / (4h)."""
    t = _table(a)
    n, r = reduce(a, a.clamp(a.abs(x), t.least, t.greatest))
    p = a.fma(a.fma(a.poly(r, t.q), r, a.c(1.0)), r, a.c(1.0))
    h = scale(a, p, a.sub(n, a.c(1.0)))
    return a.add(h, a.div(a.c(0.25), h))


def tanh(a: Arith, x: Value) -> Value:
    """(e^x - e^-x) / (e^x + e^-x): with h = (e^2|x| - 1) / 2 it is h / (h + 1).

    For small h, h - h·(h / (h + 1)) hides the rounding of h + 1.
    """
    h = _half_expm1_of_twice(a, a.least(a.c(_table(a).tanh_one), a.abs(x)))
    ratio = a.div(h, a.add(h, a.c(1.0)))
    small = a.fma(a.neg(h), ratio, h)
    return a.copysign(a.select(a.less(h, a.c(0.5)), small, ratio), x)


def _half_expm1_of_twice(a: Arith, y: Value) -> Value:
    """(e^2y - 1) / 2 for 0 <= y below the range of exp: 2y = n·ln 2 + 2r.

    Adding 1.5·2^width + bias leaves n + bias in a float's last bits, so a shift makes it 2^n.
    """
    t = _table(a)
    width, bias = (52, 1023) if a.bits == 64 else (23, 127)
    magic = a.c(1.5 * 2.0**width + bias)
    shifted = a.fma(y, a.c(2 * LOG2_E), magic)
    power = a.from_bits(a.integer("shl", a.to_bits(shifted), a.k(width)))
    n = a.sub(shifted, magic)
    r = a.fma(n, a.c(-t.low / 2), a.fma(n, a.c(-t.high / 2), y))
    q = a.poly(r, [c * 2.0 ** (k + 1) for k, c in enumerate(t.q)])
    m = a.fma(a.mul(r, r), q, r)  # (e^2r - 1) / 2
    return a.fma(m, power, a.fma(power, a.c(0.5), a.c(-0.5)))
