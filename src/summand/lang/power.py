"""`x ** p`: small whole exponents become products, halves become roots.

    x ** 2   ->  x * x      x ** 1.5   ->  x * sqrt x       x ** -1   ->  1 / x
    x ** 0.5 ->  sqrt x     x ** -1.5  ->  (rsqrt x) ** 3

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
    halves = 2 * exponent
    if not float(halves).is_integer() or abs(exponent) > _PRODUCTS:
        return elementwise("pow", base, weak_scalar(exponent))
    if isinstance(exponent, float) and not base.dtype.is_inexact:
        base = elementwise("mul", base, weak_scalar(1.0))
    if halves % 2:
        return _of_root(base, int(halves))
    times = int(exponent)
    if times == 0:
        one = convert(weak_scalar(1), base.dtype, base.weak)
        return elementwise("where", elementwise("eq", base, base), one, one)
    if times < 0:
        return elementwise("div", weak_scalar(1), _product(base, -times))
    return _product(base, times)


def _of_root(base: Value, halves: int) -> Value:
    """The root of `base` to an odd power."""
    if halves < 0:
        return _product(elementwise("rsqrt", base), -halves)
    root = elementwise("sqrt", base)
    return root if halves == 1 else elementwise("mul", _product(base, halves // 2), root)


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
