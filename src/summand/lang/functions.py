"""Elementwise functions: `sm.exp(x)`, `sm.where(p, a, b)`, `sm.minimum(a, b)`, …

Operands are arrays, dims and Python numbers; the result has the union of their dims. Integers
become f32 where a function is of floats. Corner cases are NumPy's.
"""

from __future__ import annotations

import math

from summand.lang.array import Array, Number, apply, exponent, operand, wrap
from summand.lang.elementwise import elementwise, weak_scalar
from summand.lang.power import power

X = Array | Number


def exp(x: X) -> Array:
    """e to the x."""
    return apply("exp", x)


def expm1(x: X) -> Array:
    """exp(x) - 1, exact for small x."""
    return apply("expm1", x)


def log(x: X) -> Array:
    """The natural logarithm; -inf at 0, NaN below."""
    return apply("log", x)


def log1p(x: X) -> Array:
    """log(1 + x), exact for small x."""
    return apply("log1p", x)


def sqrt(x: X) -> Array:
    """The square root; NaN below 0."""
    return apply("sqrt", x)


def rsqrt(x: X) -> Array:
    """1 / sqrt(x)."""
    return apply("rsqrt", x)


def sin(x: X) -> Array:
    """Sine, of radians."""
    return apply("sin", x)


def cos(x: X) -> Array:
    """Cosine, of radians."""
    return apply("cos", x)


def tan(x: X) -> Array:
    """Tangent, of radians."""
    return apply("tan", x)


def sinh(x: X) -> Array:
    """Hyperbolic sine."""
    return apply("sinh", x)


def cosh(x: X) -> Array:
    """Hyperbolic cosine."""
    return apply("cosh", x)


def tanh(x: X) -> Array:
    """Hyperbolic tangent."""
    return apply("tanh", x)


def erf(x: X) -> Array:
    """The error function."""
    return apply("erf", x)


def floor(x: X) -> Array:
    """The greatest integer <= x, as a float."""
    return apply("floor", x)


def ceil(x: X) -> Array:
    """The least integer >= x, as a float."""
    return apply("ceil", x)


def round(x: X) -> Array:
    """The nearest integer, halves to even, as a float."""
    return apply("round", x)


def trunc(x: X) -> Array:
    """The integer part, as a float."""
    return apply("trunc", x)


def isnan(x: X) -> Array:
    """True where x is NaN."""
    return apply("isnan", x)


def isinf(x: X) -> Array:
    """True where x is infinite."""
    return apply("isinf", x)


def isfinite(x: X) -> Array:
    """True where x is neither infinite nor NaN."""
    return apply("isfinite", x)


def sign(x: X) -> Array:
    """-1, 0 or 1; NaN stays."""
    return apply("sign", x)


def abs(x: X) -> Array:
    """The absolute value; of complex numbers, the magnitude."""
    return apply("abs", x)


def asin(x: X) -> Array:
    """Inverse sine."""
    return apply("asin", x)


def acos(x: X) -> Array:
    """Inverse cosine."""
    return apply("acos", x)


def atan(x: X) -> Array:
    """Inverse tangent."""
    return apply("atan", x)


def logical_not(x: X) -> Array:
    """Not, of truth values; bits of integers."""
    return apply("not", x)


def maximum(a: X, b: X) -> Array:
    """The greater; NaN where either is."""
    return apply("max", a, b)


def minimum(a: X, b: X) -> Array:
    """The lesser; NaN where either is."""
    return apply("min", a, b)


def atan2(y: X, x: X) -> Array:
    """The angle of the point (x, y)."""
    return apply("atan2", y, x)


def logical_and(a: X, b: X) -> Array:
    """And, of truth values; bits of integers."""
    return apply("and", a, b)


def logical_or(a: X, b: X) -> Array:
    """Or, of truth values; bits of integers."""
    return apply("or", a, b)


def complex(a: X, b: X) -> Array:
    """A complex number from its real and imaginary parts."""
    return apply("complex", a, b)


def pow(x: X, p: X) -> Array:
    """x to the p; whole p up to 16 become products."""
    return wrap(power(operand(x), exponent(p)))


def where(condition: X, a: X, b: X) -> Array:
    """`a` where the condition holds, else `b`; a number as condition holds where it is not 0."""
    return apply("where", condition, a, b)


def square(x: X) -> Array:
    """x * x."""
    return apply("mul", x, x)


def relu(x: X) -> Array:
    """max(x, 0)."""
    return apply("max", x, 0)


def sigmoid(x: X) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    half = apply("mul", x, 0.5)
    return apply("add", apply("mul", tanh(half), 0.5), 0.5)


def softplus(x: X) -> Array:
    """log(1 + exp(x)), without overflow."""
    return logaddexp(x, 0.0)


def silu(x: X) -> Array:
    """x * sigmoid(x)."""
    return apply("mul", x, sigmoid(x))


def gelu(x: X) -> Array:
    """x · Φ(x), exact (by erf). Source: Hendrycks & Gimpel 2016, arXiv:1606.08415."""
    cdf = apply("mul", apply("add", erf(apply("mul", x, math.sqrt(0.5))), 1.0), 0.5)
    return apply("mul", x, cdf)


def logaddexp(a: X, b: X) -> Array:
    """log(exp(a) + exp(b)), without overflow; -inf with -inf gives -inf."""
    value_a, value_b = operand(a), operand(b)
    top = elementwise("max", value_a, value_b)
    gap = elementwise("neg", elementwise("abs", elementwise("sub", value_a, value_b)))
    # Equal infinities differ by NaN; there, and there only, the sum is the greater of the two.
    smooth = elementwise("add", top, elementwise("log1p", elementwise("exp", gap)))
    equal = elementwise("eq", value_a, value_b)
    infinite = elementwise("and", equal, elementwise("isinf", top))
    return wrap(elementwise("where", infinite, top, smooth))


def clip(x: X, low: X | None = None, high: X | None = None) -> Array:
    """x moved into low … high; None leaves a side open."""
    out = operand(x)
    if low is not None:
        out = elementwise("max", out, operand(low))
    if high is not None:
        out = elementwise("min", out, operand(high))
    return wrap(out)


def isclose(a: X, b: X, rtol: float = 1e-5, atol: float = 1e-8) -> Array:
    """|a - b| <= atol + rtol·|b|, or equal (infinities of one sign)."""
    value_a, value_b = operand(a), operand(b)
    gap = elementwise("abs", elementwise("sub", value_a, value_b))
    scaled = elementwise("mul", elementwise("abs", value_b), weak_scalar(rtol))
    near = elementwise("le", gap, elementwise("add", scaled, weak_scalar(atol)))
    finite = elementwise("isfinite", value_b)
    equal = elementwise("eq", value_a, value_b)
    return wrap(elementwise("or", equal, elementwise("and", near, finite)))


def stop_gradient(x: X) -> Array:
    """x, whose derivative is zero."""
    return apply("stop_gradient", x)
