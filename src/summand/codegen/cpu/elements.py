"""Element types in memory and in registers: bool as a byte, 16-bit floats as f32.

Conversions of f16 are instructions where the processor has them; elsewhere LLVM would call a
library, so they are written out. bf16 is the upper half of an f32's bits.
"""

from __future__ import annotations

from summand.codegen.cpu.text import Function, Value, constant, memory_type, register_type, vector
from summand.dtypes import DType, bf16, bool_, f16


def from_memory(fn: Function, stored: Value, dtype: DType, lanes: int) -> Value:
    """What was loaded, in the register type of its dtype."""
    type_ = register_type(dtype, lanes)
    if dtype is bool_:
        zero = constant(0, stored.type)
        return fn.pure(f"icmp ne {stored.type} {stored}, {zero}", type_, dtype)
    if dtype is bf16:
        wide = fn.cast("zext", stored, vector("i32", lanes))
        bits = fn.pure(f"shl {wide.type} {wide}, {constant(16, wide.type)}", wide.type)
        return fn.cast("bitcast", bits, type_, dtype)
    if dtype is f16:
        return widen_half(fn, stored, lanes)
    return Value(stored.name, type_, dtype)


def to_memory(fn: Function, value: Value, dtype: DType, lanes: int) -> Value:
    """A value as it is stored: 16-bit floats are rounded to the nearest even."""
    type_ = vector(memory_type(dtype), lanes)
    if dtype is bool_:
        return fn.cast("zext", value, type_)
    if dtype is bf16:
        return narrow_bf16(fn, value, lanes)
    if dtype is f16:
        return narrow_half(fn, value, lanes)
    return value


def _has_half(fn: Function) -> bool:
    """Whether the processor converts f16; otherwise LLVM would call a library."""
    return bool(fn.unit.features & {"f16c", "avx512f", "fullfp16", "fp-armv8", "neon"})


def _binary(fn: Function, op: str, a: Value, b: Value | int) -> Value:
    other = constant(b, a.type) if isinstance(b, int) else b
    return fn.pure(f"{op} {a.type} {a}, {other}", a.type)


def _compare(fn: Function, how: str, a: Value, b: int, lanes: int) -> Value:
    return fn.pure(f"icmp {how} {a.type} {a}, {constant(b, a.type)}", vector("i1", lanes))


def widen_half(fn: Function, stored: Value, lanes: int) -> Value:
    """f16 to f32: exponent and fraction moved into place, then scaled by 2**112."""
    type_ = vector("float", lanes)
    if _has_half(fn):
        return fn.cast("fpext", stored, type_, f16)
    i32 = vector("i32", lanes)
    bits = fn.cast("zext", fn.cast("bitcast", stored, vector("i16", lanes)), i32)
    sign = _binary(fn, "shl", _binary(fn, "and", bits, 0x8000), 16)
    rest = _binary(fn, "shl", _binary(fn, "and", bits, 0x7FFF), 13)
    moved = fn.cast("bitcast", rest, type_)
    scaled = fn.pure(f"fmul {type_} {moved}, {constant(2.0**112, type_)}", type_)
    special = _compare(fn, "uge", rest, 0x7C00 << 13, lanes)
    finite = fn.cast("bitcast", scaled, i32)
    magnitude = fn.select(special, _binary(fn, "or", rest, 0x7F800000), finite)
    return fn.cast("bitcast", _binary(fn, "or", magnitude, sign), type_, f16)


def narrow_half(fn: Function, value: Value, lanes: int) -> Value:
    """f32 to f16, to the nearest even. Small results are rounded by an f32 addition."""
    half = vector("half", lanes)
    if _has_half(fn):
        return fn.cast("fptrunc", value, half)
    type_, i32 = vector("float", lanes), vector("i32", lanes)
    bits = fn.cast("bitcast", value, i32)
    sign = _binary(fn, "lshr", _binary(fn, "and", bits, 0x80000000), 16)
    size = _binary(fn, "and", bits, 0x7FFFFFFF)
    odd = _binary(fn, "and", _binary(fn, "lshr", size, 13), 1)
    shifted = _binary(fn, "sub", _binary(fn, "add", size, 0xFFF), 112 << 23)
    normal = _binary(fn, "lshr", _binary(fn, "add", shifted, odd), 13)
    half_bits = constant(0.5, type_)
    summed = fn.pure(f"fadd {type_} {fn.cast('bitcast', size, type_)}, {half_bits}", type_)
    small = _binary(fn, "sub", fn.cast("bitcast", summed, i32), 0x3F000000)
    is_small = _compare(fn, "ult", size, 113 << 23, lanes)
    finite = fn.select(is_small, small, normal)
    too_big = _compare(fn, "uge", size, 0x477FF000, lanes)
    is_nan = _compare(fn, "ugt", size, 0x7F800000, lanes)
    infinite = fn.select(is_nan, constant(0x7E00, i32), constant(0x7C00, i32))
    out = _binary(fn, "or", fn.select(too_big, infinite, finite), sign)
    return fn.cast("bitcast", fn.cast("trunc", out, vector("i16", lanes)), half)


def narrow_bf16(fn: Function, value: Value, lanes: int) -> Value:
    """f32 to the bits of bf16, to the nearest even; NaN stays NaN."""
    i32 = vector("i32", lanes)
    bits = fn.cast("bitcast", value, i32)
    upper = _binary(fn, "lshr", bits, 16)
    odd = _binary(fn, "and", upper, 1)
    rounded = _binary(fn, "lshr", _binary(fn, "add", _binary(fn, "add", bits, 0x7FFF), odd), 16)
    nan = fn.pure(f"fcmp uno {value.type} {value}, {value}", vector("i1", lanes))
    out = fn.select(nan, _binary(fn, "or", upper, 0x40), rounded)
    return fn.cast("trunc", out, vector("i16", lanes))
