"""The table of scalar ops: name, arity, type rule, NumPy meaning, cost.

Other interpretations (derivatives in `ad`, machine code in `codegen`) are tables of their own; a
test proves that each covers every op here or lists what it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from summand.dtypes import (
    DType,
    bool_,
    complex64,
    complex128,
    f32,
    f64,
    i32,
    i64,
    promote,
    real_part,
)


@dataclass(frozen=True, slots=True)
class Prim:
    """A scalar op. `rule` gives the result's dtype, or None where the op has none for these types.

    `flops` counts FMA-pipe operations of one element (exp 9, tanh 14, …), for the cost model.
    """

    name: str
    arity: int
    rule: Callable[..., DType | None]
    numpy: Callable[..., np.ndarray]
    flops: float
    commutative: bool = False


# ---- type rules


def _numeric(*ts: DType) -> DType | None:
    if any(t is bool_ for t in ts):
        return None
    return _same(*ts)


def _same(*ts: DType) -> DType | None:
    out = ts[0]
    for t in ts[1:]:
        out = promote(out, t)
    return out


def _ordered(*ts: DType) -> DType | None:
    out = _same(*ts)
    return None if out is None or out.is_complex else out


def _floating(*ts: DType) -> DType | None:
    out = _same(*ts)
    return out if out is not None and out.is_inexact else None


def _real_floating(*ts: DType) -> DType | None:
    out = _same(*ts)
    return out if out is not None and out.is_float else None


def _integral(*ts: DType) -> DType | None:
    out = _same(*ts)
    return out if out is not None and out.is_integer else None


def _bits(*ts: DType) -> DType | None:
    out = _same(*ts)
    return out if out is not None and (out.is_integer or out is bool_) else None


def _compare(*ts: DType) -> DType | None:
    return bool_ if _ordered(*ts) is not None else None


def _equal(*ts: DType) -> DType | None:
    return bool_


def _test(t: DType) -> DType | None:
    return bool_ if t.is_inexact else None


def _real(t: DType) -> DType | None:
    return real_part(t)


def _magnitude(t: DType) -> DType | None:
    return None if t is bool_ else real_part(t)


def _where(p: DType, a: DType, b: DType) -> DType | None:
    return promote(a, b) if p is bool_ else None


def _complex(a: DType, b: DType) -> DType | None:
    return {f32: complex64, f64: complex128}.get(promote(a, b))


def _ordinal_type(t: DType) -> DType | None:
    return {f32: i32, f64: i64}.get(t)


# ---- NumPy meanings that are not a ufunc


def _ordinal(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    signed = np.dtype(f"i{x.dtype.itemsize}")
    most = np.iinfo(signed).max
    bits = (x + x.dtype.type(0)).view(signed)
    return np.where(np.isnan(x), np.iinfo(signed).min, np.where(bits < 0, bits ^ most, bits))


def _erf(x: np.ndarray) -> np.ndarray:
    out = np.frompyfunc(math.erf, 1, 1)(x)
    return np.asarray(out, dtype=np.asarray(x).dtype)


def _int_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.floor_divide(a, b))


PRIMS: dict[str, Prim] = {}


def _define(
    name: str,
    arity: int,
    rule: Callable[..., DType | None],
    numpy: Callable[..., np.ndarray],
    flops: float,
    commutative: bool = False,
) -> None:
    PRIMS[name] = Prim(name, arity, rule, numpy, flops, commutative)


_define("add", 2, _numeric, np.add, 1, True)
_define("sub", 2, _numeric, np.subtract, 1)
_define("mul", 2, _numeric, np.multiply, 1, True)
_define("div", 2, _floating, np.divide, 8)
_define("floordiv", 2, _ordered, _int_div, 9)
_define("mod", 2, _ordered, np.mod, 10)
_define("pow", 2, _numeric, np.power, 30)
_define("max", 2, _ordered, np.maximum, 1, True)
_define("min", 2, _ordered, np.minimum, 1, True)
_define("atan2", 2, _real_floating, np.arctan2, 30)
_define("neg", 1, _numeric, np.negative, 1)
_define("abs", 1, _magnitude, np.abs, 1)
_define("sign", 1, _numeric, np.sign, 2)
_define("exp", 1, _floating, np.exp, 9)
_define("expm1", 1, _floating, np.expm1, 14)
_define("log", 1, _floating, np.log, 16)
_define("log1p", 1, _floating, np.log1p, 20)
_define("sqrt", 1, _floating, np.sqrt, 10)
_define("rsqrt", 1, _floating, lambda x: np.asarray(1 / np.sqrt(x), dtype=np.asarray(x).dtype), 12)
_define("sin", 1, _floating, np.sin, 16)
_define("cos", 1, _floating, np.cos, 16)
_define("tan", 1, _floating, np.tan, 30)
_define("asin", 1, _real_floating, np.arcsin, 25)
_define("acos", 1, _real_floating, np.arccos, 25)
_define("atan", 1, _real_floating, np.arctan, 20)
_define("sinh", 1, _floating, np.sinh, 25)
_define("cosh", 1, _floating, np.cosh, 22)
_define("tanh", 1, _floating, np.tanh, 18)
_define("erf", 1, _real_floating, _erf, 24)
_define("floor", 1, _real_floating, np.floor, 1)
_define("ceil", 1, _real_floating, np.ceil, 1)
_define("round", 1, _real_floating, np.round, 1)  # half to even
_define("trunc", 1, _real_floating, np.trunc, 1)
_define("isnan", 1, _test, np.isnan, 1)
_define("isinf", 1, _test, np.isinf, 1)
_define("isfinite", 1, _test, np.isfinite, 1)
_define("ordinal", 1, _ordinal_type, _ordinal, 5)  # an integer in the order of sort; NaN least
_define("lt", 2, _compare, np.less, 1)
_define("le", 2, _compare, np.less_equal, 1)
_define("gt", 2, _compare, np.greater, 1)
_define("ge", 2, _compare, np.greater_equal, 1)
_define("eq", 2, _equal, np.equal, 1, True)
_define("ne", 2, _equal, np.not_equal, 1, True)
_define("and", 2, _bits, np.bitwise_and, 1, True)
_define("or", 2, _bits, np.bitwise_or, 1, True)
_define("xor", 2, _bits, np.bitwise_xor, 1, True)
_define("not", 1, _bits, np.invert, 1)
_define("shl", 2, _integral, np.left_shift, 1)
_define("shr", 2, _integral, np.right_shift, 1)
_define("where", 3, _where, np.where, 1)  # where(p, a, b)
_define("real", 1, _real, np.real, 0)
_define("imag", 1, _real, np.imag, 0)
_define("conj", 1, _numeric, np.conj, 0)
_define("complex", 2, _complex, lambda a, b: a + 1j * b, 0)
_define("convert", 1, lambda t: t, lambda x: x, 1)  # the result's dtype is in the equation's type
_define("stop_gradient", 1, lambda t: t, lambda x: x, 0)  # identity whose derivative is zero
_define("barrier", 1, lambda t: t, lambda x: x, 0)  # identity that no pass looks through or merges

POSITION = i32  # the type of iota and of positions (sort, top_k, recur)
