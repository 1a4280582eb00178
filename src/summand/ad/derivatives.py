"""Derivatives of the scalar ops: for each argument, how a small change of it moves the result.

    mul(a, b):  by a:  x -> x · b        by b:  x -> x · a

Each entry is a linear function of a tangent `x`. Multiplication by a number is its own transpose,
so most entries serve forward and reverse mode alike; the few that are not (parts of complex
numbers, conversions) are a pair. Complex cotangents follow JAX: the pairing is Re(Σ a·b), without
conjugation. Where two arguments of `max` or `min` tie, the first is the selected one (a constant
goes before a variable).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from summand.errors import DerivativeError, layout
from summand.ir.builder import Builder
from summand.ir.nodes import Scalar, Var


@dataclass(frozen=True, slots=True)
class Site:
    """Where a derivative is taken: arguments, result (made on demand), known constants."""

    b: Builder
    args: tuple[Var, ...]
    result: Callable[[], Var]
    constant_of: Callable[[Var], Scalar | None]

    @property
    def out(self) -> Var:
        """The op's result at these arguments."""
        return self.result()

    def number(self, value: float, like: Var) -> Var:
        """A constant of the same element type as `like`."""
        return self.b.constant(value, like.type.dtype)

    def map(self, fn: str, *args: Var | float) -> Var:
        """A scalar op; Python numbers take the type of the first array among the arguments."""
        like = next(a for a in args if isinstance(a, Var))
        return self.b.map(fn, *(a if isinstance(a, Var) else self.number(a, like) for a in args))


Linear = Callable[[Site, Var], Var]


@dataclass(frozen=True, slots=True)
class Partial:
    """Derivative by one argument: `push` moves tangents forward, `pull` moves cotangents back."""

    push: Linear
    pull: Linear
    after: Linear | None = None  # the rest of `pull`, once dims that the argument lacks are summed


def _both(scale: Linear) -> Partial:
    return Partial(scale, scale)


def _same(s: Site, x: Var) -> Var:
    return x


def _minus(s: Site, x: Var) -> Var:
    return s.map("neg", x)


def _selects_first(weak: str, strict: str) -> tuple[Partial, Partial]:
    """Derivatives of max ("ge", "gt") and min: the change goes to the selected argument. Of equals
    that is the first, but a constant before a variable: the slope of max(x, 0) at 0 is 0."""

    def chosen(s: Site) -> Var:
        fixed = s.constant_of(s.args[1]) is not None
        return s.map(strict if fixed else weak, *s.args)

    def first(s: Site, x: Var) -> Var:
        return s.map("where", chosen(s), x, s.number(0, x))

    def second(s: Site, x: Var) -> Var:
        return s.map("where", chosen(s), s.number(0, x), x)

    return _both(first), _both(second)


def _where_first(s: Site, x: Var) -> Var:
    return s.map("where", s.args[0], x, s.number(0, x))


def _where_second(s: Site, x: Var) -> Var:
    return s.map("where", s.args[0], s.number(0, x), x)


def _div_first(s: Site, x: Var) -> Var:
    below = s.args[1]
    if below.type.names < x.type.names:  # few divisions and many products
        return s.map("mul", x, s.map("div", s.number(1, below), below))
    return s.map("div", x, below)


def _times_quotient(s: Site, x: Var) -> Var:
    return s.map("mul", x, s.out)


def _over_divisor(s: Site, x: Var) -> Var:
    return s.map("neg", s.map("div", x, s.args[1]))


def _div_second(s: Site, x: Var) -> Var:
    return _over_divisor(s, _times_quotient(s, x))


def _mod_second(s: Site, x: Var) -> Var:
    return s.map("neg", s.map("mul", x, s.map("floordiv", *s.args)))


