"""NumPy arrays in and out: element types, storage of bf16, copies.

Data is copied on the way in, since evaluation is lazy and the caller may change his array later,
unless nobody can write to it; `copy=False` aliases it. On the way out an array is a read-only view
of the value that is kept.
"""

from __future__ import annotations

import numpy as np

from summand import dtypes
from summand.dtypes import DType, bf16, widen
from summand.errors import ArgumentError, DTypeError
from summand.ir.scalars import convert as convert_storage
from summand.lang.describe import message, source_row
from summand.lang.location import here

Numbers = object  # an ndarray, a nested list of numbers, or what np.asarray takes


def to_storage(x: Numbers, dtype: DType | None, copy: bool | None) -> tuple[np.ndarray, DType]:
    """An ndarray in storage, and its element type."""
    is_array = _is_typed(x)
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        what = "sm.array was given a masked array, and has no place for its mask"
        advice = "Fill what is masked: x.filled(0)."
        raise ArgumentError(message(what, source_row(here()), advice))
    try:
        array = np.asarray(x)
    except (ValueError, OverflowError) as error:
        what = f"sm.array cannot make an array of this {type(x).__name__}"
        advice = "Lists of one level must be of one length; or give it an ndarray or a number."
        raise ArgumentError(message(what, source_row(here()), advice)) from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.uint16:
        array = array.astype(np.int32)  # there is no u16; i32 holds it
    source = dtypes.from_numpy(array.dtype)
    if source is None:
        what = f"sm.array was given elements of type {array.dtype}"
        advice = "It takes bool, integers, floats and complex numbers of up to 64 bits a part."
        raise DTypeError(message(what, source_row(here()), advice))
    if source is bf16:
        array = array.view(np.uint16)
    target = dtype or (source if is_array else _default(array, source))
    if target is not source:
        return np.asarray(convert_storage(array, source, target)), target
    owned = not is_array or (isinstance(x, np.ndarray) and not np.shares_memory(array, x))
    shared = owned or copy is False or (copy is None and _frozen(array))
    return (array if shared else array.copy(order="K")), target


def _frozen(array: np.ndarray) -> bool:
    """True where no array that is known of this memory can be written through."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None or isinstance(owner, bytes)


def _is_typed(x: Numbers) -> bool:
    """False for Python numbers and lists of them, whose element type is the default one."""
    while isinstance(x, (list, tuple)) and x:
        x = x[0]
    plain = isinstance(x, (bool, int, float, complex, list, tuple))
    return isinstance(x, np.generic) or not plain


def _default(array: np.ndarray, source: DType) -> DType:
    """The type of Python numbers: f32, i32 where it holds them, complex64."""
    if source is dtypes.f64:
        return dtypes.f32
    if source is dtypes.complex128:
        return dtypes.complex64
    if source is dtypes.i64 and array.size:
        small = int(array.min()) >= -(2**31) and int(array.max()) < 2**31
        return dtypes.i32 if small else source
    return dtypes.i32 if source is dtypes.i64 else source


def from_storage(array: np.ndarray, dtype: DType) -> np.ndarray:
    """What a user sees: bf16 as f32, which holds it exactly; a read-only view."""
    out = widen(array, dtype) if dtype is bf16 else array.view()
    out.setflags(write=False)
    return out


def to_dtype(dtype: object) -> DType:
    """An element type from what a user may write: sm.f32, "f32", np.float32, float."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and dtype in dtypes.BY_NAME:
        return dtypes.BY_NAME[dtype]
    python = {bool: dtypes.bool_, int: dtypes.i32, float: dtypes.f32, complex: dtypes.complex64}
    if isinstance(dtype, type) and dtype in python:
        return python[dtype]
    try:
        found = None if dtype is None else dtypes.from_numpy(np.dtype(dtype))  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None:
        what = f"{dtype!r} is not an element type"
        advice = f"There are {', '.join(dtypes.BY_NAME)}."
        raise ArgumentError(message(what, source_row(here()), advice))
    return found
