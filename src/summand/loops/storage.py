"""Elements in memory and values in code: how the interpreter goes from one to the other.

Values of 16-bit floats are held in f32 (rounded to the narrow type where it is asked for), as
generated code does. bf16 is stored as the upper half of an f32's bits.
"""

from __future__ import annotations

import numpy as np

from summand.dtypes import DType, bf16, f16, narrow, widen


def value_type(dtype: DType) -> np.dtype:
    """The NumPy type that holds values of `dtype` while code runs."""
    return np.dtype("float32") if dtype in (f16, bf16) else dtype.numpy


def convert(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as another type: floats saturate at an integer's ends and NaN becomes 0."""
    if dtype in (f16, bf16):
        return widen(narrow(values, dtype), dtype)
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