def _pow_base(s: Site, x: Var) -> Var:
    base, exponent = s.args
    known = s.constant_of(exponent)
    if known == 1:
        return x
    if known == 2:
        return s.map("mul", x, s.map("add", base, base))
    if isinstance(known, int | float) and known != 0:
        slope = s.map("mul", s.map("pow", base, float(known) - 1), float(known))
        return s.map("mul", x, slope)
    # x^0 is 1 everywhere, so its slope is 0 at 0 as well, where 0 · 0^-1 would be NaN
    flat = s.map("eq", exponent, 0.0)
    lower = s.map("where", flat, s.number(1, exponent), s.map("sub", exponent, 1.0))
    slope = s.map("mul", exponent, s.map("pow", base, lower))
    return s.map("mul", x, s.map("where", flat, s.number(0, slope), slope))


def _pow_exponent(s: Site, x: Var) -> Var:
    base = s.args[0]
    zero = s.map("eq", base, 0.0)
    log = s.map("log", s.map("where", zero, s.number(1, base), base))
    return s.map("mul", x, s.map("mul", log, s.out))


def _atan2(sign: int) -> Partial:
    def scale(s: Site, x: Var) -> Var:
        other = s.args[1] if sign > 0 else s.map("neg", s.args[0])
        square = s.map("add", *(s.map("mul", a, a) for a in s.args))
        return s.map("mul", x, s.map("div", other, square))

    return _both(scale)


def _complex_slope(s: Site) -> Var:
    """conj(z)/|z|, and 0 at 0: the direction in which |z| grows."""
    (z,) = s.args
    size = s.out
    zero = s.map("eq", size, 0.0)
    safe = s.map("where", zero, s.number(1, size), size)
    return s.map("div", s.map("conj", z), s.b.convert(safe, z.type.dtype))


def _abs_push(s: Site, x: Var) -> Var:
    (z,) = s.args
    if not z.type.dtype.is_complex:
        return s.map("mul", x, s.map("sign", z))
    return s.map("real", s.map("mul", x, _complex_slope(s)))


def _abs_pull(s: Site, x: Var) -> Var:
    (z,) = s.args
    if not z.type.dtype.is_complex:
        return s.map("mul", x, s.map("sign", z))
    return s.map("mul", s.b.convert(x, z.type.dtype), _complex_slope(s))


def _sign(s: Site, x: Var) -> Var:
    if s.args[0].type.dtype.is_complex:
        raise DerivativeError(
            layout("the sign of a complex number has no derivative here", [], "Write z / abs(z).")
        )
    return s.number(0, x)


def _sqrt(s: Site, x: Var) -> Var:
    return s.map("div", s.map("mul", x, 0.5), s.out)


def _rsqrt(s: Site, x: Var) -> Var:
    out = s.out
    return s.map("mul", s.map("mul", x, -0.5), s.map("mul", out, s.map("mul", out, out)))


def _tan(s: Site, x: Var) -> Var:
    return s.map("mul", x, s.map("add", s.map("mul", s.out, s.out), 1.0))


def _one_minus_square(s: Site, v: Var) -> Var:
    return s.map("sub", s.number(1, v), s.map("mul", v, v))


def _asin(s: Site, x: Var) -> Var:
    return s.map("mul", x, s.map("rsqrt", _one_minus_square(s, s.args[0])))


def _acos(s: Site, x: Var) -> Var:
    return s.map("neg", _asin(s, x))


def _atan(s: Site, x: Var) -> Var:
    (a,) = s.args
    return s.map("div", x, s.map("add", s.map("mul", a, a), 1.0))


def _erf(s: Site, x: Var) -> Var:
    (a,) = s.args
    bell = s.map("exp", s.map("neg", s.map("mul", a, a)))
    return s.map("mul", x, s.map("mul", bell, 2 / math.sqrt(math.pi)))


def _real_push(s: Site, x: Var) -> Var:
    return s.map("real", x)


def _real_pull(s: Site, x: Var) -> Var:
    return s.b.convert(x, s.args[0].type.dtype)


def _imag_push(s: Site, x: Var) -> Var:
    return s.map("imag", x)


