"""What scalar ops do to NumPy arrays, exactly: storage, rounding, conversion, corner cases.

    bf16 1.0        is stored as uint16 0x3f80
    f16 a + b       is round16(f32(a) + f32(b))
    i32 7 // 0      is 0, without a warning
    f32 nan -> i32  is 0; 1e10 -> i32 is 2147483647; 1e10 -> f16 is inf

The interpreter and constant folding share this file, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from summand.dtypes import DType, accumulator, bool_, narrow, widen
from summand.errors import InternalError
from summand.ir.nodes import Scalar
from summand.ir.prims import PRIMS


def convert(array: np.ndarray, source: DType, target: DType) -> np.ndarray:
    """Storage to storage. Float to integer truncates and saturates, NaN gives 0; integers wrap;
    complex to real keeps the real part; anything to bool is `!= 0`."""
    wide = widen(array, source)
    if target is bool_:
        return np.asarray(wide != 0)
    if source.is_complex and not target.is_complex:
        wide = wide.real
    if target.is_integer and np.issubdtype(wide.dtype, np.floating):
        return _saturate(wide, target)
    with np.errstate(all="ignore"):
        return narrow(wide, target)


def _saturate(array: np.ndarray, target: DType) -> np.ndarray:
    info = np.iinfo(target.numpy)
    least, past = np.float64(info.min), np.float64(info.max) + 1  # both exact for every width
    values = np.trunc(np.asarray(array, np.float64))
    inside = (values >= least) & (values < past)
    with np.errstate(all="ignore"):
        out = np.where(inside, values, 0.0).astype(target.numpy)
        top = np.asarray(info.max, target.numpy)
        bottom = np.asarray(info.min, target.numpy)
        out = np.where(values >= past, top, out)
        return np.asarray(np.where(values < least, bottom, out))


def scalar(value: Scalar, dtype: DType) -> np.ndarray:
    """A 0-d array in storage. An integer wraps to the type's width."""
    if dtype.is_integer:
        bits = int(value.real) & ((1 << dtype.bits) - 1)
        return np.array(bits, np.dtype(f"uint{dtype.bits}")).view(dtype.numpy)
    with np.errstate(all="ignore"):
        return narrow(np.array(value), dtype)


def apply(fn: str, args: Sequence[np.ndarray], types: Sequence[DType], out: DType) -> np.ndarray:
    """The scalar op `fn` on arrays in storage that broadcast; the result is in storage."""
    if fn == "convert":
        return convert(args[0], types[0], out)
    if fn in ("stop_gradient", "barrier"):
        return args[0]
    wide = [widen(a, t) for a, t in zip(args, types, strict=True)]
    with np.errstate(all="ignore"):
        if fn == "pow" and out.is_integer:
            result = _integer_power(wide[0], wide[1])
        elif fn == "complex":
            result = _complex(wide[0], wide[1])
        else:
            result = PRIMS[fn].numpy(*wide)
        return narrow(result, out)


def _integer_power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """A negative exponent gives 1 / base**-exponent cut to a whole number; 0 where base is 0."""
    if exponent.dtype.kind == "u" or not np.any(exponent < 0):
        return np.asarray(np.power(base, exponent))
    out = np.power(base, np.maximum(exponent, 0))
    odd = (exponent & 1) == 1
    inverse = np.where(base == 1, 1, np.where(base == -1, np.where(odd, -1, 1), 0))
    return np.asarray(np.where(exponent < 0, inverse.astype(base.dtype), out))


def _complex(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    real, imag = np.broadcast_arrays(real, imag)
    out = np.empty(real.shape, np.complex64 if real.dtype == np.float32 else np.complex128)
    out.real = real
    out.imag = imag
    return out


# ---- folds of the named monoids

_UFUNC = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.bitwise_or,
    "all": np.bitwise_and,
}


def ufunc_of(name: str) -> np.ufunc:
    """The NumPy ufunc that combines for a named monoid."""
    if name not in _UFUNC:
        raise InternalError(f"interp: no monoid is named {name}")
    return _UFUNC[name]


def fold_type(name: str, dtype: DType) -> np.dtype:
    """The type in which the interpreter folds: f32 sums in f64, since it serves as a reference."""
    wide = accumulator(dtype).numpy
    return np.dtype(np.float64) if name == "sum" and wide == np.float32 else wide
