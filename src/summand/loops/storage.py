"""Elements in memory and values in code: how the interpreter goes from one to the other.

Values of 16-bit floats are held in f32 (rounded to the narrow type where it is asked for), as
generated code does. bf16 is stored as the upper half of an f32's bits.
"""

from __future__ import annotations

import numpy as np

from summand.dtypes import DType, bf16, f16


def value_type(dtype: DType) -> np.dtype:
    """The NumPy type that holds values of `dtype` while code runs."""
    return np.dtype("float32") if dtype in (f16, bf16) else dtype.numpy


def widen(stored: np.ndarray, dtype: DType) -> np.ndarray:
    """Values of elements of type `dtype` read from memory."""
    if dtype is bf16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(value_type(dtype), copy=False)


def narrow(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Elements of type `dtype` to be written to memory, rounded to the nearest even."""
    if dtype is not bf16:
        with np.errstate(all="ignore"):
            return values.astype(dtype.numpy, copy=False)
    wide = np.array(values, dtype=np.float32)  # a copy; keeps 0-dim arrays 0-dim
    bits = wide.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(wide), quiet, rounded).astype(np.uint16)


def convert(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as another type: floats saturate at an integer's ends and NaN becomes 0."""
    if dtype in (f16, bf16):
        return widen(narrow(values.astype(np.float32), dtype), dtype)
    target = dtype.numpy
    with np.errstate(all="ignore"):
        if not (dtype.is_integer and values.dtype.kind == "f"):
            return values.astype(target, copy=False)
        info = np.iinfo(target)
        out = np.trunc(values).astype(target)
        out = np.where(values >= float(info.max), info.max, out)
        out = np.where(values <= float(info.min), info.min, out)
    return np.where(np.isnan(values), 0, out).astype(target)


def garbage(buffer: np.ndarray) -> None:
    """Fill memory that holds nothing yet: NaN in floats, -1 or the greatest value in integers."""
    buffer.view(np.uint8)[:] = 1 if buffer.dtype == np.bool_ else 0xFF
