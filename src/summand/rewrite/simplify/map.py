"""Algebra of scalar ops.

    x + 0 -> x      x * 1 -> x      x / 4 -> x * 0.25      neg (neg x) -> x      2 * 3 -> 6
    2 * (x * 3 * y) -> 6 * x * y              x{i,j} / y{i} -> x * (1 / y)
    a{i} * (b{i} * x{i,j}) -> (a * b) * x     x + x -> 2 * x
    where(p, where(p, a, b), c) -> where(p, a, c)          convert back and forth -> nothing
    spread(a) * b -> a * b          where b has the dims that a was spread over
    exp(spread(a)) -> spread(exp(a))

Floats keep their value up to rounding and the sign of zero: only factors are reassociated, and a
divisor that many numbers share becomes a factor, unless the quotient is rounded to a whole number.
NaN and infinity stay where they are, but that a reciprocal or a product of factors may overflow
where the whole would not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from summand.dtypes import DType, bool_, widen
from summand.ir.nodes import Map, Scalar, Type, Var
from summand.ir.scalars import apply, scalar
from summand.rewrite.simplify.scatter import sum_of_scatters
from summand.rewrite.simplify.smart import Smart
from summand.rewrite.simplify.types import conj, convert, part
from summand.rewrite.simplify.where import filled

Rule = Callable[[Smart, tuple[Var, ...], Type], Var | None]
_MIDDLE = (1e-30, 1e30)  # products of constants in here neither overflow nor lose bits in f32
_NEVER_FOLDED = ("barrier", "stop_gradient")


def simple_map(new: Smart, op: Map, type_: Type) -> Var | None:
    """What stands for the map, or None where no rule fits."""
    if op.fn in _NEVER_FOLDED:
        return None
    folded = _folded(new, op, type_)
    if folded is not None:
        return folded
    peeled = _peeled(new, op, type_)
    if peeled is not None:
        return peeled
    rule = _RULES.get(op.fn)
    value = rule(new, op.args, type_) if rule else None
    return _only_value(new, op, type_) if value is None else value


def _only_value(new: Smart, op: Map, type_: Type) -> Var | None:
    """Integers that can have one value only, as x mod 1."""
    if not type_.dtype.is_integer or _is_spread(op):
        return None
    found = new.facts.range_of(op, type_)
    if found is None or found[0] != found[1]:
        return None
    return new.spread_number(found[0], type_)


def _folded(new: Smart, op: Map, type_: Type) -> Var | None:
    """An op of constants. Where they were spread over dims, so is the result."""
    numbers = [new.number(a) for a in op.args]
    values = [v for v in numbers if v is not None]
    if len(values) < len(numbers) or (type_.dims and _is_spread(op)):
        return None
    types = [a.type.dtype for a in op.args]
    arrays = [scalar(v, t) for v, t in zip(values, types, strict=True)]
    result = widen(apply(op.fn, arrays, types, type_.dtype), type_.dtype)
    return new.spread_number(result.item(), type_)


def _is_spread(op: Map) -> bool:
    return op.fn == "where" and op.args[1] == op.args[2]


def _peeled(new: Smart, op: Map, type_: Type) -> Var | None:
    """Operands that were spread are used as they were, and the result is spread if it must be."""
    if _is_spread(op) or not type_.dims:
        return None
    args = tuple(new.peeled(a) for a in op.args)
    if args == op.args:
        return None
    return new.spread(new.map(op.fn, *args, dtype=type_.dtype), type_.sizes)


# ---- numbers


def _is(new: Smart, var: Var, value: float) -> bool:
    number = new.number(var)
    return number is not None and number == value


def _exact_reciprocal(value: Scalar, dtype: DType) -> float | None:
    """1 / value where `value` is a power of two that has a reciprocal in every float type."""
    if not dtype.is_float or isinstance(value, complex) or not math.isfinite(value):
        return None
    mantissa, exponent = math.frexp(value)
    return 1.0 / value if abs(mantissa) == 0.5 and abs(exponent) < 14 else None


def _add(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    a, b = args
    if _is(new, a, 0):
        return b
    if _is(new, b, 0):
        return a
    if negated := new.map_of(b, "neg"):
        return new.map("sub", a, negated[0])
    if negated := new.map_of(a, "neg"):
        return new.map("sub", b, negated[0])
    if a == b and type_.dtype.is_float:  # a factor 2 meets other constants, and leaves sums
        return new.map("mul", a, new.constant(2.0, type_.dtype))
    return sum_of_scatters(new, a, b, type_)


def _sub(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    a, b = args
    if _is(new, b, 0):
        return a
    if _is(new, a, 0):
        return new.spread(new.map("neg", b), type_.sizes)
    if negated := new.map_of(b, "neg"):
        return new.map("add", a, negated[0])
    if (negated := new.map_of(a, "neg")) and new.is_read_once(a):
        return new.map("neg", new.map("add", negated[0], b))
    if a == b and type_.dtype.is_integer:
        return new.spread_number(0, type_)
    return None


def _mul(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    a, b = args
    if new.number(a) is not None:
        a, b = b, a
    factor = new.number(b)
    if factor is not None:
        return _scaled(new, a, b, factor, type_)
    left, right = new.map_of(a, "neg"), new.map_of(b, "neg")
    if left and right:
        return new.map("mul", left[0], right[0])
    for negated, other, whole in ((left, b, a), (right, a, b)):
        if negated and whole.type.names == type_.names:  # the sign may leave a sum further on
            return new.map("neg", new.map("mul", negated[0], other))
    return _small_first(new, a, b, type_)


def _small_first(new: Smart, a: Var, b: Var, type_: Type) -> Var | None:
    """Factors of few dims are multiplied with each other before the one that has all dims."""
    if type_.dtype.is_inexact and type_.dtype.bits == 16:
        return None
    for small, product in ((a, b), (b, a)):
        inner = new.map_of(product, "mul")
        if inner is None or not new.is_read_once(product):
            continue
        for factor, rest in (inner, inner[::-1]):
            whole = rest.type.names == type_.names
            if whole and small.type.names | factor.type.names < type_.names:
                return new.map("mul", new.map("mul", small, factor), rest)
    return None


def _scaled(new: Smart, a: Var, b: Var, factor: Scalar, type_: Type) -> Var | None:
    if factor == 1:
        return a
    if factor == -1 and type_.dtype.kind != "uint":
        return new.spread(new.map("neg", a), type_.sizes)
    if factor == 0 and type_.dtype.is_integer:
        return new.spread_number(0, type_)
    constant = new.peeled(b)
    if negated := new.map_of(a, "neg"):
        return new.map("mul", negated[0], new.map("neg", constant))
    narrow = type_.dtype.is_inexact and type_.dtype.bits == 16  # rounded after each product
    return None if narrow else _absorbed(new, a, constant, factor)


def _absorbed(new: Smart, product: Var, constant: Var, factor: Scalar) -> Var | None:
    """`product` times a constant, where one of its factors is a constant already."""
    args = new.map_of(product, "mul")
    if args is None:
        return None
    for a, other in (args, args[::-1]):
        number = new.number(a)
        if number is None:
            continue
        both = number * factor
        plain = isinstance(both, int) or _MIDDLE[0] < abs(both) < _MIDDLE[1]
        return new.map("mul", other, new.map("mul", new.peeled(a), constant)) if plain else None
    if not new.is_read_once(product):
        return None
    for a, other in (args, args[::-1]):
        value = _absorbed(new, a, constant, factor) if new.is_read_once(a) else None
        if value is not None:
            return new.map("mul", value, other)
    return None


def _div(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    a, b = args
    by = new.number(b)
    if by is None:
        return None if new.keep_quotient else _by_reciprocal(new, a, b, type_)
    if by == 1:
        return a
    exact = _exact_reciprocal(by, type_.dtype)
    return None if exact is None else new.map("mul", a, new.constant(exact, type_.dtype))


def _by_reciprocal(new: Smart, a: Var, b: Var, type_: Type) -> Var | None:
    """Many numbers divided by the same one are multiplied by its reciprocal."""
    inverse = new.reciprocals.get(b)
    if inverse is not None and new.number(a) is None:
        return new.map("mul", a, inverse)
    wide = type_.dtype.is_float and type_.dtype.bits > 16
    if not wide or b.type.names >= type_.names:
        return None
    return new.map("mul", a, new.map("div", new.constant(1.0, type_.dtype), b))


_GRID = ("floor", "ceil", "trunc", "round", "floordiv", "mod", "eq", "ne")


def needs_exact(op: Map, out: Type) -> bool:
    """True of ops that turn the last bit of an operand into a whole step: floor(6 / 3) is 2."""
    to_integer = op.fn == "convert" and out.dtype.is_integer
    return to_integer or (op.fn in _GRID and op.args[0].type.dtype.is_inexact)


def _floordiv(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    return args[0] if type_.dtype.is_integer and _is(new, args[1], 1) else None


def _neg(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    if inner := new.map_of(args[0], "neg"):
        return inner[0]
    if inner := new.map_of(args[0], "sub"):
        return new.map("sub", inner[1], inner[0]) if new.is_read_once(args[0]) else None
    inner = new.map_of(args[0], "mul")
    if inner and type_.dtype.is_float and new.is_read_once(args[0]):
        for factor, other in (inner, inner[::-1]):
            if new.number(factor) is not None:
                return new.map("mul", other, new.map("neg", new.peeled(factor)))
    return None


def _pow(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    return args[0] if _is(new, args[1], 1) else None


def _extreme(sign: float) -> Rule:
    """max with -inf, min with inf, either with itself."""

    def rule(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
        a, b = args
        if a == b:
            return a
        if not type_.dtype.is_float:
            return None
        if _is(new, a, sign * math.inf):
            return b
        return a if _is(new, b, sign * math.inf) else None

    return rule


def _involution(fn: str) -> Rule:
    def rule(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
        inner = new.map_of(args[0], fn)
        return inner[0] if inner else None

    return rule


def _idempotent(fn: str) -> Rule:
    def rule(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
        return args[0] if new.map_of(args[0], fn) else None

    return rule


# ---- truth


def _known_truth(new: Smart, var: Var) -> bool | None:
    """A predicate's value where the ranges of integers decide it."""
    number = new.number(var)
    if isinstance(number, bool):
        return number
    found = new.facts.ranges.get(var)
    return bool(found[0]) if found and found[0] == found[1] and var.type.dtype is bool_ else None


