"""Element types: their names, widths and NumPy storage, and which type results when two meet.

Python numbers are weak: they take the type of the array they meet, as in JAX. 16-bit floats are
stored narrow and computed in f32. bf16 has no NumPy type of its own; it is stored as uint16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["bool", "uint", "int", "float", "complex"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type. `bits` is the width in memory; `storage` the NumPy dtype that holds it."""

    name: str
    kind: Kind
    bits: int
    storage: str

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype of an array in memory (uint16 for bf16)."""
        return np.dtype(self.storage)

    @property
    def bytes(self) -> int:
        """Bytes that one element takes in memory."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        """True for f16, bf16, f32, f64."""
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        """True for complex64, complex128."""
        return self.kind == "complex"

    @property
    def is_inexact(self) -> bool:
        """True for floats and complex numbers: what can be differentiated."""
        return self.kind in ("float", "complex")

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("int", "uint")

    def __repr__(self) -> str:
        return self.name


bool_ = DType("bool", "bool", 8, "bool")
u8 = DType("u8", "uint", 8, "uint8")
u32 = DType("u32", "uint", 32, "uint32")
u64 = DType("u64", "uint", 64, "uint64")
i8 = DType("i8", "int", 8, "int8")
i16 = DType("i16", "int", 16, "int16")
i32 = DType("i32", "int", 32, "int32")
i64 = DType("i64", "int", 64, "int64")
f16 = DType("f16", "float", 16, "float16")
bf16 = DType("bf16", "float", 16, "uint16")
f32 = DType("f32", "float", 32, "float32")
f64 = DType("f64", "float", 64, "float64")
complex64 = DType("complex64", "complex", 64, "complex64")
complex128 = DType("complex128", "complex", 128, "complex128")

ALL = (bool_, u8, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64, complex64, complex128)
BY_NAME = {t.name: t for t in ALL}


def from_numpy(dtype: np.dtype) -> DType | None:
    """The DType of a NumPy dtype, or None where there is none (bfloat16 of ml_dtypes is known)."""
    if dtype.name == "bfloat16":
        return bf16
    for t in ALL:
        if t is not bf16 and t.numpy == dtype:
            return t
    return None


def accumulator(dtype: DType) -> DType:
    """The type in which a reduction of `dtype` accumulates: f32 for 16-bit floats."""
    return f32 if dtype in (f16, bf16) else dtype


def real_part(dtype: DType) -> DType:
    """The type of the real part: f32 for complex64, f64 for complex128, else the type itself."""
    return {"complex64": f32, "complex128": f64}.get(dtype.name, dtype)


_RANK = {t: r for r, t in enumerate((bool_, u8, u32, u64, i8, i16, i32, i64))}
_FLOAT_RANK = {f16: 0, bf16: 0, f32: 1, f64: 2}


def promote(a: DType, b: DType) -> DType:
    """The type of an elementwise result of two arrays, as in JAX (no jump from i64 to f64).

    Integers meet floats at the float; f16 and bf16 meet at f32; u32 and i32 meet at i64.
    """
    if a == b:
        return a
    if a.is_complex or b.is_complex:
        wide = f64 in (a, b) or complex128 in (a, b)
        return complex128 if wide else complex64
    if a.is_float and b.is_float:
        if _FLOAT_RANK[a] == _FLOAT_RANK[b]:
            return f32
        return a if _FLOAT_RANK[a] > _FLOAT_RANK[b] else b
    if a.is_float or b.is_float:
        return a if a.is_float else b
    if a is bool_ or b is bool_:
        return b if a is bool_ else a
    if a.kind == b.kind:
        return a if a.bits >= b.bits else b
    unsigned, signed = (a, b) if a.kind == "uint" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    return {8: i16, 32: i64, 64: f32}[unsigned.bits]


# ---- from storage to what is computed in, and back


def widen(array: np.ndarray, dtype: DType) -> np.ndarray:
    """From storage to the type that is computed in: 16-bit floats become f32."""
    if dtype is bf16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32) if dtype is f16 else array


def narrow(array: np.ndarray, dtype: DType) -> np.ndarray:
    """From the type that was computed in to storage; 16-bit floats round to nearest even."""
    array = np.asarray(array)
    if dtype is bf16 or dtype is f16:
        array = _to_odd(array) if array.dtype == np.float64 else np.asarray(array, np.float32)
    with np.errstate(all="ignore"):
        return _round_to_bf16(array) if dtype is bf16 else np.asarray(array, dtype.numpy)


def _to_odd(array: np.ndarray) -> np.ndarray:
    """f64 as f32 so that rounding that to 16 bits gives what rounding the f64 once would: what is
    not exact becomes the one of its two neighbours whose last bit is 1."""
    with np.errstate(all="ignore"):
        near = array.astype(np.float32)
    away = np.where(np.abs(near) > np.abs(array), np.float32(0), np.float32(np.inf))
    odd = np.nextafter(near, np.copysign(away, near))
    moves = (near != array) & (near.view(np.uint32) % 2 == 0) & ~np.isnan(array)
    return np.asarray(np.where(moves, odd, near))


def _round_to_bf16(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array).view(np.uint32).reshape(array.shape)
    # 0x7fff + the lowest kept bit carries into the kept half just where rounding to even does.
    high = bits >> np.uint32(16)
    with np.errstate(over="ignore"):
        rounded = (bits + (np.uint32(0x7FFF) + (high & np.uint32(1)))) >> np.uint32(16)
    quiet = high | np.uint32(0x40)
    return np.asarray(np.where(np.isnan(array), quiet, rounded).astype(np.uint16))
