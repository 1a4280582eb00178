"""`sm.sort`, `sm.argsort`, `sm.top_k`: order along a dim."""

from __future__ import annotations

from summand.dtypes import i32
from summand.errors import DimError, DTypeError
from summand.ir.nodes import Sort, TopK, Type
from summand.lang.array import Array, Dim, Number, dim_key, operand, wrap
from summand.lang.describe import Names, message, row, source_row
from summand.lang.graph import Sized, emit
from summand.lang.location import here
from summand.lang.reindex import unknown_dim
from summand.lang.unsized import force

X = Array | Number


def _sorted(x: X, over: Dim, descending: bool, name: str) -> tuple[Sized, ...]:
    value = _operand(x, over, name)
    types = (value.type, value.type.with_dtype(i32))
    return emit(lambda a: Sort(a, over.key, descending), (value,), types, weak=value.weak)


def _operand(x: X, over: Dim, name: str) -> Sized:
    value = force(operand(x), name, here())
    if dim_key(over, name) not in value.dims:
        raise unknown_dim(value, over.key, f"{name} over", here())
    if value.dtype.is_complex:
        what = f"{value.dtype.name} has no order"
        raise DTypeError(message(what, source_row(here()), "Sort by abs(), .real or .imag."))
    size = value.type.sizes[over.key]
    if size >= 2**31:
        what = f"{name} over {over.name}: the positions of {size} elements are no i32"
        raise DimError(message(what, source_row(here()), "Sort pieces of it, then their results."))
    return value


def sort(x: X, over: Dim, *, descending: bool = False) -> Array:
    """The values along `over` in ascending order; stable, NaN last."""
    return wrap(_sorted(x, over, descending, "sort")[0])


def argsort(x: X, over: Dim, *, descending: bool = False) -> Array:
    """The positions that sort `x` along `over`: x[over: argsort(x, over)] is sorted. Stable."""
    found = _sorted(x, over, descending, "argsort")[1]
    return wrap(Sized(found.node, found.out))


def top_k(x: X, over: Dim, best: Dim) -> tuple[Array, Array]:
    """The greatest values along `over` in descending order, and their positions.

    best: the dim of the result in place of `over`; its own size is how many: Dim("best", 10).
    Ties go to the lower position.
    """
    value = _operand(x, over, "top_k")
    loc = here()
    dim_key(best, "top_k")
    count, available = best.size, value.type.sizes[over.key]
    if count is None:
        what = f"top_k needs to know how many: {best.name} has no size of its own"
        advice = f'Write sm.Dim("{best.name}", 10).'
        raise DimError(message(what, source_row(loc), advice))
    names = Names([*value.dims, best.key])
    if best.key in value.dims or count > available:
        why = "the operand has it" if best.key in value.dims else f"{over.name} has {available}"
        what = f"top_k cannot give {names[best.key]}={count}: {why}"
        raise DimError(message(what, [row(value, names, loc), *source_row(loc)], ""))
    sizes = {d: n for d, n in value.type.dims if d != over.key}
    out = Type.of(value.dtype, {**sizes, best.key: count})

    values, positions = emit(
        lambda a: TopK(a, over.key, best.key), (value,), (out, out.with_dtype(i32)), weak=value.weak
    )
    return wrap(values), wrap(Sized(positions.node, positions.out))
