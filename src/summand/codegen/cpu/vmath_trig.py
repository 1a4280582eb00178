"""sin, cos, tan in registers.

x = n·π/2 + r with |r| <= π/4 (Cody and Waite, π/2 in three or four parts), then a polynomial
of sin r or cos r, by the quadrant n mod 4. Where any lane is too large for that, a branch reduces
all lanes with as many bits of 2/π as they need (Payne and Hanek 1983): see the note at the foot.
"""

from __future__ import annotations

from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Int, Unit, Value, literal
from summand.dtypes import f64

TWO_OVER_PI = 0.6366197723675814
HALF_PI = 1.5707963267948966

# π/2 in parts: full floats where multiply-add is fused, else short ones, so that n times one is
# exact. All are positive, which keeps the sign of -0.
_PARTS: dict[tuple[int, bool], tuple[float, ...]] = {
    (32, True): (1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15),
    (32, False): (1.5703125, 0.00048351287841796875, 3.1385570764541626e-07, 6.07710062827671e-11),
    (64, True): (1.5707963267948966, 6.123233995736765e-17, 1.0828566739219139e-32),
    (64, False): (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21),
}
_LIMITS = {(32, True): 1e5, (32, False): 4e4, (64, True): 2.0**30, (64, False): 5e5}

# sin r = r + r³·s(r²), cos r = 1 - r²/2 + r⁴·c(r²)
_SIN_F32 = (-0.1666665347435935, 0.008332083554796567, -0.00019504323869667277)
_COS_F32 = (0.04166664440692956, -0.0013887243514351224, 2.4423936054658182e-05)
_SIN_F64 = (
    -0.16666666666666666,
    0.00833333333333332,
    -0.00019841269841251936,
    2.755731921256023e-06,
    -2.5052104486327423e-08,
    1.6058312438843954e-10,
    -7.576014064961985e-13,
)
_COS_F64 = (
    0.04166666666666658,
    -0.0013888888888870924,
    2.4801587287425412e-05,
    -2.755731374403781e-07,
    2.087563897602988e-09,
    -1.1355213110769948e-11,
)

# 2/π in pieces of 24 bits.
_PIECES = (
    10680707, 7228996, 1387004, 2578385, 16069853, 12639074, 9804092, 4427841, 16666979, 11263675,
    12935607, 2387514, 4345298, 14681673, 3074569, 13734428, 16653803, 1880361, 10960616, 8533493,
    3062596, 8710556, 7349940, 6258241, 3772886, 3769171, 3798172, 8675211, 12450088, 3874808,
    9961438, 366607, 15675153, 9132554, 7151469, 3571407, 2607881, 12013382, 4155038, 6285869,
    7677882, 13102053, 15825725, 473591, 9065106, 15363067, 6271263, 9264392,
)  # fmt: skip
_SHIFT = 200  # powers of two moved from x to the pieces, so that none of these is denormal


def sin(a: Arith, x: Value) -> Value:
    """sin x; NaN for ±inf."""
    quadrant, s, c = _both(a, x)
    return _of_quadrant(a, quadrant, s, c)


def cos(a: Arith, x: Value) -> Value:
    """cos x; NaN for ±inf."""
    quadrant, s, c = _both(a, x)
    return _of_quadrant(a, a.integer("add", quadrant, a.k(1)), s, c)


def tan(a: Arith, x: Value) -> Value:
    """tan x; NaN for ±inf."""
    quadrant, s, c = _both(a, x)
    odd = _bit(a, quadrant, 1)
    top, bottom = a.select(odd, c, s), a.select(odd, s, c)
    sign = a.integer("shl", quadrant, a.k(a.bits - 1))
    return _flip(a, a.div(top, bottom), sign)


def _both(a: Arith, x: Value) -> tuple[Value, Value, Value]:
    """The quadrant, and sin r and cos r."""
    quadrant, r = _reduce(a, x)
    z = a.mul(r, r)
    s = a.fma(a.mul(z, r), a.poly(z, _SIN_F64 if a.bits == 64 else _SIN_F32), r)
    tail = a.mul(a.mul(z, z), a.poly(z, _COS_F64 if a.bits == 64 else _COS_F32))
    half = a.mul(z, a.c(0.5))
    whole = a.sub(a.c(1.0), half)
    lost = a.sub(a.sub(a.c(1.0), whole), half)
    s = a.copysign(s, r)  # for -0
    return quadrant, s, a.add(whole, a.add(lost, tail))


def _of_quadrant(a: Arith, quadrant: Value, s: Value, c: Value) -> Value:
    value = a.select(_bit(a, quadrant, 1), c, s)
    sign = a.integer("shl", a.integer("lshr", quadrant, a.k(1)), a.k(a.bits - 1))
    return _flip(a, value, sign)


