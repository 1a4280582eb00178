"""`x ** p`: small whole exponents become products, halves become roots.

    x ** 2   ->  x * x          x ** 0.5  ->  sqrt x        x ** -1  ->  1 / x

Products are faster than `pow`, are exact for negative x, and have a derivative at 0.
"""

from __future__ import annotations

from summand.lang.elementwise import convert, elementwise, weak_scalar
from summand.lang.unsized import Value

_PRODUCTS = 16  # exponents up to here become products


def power(base: Value, exponent: Value | int | float) -> Value:
    """`base ** exponent`."""
    if not isinstance(exponent, (int, float)):
        return elementwise("pow", base, exponent)
    if isinstance(exponent, float) and exponent == 0.5:
        return elementwise("sqrt", base)
    whole = int(exponent) if float(exponent).is_integer() else None
    if whole is None or abs(whole) > _PRODUCTS:
        return elementwise("pow", base, weak_scalar(exponent))
    if isinstance(exponent, float) and not base.dtype.is_inexact:
        base = elementwise("mul", base, weak_scalar(1.0))
    if whole == 0:
        one = convert(weak_scalar(1), base.dtype, base.weak)
        return elementwise("where", elementwise("eq", base, base), one, one)
    if whole < 0:
        return elementwise("div", weak_scalar(1), _product(base, -whole))
    return _product(base, whole)


def _product(base: Value, times: int) -> Value:
    """base multiplied `times` times, by squaring."""
    out: Value | None = None
    square = base
    while True:
        if times & 1:
            out = square if out is None else elementwise("mul", out, square)
        times >>= 1
        if not times:
            return out if out is not None else square
        square = elementwise("mul", square, square)