def _junction(neutral: bool) -> Rule:
    """`and` (neutral True) and `or` (neutral False)."""

    def rule(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
        a, b = args
        if a == b:
            return a
        if type_.dtype is not bool_:
            return None
        for known, other in ((a, b), (b, a)):
            truth = _known_truth(new, known)
            if truth is neutral:
                return new.spread(other, type_.sizes)
            if truth is not None:
                return new.spread_number(not neutral, type_)
        return None

    return rule


def _where(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    pred, then, other = args
    if then == other:
        return _spread_anew(new, pred, then, type_)
    truth = _known_truth(new, pred)
    if truth is not None:
        return new.spread(then if truth else other, type_.sizes)
    if inner := new.map_of(pred, "not"):
        return new.map("where", inner[0], other, then)
    inner = new.map_of(then, "where")
    if inner and inner[0] == pred and inner[1] != inner[2]:
        return new.spread(new.map("where", pred, inner[1], other), type_.sizes)
    inner = new.map_of(other, "where")
    if inner and inner[0] == pred and inner[1] != inner[2]:
        return new.spread(new.map("where", pred, then, inner[2]), type_.sizes)
    if read := filled(new, pred, then, other, type_):
        return read
    if type_.dtype is bool_:
        values = new.number(then), new.number(other)
        if values == (True, False):
            return new.spread(pred, type_.sizes)
        if values == (False, True):
            return new.spread(new.map("not", pred), type_.sizes)
    return None


def _spread_anew(new: Smart, pred: Var, value: Var, type_: Type) -> Var | None:
    """A spread in the one form that `Smart.spread` writes."""
    if value.type == type_:
        return value
    compared = new.map_of(pred, "eq")
    if compared and compared[0] == compared[1] and new.is_iota(compared[0]):
        return None
    return new.spread(value, type_.sizes)


_RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "floordiv": _floordiv,
    "neg": _neg,
    "pow": _pow,
    "max": _extreme(-1),
    "min": _extreme(1),
    "not": _involution("not"),
    "abs": _idempotent("abs"),
    "floor": _idempotent("floor"),
    "ceil": _idempotent("ceil"),
    "round": _idempotent("round"),
    "trunc": _idempotent("trunc"),
    "and": _junction(True),
    "or": _junction(False),
    "where": _where,
    "convert": convert,
    "real": part(0),
    "imag": part(1),
    "conj": conj,
}
