"""Scalar ops and folds of the loop IR on NumPy arrays of values.

Where NumPy raises or leaves a result open, the meaning that generated code must match is fixed
here: an integer divided by zero is 0, a float that an integer cannot hold saturates, an integer to
a negative power is truncated (0, or ±1 for a base of ±1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from summand.dtypes import DType
from summand.errors import InternalError
from summand.ir.prims import PRIMS
from summand.loops.nodes import Combine
from summand.loops.storage import convert, value_type

IDENTITIES = ("convert", "stop_gradient", "barrier", "real", "conj")


def apply(fn: str, args: Sequence[np.ndarray], dtype: DType) -> np.ndarray:
    """A scalar op on arrays of values that broadcast."""
    if fn in IDENTITIES:
        return convert(args[0], dtype)
    if fn not in PRIMS:
        raise InternalError(f"interp: there is no scalar op {fn}")
    with np.errstate(all="ignore"):
        if fn == "pow" and dtype.is_integer:
            return _integer_power(args[0], args[1]).astype(value_type(dtype))
        out = PRIMS[fn].numpy(*args)
    return np.asarray(out).astype(value_type(dtype), copy=False)


def _integer_power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    power: np.ndarray = np.power(base, np.maximum(exponent, 0))
    if exponent.dtype.kind == "u":
        return power
    odd = np.where(exponent & 1, base, np.ones_like(base))
    inverse = np.where(np.abs(base) == 1, odd, 0)
    return np.asarray(np.where(exponent < 0, inverse, power))


Components = tuple[np.ndarray, ...]
Code = Callable[[Components], Components]


def fold(
    combine: Combine,
    args: Components,
    axes: tuple[int, ...],
    mask: np.ndarray | None,
    dtypes: Sequence[DType],
    code: Code,
) -> Components:
    """Fold arrays over `axes` (kept with size 1), in the order given, where the mask holds.

    `code` runs a combine of several components on (left …, right …).
    """
    starts = [
        np.asarray(i, dtype=value_type(t)) for i, t in zip(combine.identity, dtypes, strict=True)
    ]
    if mask is not None:
        args = tuple(np.where(mask, a, s) for a, s in zip(args, starts, strict=True))
    args = np.broadcast_arrays(*args) if len(args) > 1 else args
    if combine.fn is not None:
        return (_fold_ufunc(combine.fn, args[0], axes, starts[0], dtypes[0]),)
    points = [_points(a, axes) for a in args]
    state: Components = tuple(
        np.broadcast_to(s, p.shape[1:]) for s, p in zip(starts, points, strict=True)
    )
    for k in range(points[0].shape[0]):
        state = code((*state, *(p[k] for p in points)))
        state = tuple(np.broadcast_to(s, points[0].shape[1:]) for s in state)
    return state


def _points(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The points of `axes` along a new first axis, in order; `axes` stay with size 1."""
    moved = np.moveaxis(array, axes, range(len(axes)))
    count = int(np.prod([array.shape[a] for a in axes], dtype=np.int64))
    kept = [1 if a in axes else n for a, n in enumerate(array.shape)]
    return moved.reshape((count, *kept))


def _fold_ufunc(
    fn: str, arg: np.ndarray, axes: tuple[int, ...], start: np.ndarray, dtype: DType
) -> np.ndarray:
    ufunc = PRIMS[fn].numpy
    if not isinstance(ufunc, np.ufunc):
        raise InternalError(f"interp: {fn} cannot fold")
    with np.errstate(all="ignore"):
        arg = arg.astype(value_type(dtype), copy=False)
        out = ufunc.reduce(arg, axis=axes, keepdims=True, initial=start[()], dtype=arg.dtype)
    return np.asarray(out)


def combine_at(fn: str, buffer: np.ndarray, at: np.ndarray, values: np.ndarray) -> None:
    """buffer[at] = fn(buffer[at], value), one after the other."""
    ufunc = PRIMS[fn].numpy
    if not isinstance(ufunc, np.ufunc):
        raise InternalError(f"interp: a store cannot combine with {fn}")
    with np.errstate(all="ignore"):
        ufunc.at(buffer, at, values)
