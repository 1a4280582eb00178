"""Scalar ops of complex numbers in terms of real ones.

    (a + ib)(c + id)   ->   ac - bd,  ad + bc
    exp(a + ib)        ->   e^a cos b,  e^a sin b
    |a + ib|           ->   m sqrt(1 + (n/m)²)  with m, n the greater and the lesser of |a|, |b|

Division is Smith's (1962), so that squares do not overflow; branch cuts are NumPy's, but for the
sign of a zero imaginary part, which is taken as positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand.dtypes import DType, bool_, real_part
from summand.errors import InternalError
from summand.ir.builder import Builder
from summand.ir.nodes import Type, Var

Pair = tuple[Var, Var]
_FLAT = 20.0  # tanh is 1 beyond this, to the last bit of f64


def of_complex(b: Builder, parts: Sequence[Var]) -> Pair:
    """Both parts; a real value (a predicate, the argument of convert) is twice itself."""
    return (parts[0], parts[-1])


def complex_map(
    b: Builder, fn: str, args: Sequence[Pair], whole: bool, part: DType, out: Type
) -> list[Var]:
    """The parts of `fn`'s result, or the value if it is real. `whole`: args[0] is complex."""
    if fn == "convert":
        return _convert(b, args[0], whole, part, out)
    if fn == "complex":
        return [args[0][0], args[1][0]]
    if fn == "where":
        pred = args[0][0]
        return [b.map("where", pred, args[1][n], args[2][n]) for n in (0, 1)]
    if fn in _UNARY:
        return list(_UNARY[fn](b, args[0]))
    if fn in _BINARY:
        return list(_BINARY[fn](b, args[0], args[1]))
    if fn in _TO_REAL:
        return [_TO_REAL[fn](b, args[0])]
    if fn in ("eq", "ne"):
        parts = [b.map(fn, args[0][n], args[1][n]) for n in (0, 1)]
        return [b.map("and" if fn == "eq" else "or", *parts)]
    raise InternalError(f"split_complex: no rule for {fn} of complex numbers")


def _convert(b: Builder, z: Pair, whole: bool, part: DType, out: Type) -> list[Var]:
    if not whole:
        return [b.convert(z[0], part), b.constant(0.0, part)]
    if out.dtype is bool_:
        zero = b.constant(0.0, z[0].type.dtype)
        return [b.map("or", b.map("ne", z[0], zero), b.map("ne", z[1], zero))]
    if not out.dtype.is_complex:
        return [b.convert(z[0], out.dtype)]
    return [b.convert(x, real_part(out.dtype)) for x in z]


def _number(b: Builder, value: float, like: Var) -> Var:
    return b.constant(value, like.type.dtype)


# ---- arithmetic


def _each(fn: str) -> Callable[[Builder, Pair], Pair]:
    def rule(b: Builder, z: Pair) -> Pair:
        return b.map(fn, z[0]), b.map(fn, z[1])

    return rule


def _pairwise(fn: str) -> Callable[[Builder, Pair, Pair], Pair]:
    def rule(b: Builder, z: Pair, w: Pair) -> Pair:
        return b.map(fn, z[0], w[0]), b.map(fn, z[1], w[1])

    return rule


def _mul(b: Builder, z: Pair, w: Pair) -> Pair:
    re = b.map("sub", b.map("mul", z[0], w[0]), b.map("mul", z[1], w[1]))
    im = b.map("add", b.map("mul", z[0], w[1]), b.map("mul", z[1], w[0]))
    return re, im


def _div(b: Builder, z: Pair, w: Pair) -> Pair:
    """Divide by the greater part of the divisor first."""
    (x, y), (c, d) = z, w
    flat = b.map("ge", b.map("abs", c), b.map("abs", d))
    big, small = b.map("where", flat, c, d), b.map("where", flat, d, c)
    ratio = b.map("div", small, big)
    below = b.map("add", big, b.map("mul", small, ratio))
    x_ratio, y_ratio = b.map("mul", x, ratio), b.map("mul", y, ratio)
    re = b.map("where", flat, b.map("add", x, y_ratio), b.map("add", x_ratio, y))
    im = b.map("where", flat, b.map("sub", y, x_ratio), b.map("sub", y_ratio, x))
    return b.map("div", re, below), b.map("div", im, below)


def _conj(b: Builder, z: Pair) -> Pair:
    return z[0], b.map("neg", z[1])


def _abs(b: Builder, z: Pair) -> Var:
    x, y = b.map("abs", z[0]), b.map("abs", z[1])
    big, small = b.map("max", x, y), b.map("min", x, y)
    ratio = b.map("div", small, big)
    one = _number(b, 1.0, big)
    root = b.map("sqrt", b.map("add", one, b.map("mul", ratio, ratio)))
    plain = b.map("or", b.map("eq", big, _number(b, 0.0, big)), b.map("isinf", big))
    return b.map("where", plain, big, b.map("mul", big, root))


def _sign(b: Builder, z: Pair) -> Pair:
    size = _abs(b, z)
    zero = b.map("eq", size, _number(b, 0.0, size))
    size = b.map("where", zero, _number(b, 1.0, size), size)
    return b.map("div", z[0], size), b.map("div", z[1], size)


# ---- functions


def _exp(b: Builder, z: Pair) -> Pair:
    size = b.map("exp", z[0])
    return b.map("mul", size, b.map("cos", z[1])), b.map("mul", size, b.map("sin", z[1]))


