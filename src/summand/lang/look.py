"""Looking at values: which axes, in which order, and the text of `print`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from summand.dtypes import DType
from summand.errors import DimError, IndexRangeError
from summand.lang.data import from_storage
from summand.lang.describe import Names, message, sizes_in_order, source_row
from summand.lang.graph import Buffer, Sized
from summand.lang.location import here
from summand.lang.trace import evaluate, first_placeholder, not_concrete
from summand.lang.unsized import Unsized, Value, force, sizes_of

_SHOWN = 1000  # elements up to which repr shows all numbers


def axes(value: Sized, asked: Sequence[str]) -> tuple[str, ...]:
    """The keys of the axes that the user asked for; raises DimError unless they are the dims."""
    order = tuple(asked)
    if not asked and len(value.dims) <= 1:
        return value.dims
    if sorted(order) == sorted(value.dims):
        return order
    names = Names([*value.dims, *order])
    sizes = names.type(value.dtype, sizes_in_order(value))
    listed = names.list(d for d, _ in sizes_in_order(value))
    if not asked:
        what = f"an ndarray has an order of dims, {sizes} has none"
    else:
        what = f"numpy({names.list(order)}) does not name each dim of {sizes} once"
    raise DimError(message(what, source_row(here()), names.advice(f"Write a.numpy({listed}).")))


def looked_at(what: str, value: Sized, order: tuple[str, ...]) -> Buffer:
    """The numbers of a value, computed now if need be."""
    if value.buffer is None:
        traced = first_placeholder((value,))
        if traced is not None:
            raise not_concrete(what, traced, here())
        evaluate((value,), (order,))
    buffer = value.buffer
    if buffer is None:
        raise not_concrete(what, value, here())
    return buffer


def numbers(buffer: Buffer, order: Sequence[str], dtype: DType) -> np.ndarray:
    """The array with its axes in this order, as users see it."""
    return from_storage(buffer.array.transpose([buffer.order.index(d) for d in order]), dtype)


class Exported:
    """The numbers of an array for DLPack. They are shared: a consumer must not change them.

    Memory that must not be written is shared with consumers that know of such, else copied.
    """

    __slots__ = ("_array",)

    def __init__(self, buffer: Buffer, order: Sequence[str]) -> None:
        self._array = buffer.array.transpose([buffer.order.index(d) for d in order])

    def __dlpack__(self, **options: object) -> object:
        """A capsule; see the array API standard."""
        array = self._array
        version = options.get("max_version")
        if not array.flags.writeable and not (isinstance(version, tuple) and version >= (1, 0)):
            array = array.copy()
        return array.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU."""
        return (1, 0)


def shown(value: Value) -> str:
    """The text of an array: type, then numbers where they are to be had."""
    names = Names(value.dims)
    if isinstance(value, Unsized):
        try:
            known = sizes_of(value, "elementwise operation", value.loc)
        except (DimError, IndexRangeError) as error:  # a debugger prints what cannot be computed
            shown_type = names.type(value.dtype, [(d, None) for d in value.dims])
            return f"Array {shown_type}: {str(error).splitlines()[0]}"
        if any(d not in known for d in value.dims):
            sizes = [(d, known.get(d)) for d in value.dims]
            return f"Array {names.type(value.dtype, sizes)}, sizes not known yet"
    sized = force(value, "repr", here())
    pairs = sizes_in_order(sized)
    head = f"Array {names.type(sized.dtype, pairs)}"
    if sized.buffer is None and first_placeholder((sized,)) is not None:
        return f"{head}, traced"
    order = tuple(d for d, _ in pairs)
    found = numbers(looked_at("repr", sized, order), order, sized.dtype)
    text = np.array2string(found, threshold=_SHOWN)
    return f"{head}\n{text}" if pairs else f"{head} {text}"
