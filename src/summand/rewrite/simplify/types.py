"""Conversions between element types, and the parts of complex numbers.

    convert to f32 (convert to f64 %0)   ->   %0               (every f32 is an f64)
    convert to i64 (convert to i32 %0)   ->   convert to i64 %0        (%0 is i8)
    real (complex %0 %1)                 ->   %0

A middle type that does not hold every value of the first one stays: it rounds or wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from summand.dtypes import DType, bf16, bool_, f16, f32, f64
from summand.ir.nodes import Type, Var
from summand.rewrite.simplify.smart import Smart

Rule = Callable[[Smart, tuple[Var, ...], Type], Var | None]

_INTEGERS_HELD: Mapping[DType, int] = {f16: 11, bf16: 8, f32: 24, f64: 53}


def holds(wide: DType, narrow: DType) -> bool:
    """True where every value of `narrow` is one of `wide` exactly."""
    if wide == narrow or narrow is bool_:
        return True
    if wide.is_complex:
        part = f32 if wide.bits == 64 else f64
        return holds(part, narrow) if not narrow.is_complex else wide.bits >= narrow.bits
    if narrow.is_integer and wide.is_integer:
        if narrow.kind == wide.kind:
            return wide.bits >= narrow.bits
        return wide.kind == "int" and wide.bits > narrow.bits
    if narrow.is_integer:
        bits = narrow.bits - (narrow.kind == "int")
        return wide in _INTEGERS_HELD and bits <= _INTEGERS_HELD[wide]
    if narrow.is_float and wide.is_float:
        return wide.bits > narrow.bits
    return False


def convert(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    """Conversion to the same type, there and back, or by way of a type that loses nothing."""
    arg = args[0]
    target, middle = type_.dtype, arg.type.dtype
    if target == middle:
        return arg
    inner = new.map_of(arg, "convert")
    if not inner:
        return None
    source = inner[0].type.dtype
    if not holds(middle, source):
        return None
    if target == source:
        return inner[0]
    # From float to integer saturates, from integer to integer wraps: the middle type matters there.
    kept = source is bool_ or not (target.is_integer and source.is_integer and middle.is_inexact)
    return new.map("convert", inner[0], dtype=target) if kept else None


def part(number: int) -> Rule:
    """real and imag of a pair; real of a real number."""

    def rule(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
        if not args[0].type.dtype.is_complex:
            return args[0] if number == 0 else new.spread_number(0, type_)
        pair = new.map_of(args[0], "complex")
        return new.spread(pair[number], type_.sizes) if pair else None

    return rule


def conj(new: Smart, args: tuple[Var, ...], type_: Type) -> Var | None:
    """The conjugate of a real number, or of a conjugate."""
    if not type_.dtype.is_complex:
        return args[0]
    inner = new.map_of(args[0], "conj")
    return inner[0] if inner else None