def _expm1(b: Builder, z: Pair) -> Pair:
    """e^a cos b - 1 = expm1(a) cos b - 2 sin²(b/2), which keeps small values."""
    half = b.map("sin", b.map("mul", z[1], _number(b, 0.5, z[1])))
    lost = b.map("mul", _number(b, 2.0, half), b.map("mul", half, half))
    re = b.map("sub", b.map("mul", b.map("expm1", z[0]), b.map("cos", z[1])), lost)
    return re, b.map("mul", b.map("exp", z[0]), b.map("sin", z[1]))


def _log(b: Builder, z: Pair) -> Pair:
    return b.map("log", _abs(b, z)), b.map("atan2", z[1], z[0])


def _log1p(b: Builder, z: Pair) -> Pair:
    """log|1 + z| = log1p(a(2 + a) + b²)/2."""
    one, two = _number(b, 1.0, z[0]), _number(b, 2.0, z[0])
    square = b.map("mul", z[0], b.map("add", two, z[0]))
    square = b.map("add", square, b.map("mul", z[1], z[1]))
    re = b.map("mul", b.map("log1p", square), _number(b, 0.5, square))
    return re, b.map("atan2", z[1], b.map("add", one, z[0]))


def _sqrt(b: Builder, z: Pair) -> Pair:
    """t = sqrt((|z| + |a|)/2); the other part is b/2t."""
    x, y = z
    zero, half = _number(b, 0.0, x), _number(b, 0.5, x)
    t = b.map("sqrt", b.map("mul", b.map("add", _abs(b, z), b.map("abs", x)), half))
    nothing = b.map("eq", t, zero)
    safe = b.map("where", nothing, half, t)
    other = b.map("div", b.map("mul", y, half), safe)
    right = b.map("ge", x, zero)
    signed = b.map("where", b.map("lt", y, zero), b.map("neg", t), t)
    re = b.map("where", right, t, b.map("abs", other))
    return re, b.map("where", right, other, signed)


def _rsqrt(b: Builder, z: Pair) -> Pair:
    one, zero = _number(b, 1.0, z[0]), _number(b, 0.0, z[0])
    return _div(b, (one, zero), _sqrt(b, z))


def _pow(b: Builder, z: Pair, w: Pair) -> Pair:
    """exp(w log z); 0 to the power 0 is 1, to others 0."""
    re, im = _exp(b, _mul(b, w, _log(b, z)))
    zero, one = _number(b, 0.0, re), _number(b, 1.0, re)
    nothing = b.map("and", b.map("eq", z[0], zero), b.map("eq", z[1], zero))
    power_zero = b.map("and", b.map("eq", w[0], zero), b.map("eq", w[1], zero))
    at_zero = b.map("where", power_zero, one, zero)
    return b.map("where", nothing, at_zero, re), b.map("where", nothing, zero, im)


def _products(first: tuple[str, str], second: tuple[str, str], sign: int) -> Callable[..., Pair]:
    """(f(a) g(b), ± h(a) k(b)): sin, cos, sinh, cosh."""

    def rule(b: Builder, z: Pair) -> Pair:
        re = b.map("mul", b.map(first[0], z[0]), b.map(first[1], z[1]))
        im = b.map("mul", b.map(second[0], z[0]), b.map(second[1], z[1]))
        return re, im if sign > 0 else b.map("neg", im)

    return rule


def _tan(b: Builder, z: Pair) -> Pair:
    """(sin 2a + i sinh 2b) / (cos 2a + cosh 2b)."""
    x, y = _doubled(b, z[0]), _doubled(b, _clipped(b, z[1]))
    below = b.map("add", b.map("cos", x), b.map("cosh", y))
    return b.map("div", b.map("sin", x), below), b.map("div", b.map("sinh", y), below)


def _tanh(b: Builder, z: Pair) -> Pair:
    """(sinh 2a + i sin 2b) / (cosh 2a + cos 2b)."""
    x, y = _doubled(b, _clipped(b, z[0])), _doubled(b, z[1])
    below = b.map("add", b.map("cosh", x), b.map("cos", y))
    return b.map("div", b.map("sinh", x), below), b.map("div", b.map("sin", y), below)


def _doubled(b: Builder, x: Var) -> Var:
    return b.map("add", x, x)


def _clipped(b: Builder, x: Var) -> Var:
    return b.map("max", b.map("min", x, _number(b, _FLAT, x)), _number(b, -_FLAT, x))


def _any_part(fn: str, joined: str) -> Callable[[Builder, Pair], Var]:
    def rule(b: Builder, z: Pair) -> Var:
        return b.map(joined, b.map(fn, z[0]), b.map(fn, z[1]))

    return rule


_UNARY: dict[str, Callable[[Builder, Pair], Pair]] = {
    "neg": _each("neg"),
    "stop_gradient": _each("stop_gradient"),
    "barrier": _each("barrier"),
    "conj": _conj,
    "sign": _sign,
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "sin": _products(("sin", "cosh"), ("cos", "sinh"), 1),
    "cos": _products(("cos", "cosh"), ("sin", "sinh"), -1),
    "sinh": _products(("sinh", "cos"), ("cosh", "sin"), 1),
    "cosh": _products(("cosh", "cos"), ("sinh", "sin"), 1),
    "tan": _tan,
    "tanh": _tanh,
}
_BINARY: dict[str, Callable[[Builder, Pair, Pair], Pair]] = {
    "add": _pairwise("add"),
    "sub": _pairwise("sub"),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
}
_TO_REAL: dict[str, Callable[[Builder, Pair], Var]] = {
    "abs": _abs,
    "real": lambda b, z: z[0],
    "imag": lambda b, z: z[1],
    "isnan": _any_part("isnan", "or"),
    "isinf": _any_part("isinf", "or"),
    "isfinite": _any_part("isfinite", "and"),
}
