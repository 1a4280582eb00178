"""Functions of floats in generated code: no call leaves the kernel, any number of lanes.

    emit(Arith(fn, f32, 16), "exp", [x])

f32 and f64 share an algorithm where they can and differ in its tables. `docs/accuracy.md` gives the
measured errors; `scripts/accuracy.py` writes it. Special values are those of C's Annex F.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand.codegen.cpu import vmath_exp, vmath_inverse, vmath_log, vmath_trig
from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.text import Value
from summand.codegen.cpu.vmath_erf import erf
from summand.codegen.cpu.vmath_pow import power


def rsqrt(a: Arith, x: Value) -> Value:
    """1 / sqrt(x)."""
    return a.div(a.c(1.0), a.call("sqrt", x))


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "exp": vmath_exp.exp,
    "expm1": vmath_exp.expm1,
    "log": vmath_log.log,
    "log1p": vmath_log.log1p,
    "sinh": vmath_exp.sinh,
    "cosh": vmath_exp.cosh,
    "tanh": vmath_exp.tanh,
    "rsqrt": rsqrt,
    "pow": power,
    "erf": erf,
    "sin": vmath_trig.sin,
    "cos": vmath_trig.cos,
    "tan": vmath_trig.tan,
    "asin": vmath_inverse.asin,
    "acos": vmath_inverse.acos,
    "atan": vmath_inverse.atan,
    "atan2": vmath_inverse.atan2,
}


def emit(a: Arith, name: str, args: Sequence[Value]) -> Value:
    """The value of a function of this table."""
    return FUNCTIONS[name](a, *args)