def _imag_pull(s: Site, x: Var) -> Var:
    if not s.args[0].type.dtype.is_complex:
        return s.number(0, x)
    return s.map("complex", s.number(0, x), s.map("neg", x))


def _conj(s: Site, x: Var) -> Var:
    return s.map("conj", x)


def _real_of_complex(s: Site, x: Var) -> Var:
    return s.map("complex", x, s.number(0, x))


def _imag_of_complex(s: Site, x: Var) -> Var:
    return s.map("complex", s.number(0, x), x)


def _pull_imag_of_complex(s: Site, x: Var) -> Var:
    return s.map("neg", s.map("imag", x))


def _convert_push(s: Site, x: Var) -> Var:
    return s.b.convert(x, s.out.type.dtype)


def _convert_pull(s: Site, x: Var) -> Var:
    source = s.args[0].type.dtype
    if x.type.dtype.is_complex and not source.is_complex:
        x = s.map("real", x)
    return s.b.convert(x, source)


def _times(slope: Callable[[Site], Var]) -> Partial:
    """Multiplication by a slope that is computed from the arguments and the result."""
    return _both(lambda s, x: s.map("mul", x, slope(s)))


# One entry for each argument; None where the result does not change with it.
DERIVATIVES: dict[str, tuple[Partial | None, ...]] = {
    "add": (_both(_same), _both(_same)),
    "sub": (_both(_same), _both(_minus)),
    "mul": (_times(lambda s: s.args[1]), _times(lambda s: s.args[0])),
    "div": (_both(_div_first), Partial(_div_second, _times_quotient, _over_divisor)),
    "mod": (_both(_same), _both(_mod_second)),
    "pow": (_both(_pow_base), _both(_pow_exponent)),
    "max": _selects_first("ge", "gt"),
    "min": _selects_first("le", "lt"),
    "atan2": (_atan2(1), _atan2(-1)),
    "neg": (_both(_minus),),
    "abs": (Partial(_abs_push, _abs_pull),),
    "sign": (_both(_sign),),
    "exp": (_times(lambda s: s.out),),
    "expm1": (_times(lambda s: s.map("add", s.out, 1.0)),),
    "log": (_both(lambda s, x: s.map("div", x, s.args[0])),),
    "log1p": (_both(lambda s, x: s.map("div", x, s.map("add", s.args[0], 1.0))),),
    "sqrt": (_both(_sqrt),),
    "rsqrt": (_both(_rsqrt),),
    "sin": (_times(lambda s: s.map("cos", s.args[0])),),
    "cos": (_times(lambda s: s.map("neg", s.map("sin", s.args[0]))),),
    "tan": (_both(_tan),),
    "asin": (_both(_asin),),
    "acos": (_both(_acos),),
    "atan": (_both(_atan),),
    "sinh": (_times(lambda s: s.map("cosh", s.args[0])),),
    "cosh": (_times(lambda s: s.map("sinh", s.args[0])),),
    "tanh": (_times(lambda s: _one_minus_square(s, s.out)),),
    "erf": (_both(_erf),),
    "where": (None, _both(_where_first), _both(_where_second)),
    "real": (Partial(_real_push, _real_pull),),
    "imag": (Partial(_imag_push, _imag_pull),),
    "conj": (_both(_conj),),
    "complex": (
        Partial(_real_of_complex, _real_push),
        Partial(_imag_of_complex, _pull_imag_of_complex),
    ),
    "convert": (Partial(_convert_push, _convert_pull),),
    "barrier": (_both(_same),),
}

# Ops without a derivative: their results are booleans or integers, or are constant between jumps.
ZERO: frozenset[str] = frozenset(
    (
        *("floordiv", "floor", "ceil", "round", "trunc", "isnan", "isinf", "isfinite", "ordinal"),
        *("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "xor", "not", "shl", "shr"),
        "stop_gradient",
    )
)


def partials(fn: str, arity: int) -> tuple[Partial | None, ...]:
    """The derivative by each argument of a scalar op."""
    return (None,) * arity if fn in ZERO else DERIVATIVES[fn]
