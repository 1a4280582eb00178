"""Arrays from numbers and from nothing: array, full, zeros, ones, linspace; the Kronecker delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from summand.errors import ArgumentError, DimError
from summand.lang.array import Array, Dim, Number, apply
from summand.lang.data import to_dtype, to_storage
from summand.lang.describe import message, source_row
from summand.lang.elementwise import expand, scalar_type
from summand.lang.graph import constant, leaf
from summand.lang.location import here

Shape = Mapping[Dim, int] | Sequence[Dim]


def _pairs(sizes: object) -> list[tuple[object, object]]:
    """Dims with their sizes, None where only the dim itself can tell."""
    if isinstance(sizes, Mapping):
        return list(sizes.items())
    if isinstance(sizes, (list, tuple)):
        return [(d, None) for d in sizes]
    what = f"a shape is a dict of dims to sizes, not {type(sizes).__name__}"
    raise ArgumentError(message(what, source_row(here()), "Write {n: 64, d: 8}."))


def _whole(dim: Dim, given: object) -> int:
    """A size that is written as an integer."""
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return int(given)
    what = f"{given!r} is not a size of {dim.name}"
    raise ArgumentError(message(what, source_row(here()), "A size is an integer >= 0."))


def array(x: object, *dims: Dim, dtype: object = None, copy: bool | None = None) -> Array:
    """An array from numbers: `sm.array(x, i, k)` names the axes of x, outermost first.

    x: an ndarray, a number or a nested list. Python numbers become f32, i32 or complex64.
    copy: None copies what somebody may write to later, True anything, False nothing: then x must
    not change while results that read it are pending. Memory in any strides is read where it lies.
    Raises ArgumentError where the axes and dims differ in number, DimError where a dim's own size
    differs from the axis.
    """
    if isinstance(x, Array):
        return _renamed_array(x, dims, dtype)
    storage, element = to_storage(x, None if dtype is None else to_dtype(dtype), copy)
    loc = here()
    if len(dims) != storage.ndim or not all(isinstance(d, Dim) for d in dims):
        named = ", ".join(d.name if isinstance(d, Dim) else repr(d) for d in dims) or "none"
        what = f"an array of shape {storage.shape} needs {storage.ndim} dims, given: {named}"
        raise ArgumentError(message(what, source_row(loc), "Name each axis once."))
    order = tuple(d.key for d in dims)
    if len(set(order)) != len(order):
        what = f"a dim names two axes: {', '.join(d.name for d in dims)}"
        raise DimError(message(what, source_row(loc), "Name each axis by a dim of its own."))
    for dim, size in zip(dims, storage.shape, strict=True):
        if dim.size is not None and dim.size != size:
            what = f"{dim.name} has size {dim.size}, but its axis has {size} elements"
            rows = [(f'Dim("{dim.name}", {dim.size})', dim.loc), *source_row(loc)]
            raise DimError(message(what, rows, "Use a dim without a size, or of this size."))
    return Array(leaf(storage, order, element, loc))


def from_dlpack(x: object, *dims: Dim) -> Array:
    """An array of another library that speaks DLPack, without a copy: `from_dlpack(tensor, i, k)`.

    x must not change while results that read it are pending, and is never written to.
    Raises ArgumentError for what is not on the CPU, DTypeError for elements that NumPy has not.
    """
    if not hasattr(x, "__dlpack__"):
        what = f"from_dlpack was given {type(x).__name__}, which does not speak DLPack"
        raise ArgumentError(message(what, source_row(here()), "Write sm.array(x, i, k)."))
    try:
        shared = np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        what = f"from_dlpack cannot share this {type(x).__name__}: {error}"
        advice = "It takes arrays on the CPU, of bool, integers, floats or complex numbers."
        raise ArgumentError(message(what, source_row(here()), advice)) from error
    return array(shared, *dims, copy=False)


def _renamed_array(x: Array, dims: Sequence[Dim], dtype: object) -> Array:
    if dims and {d.key for d in dims} != set(x.value.dims):
        what = "sm.array of an Array does not rename its dims"
        raise ArgumentError(message(what, source_row(here()), "Write a[k: k2]."))
    return x if dtype is None else x.astype(dtype)


def shape(sizes: Shape) -> dict[str, int]:
    """Keys to sizes, in order: `{n: 64, d: 8}`, or dims that have sizes of their own."""
    pairs = _pairs(sizes)
    out: dict[str, int] = {}
    for dim, given in pairs:
        if not isinstance(dim, Dim):
            what = f"{dim!r} is not a dim"
            raise ArgumentError(message(what, source_row(here()), "Write {n: 64, d: 8}."))
        size = dim.size if given is None else _whole(dim, given)
        if size is None:
            what = f"nothing gives {dim.name} a size"
            advice = f"Write {{{dim.name}: 64}}."
            raise DimError(message(what, source_row(here()), advice))
        if size < 0 or (dim.size is not None and dim.size != size):
            what = f"{dim.name} cannot have size {size}"
            raise DimError(message(what, [(dim.name, dim.loc), *source_row(here())], ""))
        out[dim.key] = size
    return out


def full(sizes: Shape, value: Number, dtype: object = None) -> Array:
    """`value` everywhere: `sm.full({i: 3, j: 4}, 0.5)`."""
    found = scalar_type(value) if dtype is None else to_dtype(dtype)
    return Array(expand(constant(value, found), shape(sizes)))


def zeros(sizes: Shape, dtype: object = "f32") -> Array:
    """Zeros: `sm.zeros({i: 3, j: 4})`."""
    return full(sizes, 0, dtype)


def ones(sizes: Shape, dtype: object = "f32") -> Array:
    """Ones: `sm.ones({i: 3, j: 4})`."""
    return full(sizes, 1, dtype)


def zeros_like(a: Array) -> Array:
    """Zeros of the same dims and type."""
    return full_like(a, 0)


def ones_like(a: Array) -> Array:
    """Ones of the same dims and type."""
    return full_like(a, 1)


def full_like(a: Array, value: Number) -> Array:
    """`value` everywhere, with a's dims and type."""
    sized = a.sized("full_like")
    return Array(expand(constant(value, sized.dtype), sized.type.sizes))


def linspace(start: float, stop: float, over: Dim, dtype: object = "f32") -> Array:
    """Evenly spaced numbers along a dim with a size of its own, both ends included."""
    (size,) = shape((over,)).values()
    return array(np.linspace(start, stop, size), over, dtype=dtype)


def eq(a: Array | Number, b: Array | Number) -> Array:
    """Elementwise equality; of two dims, the Kronecker delta (true where i = j)."""
    return apply("eq", a, b)


def ne(a: Array | Number, b: Array | Number) -> Array:
    """Elementwise inequality, of dims too."""
    return apply("ne", a, b)