def _bit(a: Arith, quadrant: Value, bit: int) -> Value:
    return a.icompare("ne", a.integer("and", quadrant, a.k(bit)), a.k(0))


def _flip(a: Arith, value: Value, sign: Value) -> Value:
    return a.from_bits(a.integer("xor", a.to_bits(value), sign))


def _reduce(a: Arith, x: Value) -> tuple[Value, Value]:
    """n mod 4 in an integer's last bits, and r.

    Adding 1.5·2^width rounds to an integer and leaves it in the last bits; n is never -0, so that
    r keeps the sign of -0.
    """
    magic = a.c(1.5 * 2.0 ** (52 if a.bits == 64 else 23))
    shifted = a.fma(x, a.c(TWO_OVER_PI), magic)
    n = a.sub(shifted, magic)
    r = x
    for part in _PARTS[a.bits, a.fused]:
        r = a.fma(n, a.c(-part), r)
    large = a.inverse(a.compare("ole", a.abs(x), a.c(_LIMITS[a.bits, a.fused])))
    carried = [a.to_bits(shifted), r]
    quadrant, r = a.fn.when(_any(a, large), carried, lambda c: _reduce_large(a, x, large, *c))
    return Value(quadrant.name, a.int), Value(r.name, a.type, a.dtype)


def _any(a: Arith, mask: Value) -> Value:
    if a.lanes == 1:
        return mask
    return a.fn.call(f"llvm.vector.reduce.or.v{a.lanes}i1", "i1", [mask])


def _reduce_large(a: Arith, x: Value, large: Value, quadrant: Value, r: Value) -> list[Value]:
    """Replace the quadrant and r of the large lanes."""
    wide = Arith(a.fn, f64, a.lanes)
    whole, rest = _payne_hanek(
        wide, a.fn.cast("fpext", x, wide.type, f64), 48 if a.bits == 64 else 9
    )
    exact = a.fn.cast("fptrunc", rest, a.type, a.dtype)
    bits = a.fn.cast("trunc", wide.to_bits(whole), a.int)
    return [a.select(large, bits, quadrant), a.select(large, exact, r)]


def _payne_hanek(a: Arith, x: Value, count: int) -> tuple[Value, Value]:
    """The quadrant (in the last bits of a float) and r of any finite f64; NaN for the others."""
    small = a.mul(x, a.c(2.0**-_SHIFT))
    high = a.from_bits(a.integer("and", a.to_bits(small), a.k(-(1 << 27))))
    low = a.sub(small, high)
    table = Value(_table(a.fn.unit), "ptr")

    def step(index: Int, carried: list[Value]) -> list[Value]:
        one = a.fn.op(f"load double, ptr {a.fn.at(table, index, 'double')}, align 8", "double", f64)
        piece = a.fn.splat(one, a.lanes)
        state = _accumulate(a, a.mul(high, piece), *carried)
        return _accumulate(a, a.mul(low, piece), *state)

    zero = a.c(0.0)
    total, lost, quadrant = a.fn.loop(0, count, 1, [zero, zero, zero], step)
    r = a.fma(
        total, a.c(HALF_PI), a.fma(total, a.c(6.123233995736766e-17), a.mul(lost, a.c(HALF_PI)))
    )
    return a.add(quadrant, a.c(1.5 * 2.0**52)), r


def _accumulate(a: Arith, product: Value, total: Value, lost: Value, whole: Value) -> list[Value]:
    """Add product mod 4 to total + lost, and move what is whole to `whole`."""
    fours = a.nearest(a.mul(product, a.c(0.25)))
    part = a.sub(product, a.mul(fours, a.c(4.0)))
    added = a.add(total, part)
    back = a.sub(added, total)
    error = a.add(a.sub(total, a.sub(added, back)), a.sub(part, back))
    n = a.nearest(added)
    return [a.sub(added, n), a.add(lost, error), a.add(whole, n)]


def _table(unit: Unit) -> str:
    name = "summand_two_over_pi"
    if not unit.has(name):
        scaled = [p * 2.0 ** (_SHIFT - 24 * (k + 1)) for k, p in enumerate(_PIECES)]
        items = ", ".join(f"double {literal(v, 'double')}" for v in scaled)
        unit.define(name, f"@{name} = internal constant [{len(scaled)} x double] [{items}]")
    return f"@{name}"


# Large arguments. x·2/π mod 4 is the sum of x·piece mod 4. x is split in parts of 26 and 27 bits,
# so each product with a piece of 24 bits is exact, its remainder modulo 4 is exact, and pieces so
# far up that their product is a multiple of 4 add nothing. The sum is kept with its rounding
# errors; f32 needs the first 9 pieces (128 + 24 + 60 bits), f64 all 48 (1024 + 53 + 75).
